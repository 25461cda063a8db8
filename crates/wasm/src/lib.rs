//! The WebAssembly surface of cinderlm: converts between JavaScript and the engine, and nothing else.
//!
//! One module holds one device and any number of models. Call [`initialize`] once, [`load`] models, then [`complete`].
#![cfg(target_family = "wasm")]

mod convert;
mod device;
mod host;
mod iterator;
mod models;
mod panic;
mod source;

use cinderlm_protocol::{CompletionError, RequestLimits};
use futures::StreamExt;
use wasm_bindgen::prelude::*;

pub use iterator::CompletionIterator;
pub use source::ForwardSource;

use convert::{error_to_js, request_from_js, to_js};
use models::ModelOptions;

unsafe extern "C" {
    /// Static constructors, made by the linker. The kernel compiler registers itself through them.
    fn __wasm_call_ctors();
}

/// Runs when the module is instantiated.
#[wasm_bindgen(start)]
pub fn start() {
    // SAFETY: called once, before anything else runs. Referring to it is what keeps the linker from wrapping every export in a
    // call of all constructors.
    unsafe {
        __wasm_call_ctors();
    }
    panic::install_hook();
}

/// Chooses the device, `"webgpu"` or `"cpu"`, for the life of this module.
///
/// `is_software` tells that the WebGPU adapter is emulated, which asks for other kernel parameters. `name` shows in responses.
///
/// # Errors
/// `device_unavailable`, `internal`.
#[wasm_bindgen]
pub async fn initialize(kind: &str, is_software: bool, name: &str) -> Result<(), JsValue> {
    device::initialize(kind, is_software, name)
        .await
        .map_err(|error| error_to_js(&error))
}

/// Reads a GGUF file and keeps its model under `id`, in place of an earlier one. Resolves to what is known of it.
///
/// # Errors
/// `download_failed`, `integrity_mismatch`, `corrupt_model`, `unsupported_model`, `out_of_memory`, `device_lost`.
#[wasm_bindgen(
    unchecked_return_type = "{ architecture: string; contextLength: number; vocabularySize: number; fileBytes: number }"
)]
pub async fn load(
    id: String,
    source: ForwardSource,
    #[wasm_bindgen(unchecked_param_type = "{ contextLength?: number; sha256?: string }")]
    options: JsValue,
) -> Result<JsValue, JsValue> {
    let options: ModelOptions = serde_wasm_bindgen::from_value(options)?;
    let info = models::load(id, source, options).await;
    info.and_then(|info| to_js(&info))
        .map_err(|error| error_to_js(&error))
}

/// Frees a model. Completions that still run on it fail with `model_not_found`.
#[wasm_bindgen]
pub fn unload(id: &str) {
    models::unload(id);
}

/// Checks all that can be checked of a request without its model.
///
/// # Errors
/// As the completion contract says.
#[wasm_bindgen]
pub fn validate(params: JsValue) -> Result<(), JsValue> {
    request_from_js(params, &RequestLimits::default())
        .map(|_| ())
        .map_err(|error| error_to_js(&error))
}

/// Starts a completion: an async iterator of chunks or, without `stream`, of the one whole completion.
///
/// # Errors
/// As the completion contract says; those that need the model come with the first item.
#[wasm_bindgen]
pub fn complete(params: JsValue) -> Result<CompletionIterator, JsValue> {
    let items = request_from_js(params, &RequestLimits::default()).and_then(models::complete);
    items
        .map(|items| {
            CompletionIterator::new(Box::pin(items.map(|item| match item {
                Ok(models::Item::Chunk(chunk)) => to_js(&chunk),
                Ok(models::Item::Whole(completion)) => to_js(&completion),
                Err(error) => Err(error),
            })))
        })
        .map_err(|error| error_to_js(&error))
}

/// Token ids of a text, special tokens recognised, nothing added.
///
/// # Errors
/// `model_not_found`.
#[wasm_bindgen]
pub fn tokenize(model: &str, text: &str) -> Result<Vec<u32>, JsValue> {
    models::tokenize(model, text).map_err(|error| error_to_js(&error))
}

/// Text of token ids, special tokens included.
///
/// # Errors
/// `model_not_found`; `out_of_range` for an id that the model does not have.
#[wasm_bindgen]
pub fn detokenize(
    model: &str,
    #[wasm_bindgen(unchecked_param_type = "ArrayLike<number>")] ids: JsValue,
) -> Result<String, JsValue> {
    let ids: Vec<f64> = serde_wasm_bindgen::from_value(ids)
        .map_err(|error| error_to_js(&CompletionError::invalid_type("ids", "token ids", error)))?;
    models::detokenize(model, &ids).map_err(|error| error_to_js(&error))
}

/// Bytes that this module holds: `{ wasmBytes, gpuBytes }`.
///
/// # Errors
/// `internal`.
#[wasm_bindgen(
    js_name = "memoryStats",
    unchecked_return_type = "{ wasmBytes: number; gpuBytes: number }"
)]
pub fn memory_stats() -> Result<JsValue, JsValue> {
    models::memory()
        .and_then(|memory| to_js(&memory))
        .map_err(|error| error_to_js(&error))
}

/// What the last panic said, if there was one. The module is of no more use then.
#[wasm_bindgen(js_name = "panicMessage")]
pub fn panic_message() -> Option<String> {
    panic::message()
}
