//! The WebAssembly surface of cinderlm: converts between JavaScript and the engine, and nothing else.
//!
//! One module holds one device and any number of models. Call [`initialize`] once, [`load`] models, then [`complete`].
#![cfg(target_family = "wasm")]

mod convert;
mod device;
mod exports;
mod host;
mod iterator;
mod loading;
mod models;
mod panic;
mod source;
mod work;

pub use exports::*;
pub use iterator::CompletionIterator;
pub use source::ForwardSource;
