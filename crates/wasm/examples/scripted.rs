//! The module as it ships, on a model that follows a script: what loads is no GGUF file but JSON, `{ contextLength, canFillIn, scripts }`, with
//! scripts as the contract corpus has them. `cargo xtask test` builds it, and tests/e2e/corpus.test.mjs runs the corpus on it, through the
//! whole package and in real browsers.
#![cfg(target_family = "wasm")]

#[path = "../src/convert.rs"]
mod convert;
#[path = "../src/device.rs"]
mod device;
#[path = "../src/exports.rs"]
mod exports;
#[path = "../src/host.rs"]
mod host;
#[path = "../src/iterator.rs"]
mod iterator;
#[expect(dead_code, reason = "a script has no kernels to calibrate")]
#[path = "../src/kernels.rs"]
mod kernels;
#[path = "scripted/loading.rs"]
mod loading;
#[path = "../src/models.rs"]
mod models;
#[path = "../src/panic.rs"]
mod panic;
#[path = "../src/source.rs"]
mod source;

pub use exports::*;
pub use iterator::CompletionIterator;
pub use kernels::KernelKeeper;
pub use source::ForwardSource;
