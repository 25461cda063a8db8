//! Values across the boundary: JavaScript to the contract's types and back.

use cinderlm_protocol::{CompletionError, CompletionRequest, ErrorCode, RequestLimits, Value};
use js_sys::Array;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::{JsCast as _, JsValue};

/// Reads a request in whatever shape a caller gave it.
pub(crate) fn request_from_js(
    params: JsValue,
    limits: &RequestLimits,
) -> Result<CompletionRequest, CompletionError> {
    let value: Value = serde_wasm_bindgen::from_value(params).map_err(|error| {
        let message = format!("the request must be a plain object of JSON values: {error}");
        CompletionError::new(ErrorCode::InvalidType, message)
    })?;
    CompletionRequest::from_value(value, limits)
}

/// Reads a string. wasm-bindgen's own conversion trusts its caller, and reads out of bounds when given anything else.
pub(crate) fn string_from_js(value: &JsValue, param: &str) -> Result<String, CompletionError> {
    let string = value.as_string();
    string.ok_or_else(|| CompletionError::invalid_type(param, "a string", kind_of(value)))
}

/// Reads an array of numbers.
pub(crate) fn numbers_from_js(value: JsValue, param: &str) -> Result<Vec<f64>, CompletionError> {
    let array: Array = value
        .dyn_into()
        .map_err(|value| CompletionError::invalid_type(param, "an array", kind_of(&value)))?;
    let number = |(index, value): (usize, JsValue)| {
        let param = format!("{param}[{index}]");
        let error = || CompletionError::invalid_type(param, "a number", kind_of(&value));
        value.as_f64().ok_or_else(error)
    };
    array.iter().enumerate().map(number).collect()
}

/// Reads options, of which none need be given.
pub(crate) fn options_from_js<T: Default + DeserializeOwned>(
    options: JsValue,
    param: &str,
) -> Result<T, CompletionError> {
    if options.is_undefined() || options.is_null() {
        return Ok(T::default());
    }
    serde_wasm_bindgen::from_value(options).map_err(|error| {
        let message = format!("`{param}` cannot be read: {error}");
        CompletionError::new(ErrorCode::InvalidType, message).with_param(param)
    })
}

fn kind_of(value: &JsValue) -> String {
    match value.is_null() {
        true => "null".to_owned(),
        false => value.js_typeof().as_string().unwrap_or_default(),
    }
}

/// Writes one of the contract's types as the plain object that JSON would give.
pub(crate) fn to_js<T: Serialize>(value: &T) -> Result<JsValue, CompletionError> {
    value
        .serialize(&serde_wasm_bindgen::Serializer::json_compatible())
        .map_err(|error| {
            let message = format!("a value could not be converted: {error}");
            CompletionError::new(ErrorCode::Internal, message)
        })
}

/// Writes an error as the plain object `{ status, type, code, param, message }`.
pub(crate) fn error_to_js(error: &CompletionError) -> JsValue {
    to_js(error).unwrap_or_else(|_| JsValue::from_str(&error.to_string()))
}
