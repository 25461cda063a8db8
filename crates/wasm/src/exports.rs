//! Every export of the module.

use cinderlm_protocol::{CompletionError, RequestLimits};
use futures::StreamExt;
use wasm_bindgen::prelude::*;

use crate::convert::{
    error_to_js, numbers_from_js, options_from_js, request_from_js, string_from_js, to_js,
};
use crate::iterator::CompletionIterator;
use crate::kernels::KernelKeeper;
use crate::source::{HashedFiles, ModelFiles};
use crate::{device, host, models, panic};

unsafe extern "C" {
    /// Static constructors, made by the linker. The kernel compiler registers itself through them.
    fn __wasm_call_ctors();
}

/// Runs when the module is instantiated; in a module with threads, when the first of them is.
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
/// `is_software` tells that the WebGPU adapter is emulated, which asks for other kernel parameters. `name` shows in responses. `limits`
/// bound what each model takes at a time, choices that are generated and calls that wait, and what it keeps of earlier ones.
///
/// With `keeper` the first model that is loaded on WebGPU has variants of the kernel parameters tried, which takes up to two seconds, unless the
/// keeper has what was found before.
///
/// # Errors
/// `invalid_type`, `device_unavailable`, `internal`.
#[wasm_bindgen]
pub async fn initialize(
    #[wasm_bindgen(unchecked_param_type = "\"webgpu\" | \"cpu\"")] kind: JsValue,
    is_software: bool,
    #[wasm_bindgen(unchecked_param_type = "string")] name: JsValue,
    #[wasm_bindgen(
        unchecked_param_type = "{ maxBatch?: number; maxQueue?: number; kvCacheBytes?: number } | null | undefined"
    )]
    limits: JsValue,
    keeper: KernelKeeper,
) -> Result<(), JsValue> {
    let initialized = async {
        let kind = string_from_js(&kind, "kind")?;
        let name = string_from_js(&name, "name")?;
        let limits = options_from_js(limits, "limits")?;
        let keeper = keeper.is_object().then_some(keeper);
        device::initialize(&kind, is_software, &name, limits, keeper).await
    };
    let initialized = initialized.await;
    initialized.map_err(|error| error_to_js(&error))
}

/// Reads the GGUF file of a model, or the parts of one that was split, and keeps the model under `id`, in place of an earlier one. Resolves
/// to what is known of it. Each file's hash is told to its source, whose owner says if it is the right one.
///
/// # Errors
/// `invalid_type`, `download_failed`, `corrupt_model`, `unsupported_model`, `out_of_memory`, `device_lost`.
#[wasm_bindgen(
    unchecked_return_type = "{ architecture: string; contextLength: number; vocabularySize: number; fileBytes: number; sha256: string[]; kernels?: { origin: \"default\" | \"kept\" | \"calibrated\"; parameters: Record<string, number> } }"
)]
pub async fn load(
    #[wasm_bindgen(unchecked_param_type = "string")] id: JsValue,
    files: ModelFiles,
    #[wasm_bindgen(unchecked_param_type = "{ contextLength?: number } | null | undefined")]
    options: JsValue,
) -> Result<JsValue, JsValue> {
    let info = async {
        let id = string_from_js(&id, "id")?;
        let options = options_from_js(options, "options")?;
        let files = HashedFiles::new(files).ok_or_else(|| {
            let expected = "an object with a count and a method open";
            CompletionError::invalid_type("files", expected, "another")
        })?;
        models::load(id, files, options).await
    };
    let info = info.await;
    info.and_then(|info| to_js(&info))
        .map_err(|error| error_to_js(&error))
}

/// Frees a model. Completions that still run on it fail with `model_not_found`.
///
/// # Errors
/// `invalid_type`.
#[wasm_bindgen]
pub fn unload(#[wasm_bindgen(unchecked_param_type = "string")] id: JsValue) -> Result<(), JsValue> {
    string_from_js(&id, "id")
        .map(|id| models::unload(&id))
        .map_err(|error| error_to_js(&error))
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
/// `cacheScope` names those who share what is kept of earlier requests. With `window`, a stream lets out so many chunks and as many more as
/// the iterator's `widen` says; a `next()` that waits for that leaves its place at the model to others.
///
/// # Errors
/// As the completion contract says; those that need the model come with the first item.
#[wasm_bindgen]
pub fn complete(
    params: JsValue,
    #[wasm_bindgen(
        unchecked_param_type = "{ cacheScope?: string; window?: number } | null | undefined"
    )]
    options: JsValue,
) -> Result<CompletionIterator, JsValue> {
    let started = request_from_js(params, &RequestLimits::default()).and_then(|request| {
        let options = options_from_js(options, "options")?;
        models::complete(request, &options)
    });
    started
        .map(|(items, handle)| {
            let items = items.map(|item| match item {
                Ok(models::Item::Chunk(chunk)) => to_js(&chunk),
                Ok(models::Item::Whole(completion)) => to_js(&completion),
                Err(error) => Err(error),
            });
            CompletionIterator::new(Box::pin(items), handle)
        })
        .map_err(|error| error_to_js(&error))
}

/// Token ids of a text, special tokens recognised, nothing added.
///
/// # Errors
/// `invalid_type`, `model_not_found`.
#[wasm_bindgen]
pub fn tokenize(
    #[wasm_bindgen(unchecked_param_type = "string")] model: JsValue,
    #[wasm_bindgen(unchecked_param_type = "string")] text: JsValue,
) -> Result<Vec<u32>, JsValue> {
    let ids = string_from_js(&model, "model").and_then(|model| {
        let text = string_from_js(&text, "text")?;
        models::tokenize(&model, &text)
    });
    ids.map_err(|error| error_to_js(&error))
}

/// Text of token ids, special tokens included.
///
/// # Errors
/// `invalid_type`, `model_not_found`; `out_of_range` for an id that the model does not have.
#[wasm_bindgen]
pub fn detokenize(
    #[wasm_bindgen(unchecked_param_type = "string")] model: JsValue,
    #[wasm_bindgen(unchecked_param_type = "number[]")] ids: JsValue,
) -> Result<String, JsValue> {
    let text = string_from_js(&model, "model").and_then(|model| {
        let ids = numbers_from_js(ids, "ids")?;
        models::detokenize(&model, &ids)
    });
    text.map_err(|error| error_to_js(&error))
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

/// Has `takeWork` called before and after each step of a model; it returns what the GPU was given to do since it was last called, for
/// `stats`.
#[wasm_bindgen(js_name = "watchDevice")]
pub fn watch_device(
    #[wasm_bindgen(
        unchecked_param_type = "() => { dispatches: number; submits: number; readbacks: number; readbackBytes: number; boundBytes: number; createdObjects: number }"
    )]
    take_work: js_sys::Function,
) {
    host::watch_device(take_work);
}

/// What each model holds for requests that run and has kept of earlier ones, what that was good for, and what its steps cost the GPU:
/// `{ [id]: { hits, savedTokens, keptTokens, keptBytes, kvBytes, decode, prefill } }`. `kvBytes` is null while a step uses the model.
///
/// # Errors
/// `internal`.
#[wasm_bindgen(
    unchecked_return_type = "Record<string, { hits: number; savedTokens: number; keptTokens: number; keptBytes: number; kvBytes: number | null; decode: any; prefill: any }>"
)]
pub fn stats() -> Result<JsValue, JsValue> {
    to_js(&models::stats()).map_err(|error| error_to_js(&error))
}

/// What the first panic said, if there was one. The module is of no more use then.
#[wasm_bindgen(js_name = "panicMessage")]
pub fn panic_message() -> Option<String> {
    panic::message()
}
