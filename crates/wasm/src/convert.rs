//! Values across the boundary: JavaScript to the contract's types and back.

use cinderlm_protocol::{CompletionError, CompletionRequest, ErrorCode, RequestLimits, Value};
use serde::Serialize;
use wasm_bindgen::JsValue;

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
