//! Weights: model files as ranged byte sources, and tensors in the one packed form that kernels read.
//!
//! A [`gguf::GgufReader`] reads a model file from a [`ByteSource`], front to back; each tensor goes through a [`Packer`] into a
//! [`PackedTensor`] as its bytes arrive, so that neither the file nor a tensor's raw bytes ever lie whole in memory. A [`RunPacker`]
//! hands a packed tensor on in parts, for devices with a memory of their own.
//! [`dequantize`] is the plain reference for what the blocks of a file mean.
//!
//! This crate knows neither devices nor models.

mod block;
mod codec;
mod fields;
pub mod gguf;
pub mod packed;
mod packer;
mod runs;
mod source;
#[cfg(feature = "testing")]
pub mod testing;
mod unpack;

pub use block::BlockType;
pub use codec::{CodecError, dequantize};
pub use packed::{FloatKind, Interleave, PackedFormat, PackedLayout, PackedTensor, ScaleKind};
pub use packer::{PackError, Packer};
pub use runs::{RUN_BYTES, RunPacker};
pub use source::{ByteSource, MemorySource, SourceError};
