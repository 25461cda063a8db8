//! The WebAssembly surface of cinderlm: converts between JavaScript and the engine, and nothing else.
//!
//! One module holds one device and any number of models; the features `webgpu` and `cpu` choose which devices it can hold. Call [`initialize`] once, [`load`] models, then [`complete`].
#![cfg(target_family = "wasm")]

mod convert;
mod device;
mod exports;
mod host;
mod iterator;
mod kernels;
mod loading;
mod models;
mod panic;
mod source;
#[cfg(target_feature = "atomics")]
mod threads;

pub use exports::*;
pub use iterator::CompletionIterator;
pub use kernels::KernelKeeper;
pub use source::ForwardSource;
#[cfg(target_feature = "atomics")]
pub use threads::*;
