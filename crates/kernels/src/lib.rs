//! Quantised and fused operations for language models, as an extension of burn's backends.
//!
//! One set of functions on tensors serves both devices: `#[cube]` kernels on WebGPU (burn's `Cube` backend), kernels on slices on the
//! CPU (`Flex`). A plain [`reference`] says what each of them means. Weights stay in the packed form of `cinderlm-weights` on either
//! device, and keys and values are written in place.
//!
//! A forward step is described by [`Step`], whose one buffer holds everything that changes with the context: no kernel is compiled
//! anew when a sequence grows or a batch changes.
//!
//! The features `webgpu` and `cpu`, both on unless said otherwise, choose which kinds of device are built in.

mod cache;
pub mod cpu;
#[cfg(feature = "webgpu")]
mod cube;
mod device;
mod draw;
mod error;
#[cfg(feature = "cpu")]
mod flex;
mod loader;
mod matrix;
mod ops;
mod profile;
mod readback;
mod recording;
pub mod reference;
#[cfg(feature = "testing")]
pub mod selftest;
mod step;

pub use cache::{KvCache, KvLayout, MAX_HEAD_DIM};
pub use device::{
    finish_uploads, gpu_bytes_in_use, gpu_bytes_reserved, max_buffer_bytes, memory_cleanup, submit,
    weight_vector,
};
pub use draw::{DrawBuffer, DrawKind, DrawRow, Drawn};
pub use error::KernelError;
pub use loader::{MatrixLoader, WeightMemory};
pub use matrix::PackedMatrix;
pub use ops::{
    AttentionParams, Fused, HeadNormParams, LanguageOps, LinearOperands, LinearParams, Norm,
    Operand, RopeLayout, RopeParams, attention, embed, fused_linear, linear, linear_side_by_side,
    norm_heads, rope_append, swiglu,
};
pub use profile::{Profile, ProfilePart};
pub use readback::{BegunRead, begin_read, read};
pub use recording::{Recorded, Recording};
pub use step::{ReservedStep, Step, StepRow, n_chunks};
