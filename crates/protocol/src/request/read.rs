//! Readers of single values. `param` says where the value stood; it is written out only on errors.

use std::fmt::Display;

use crate::{CompletionError, Value};

/// JavaScript's `Number.MAX_SAFE_INTEGER`: a double beyond it may stand for several integers.
pub(super) const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;

pub(super) fn string(param: impl Display, value: Value) -> Result<String, CompletionError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(CompletionError::invalid_type(param, "a string", other)),
    }
}

pub(super) fn boolean(param: impl Display, value: Value) -> Result<bool, CompletionError> {
    match value {
        Value::Bool(value) => Ok(value),
        other => Err(CompletionError::invalid_type(param, "a boolean", other)),
    }
}

/// An integer from `min` to `max`, both of which `T` must hold. A double counts if it is integral
/// and exact.
pub(super) fn integer<T: TryFrom<i64>>(
    param: impl Display,
    value: Value,
    min: i64,
    max: i64,
) -> Result<T, CompletionError> {
    let expected = format_args!("an integer from {min} to {max}");
    let int = match value {
        Value::Int(int) => Some(int),
        Value::UInt(_) => None,
        Value::Float(float) if float.abs() > MAX_SAFE_INTEGER as f64 => {
            if max > MAX_SAFE_INTEGER {
                let expected = "an integer that a JavaScript number holds exactly, or a BigInt";
                return Err(CompletionError::out_of_range(param, expected, value));
            }
            None
        }
        Value::Float(float) if float.fract() == 0.0 => Some(float as i64),
        // NaN comes here too: it is no integer at all.
        other => return Err(CompletionError::invalid_type(param, expected, other)),
    };
    int.filter(|int| (min..=max).contains(int))
        .and_then(|int| T::try_from(int).ok())
        .ok_or_else(|| CompletionError::out_of_range(param, expected, value))
}

/// A number from `min` to `max`.
pub(super) fn number(
    param: impl Display,
    value: Value,
    min: f32,
    max: f32,
) -> Result<f32, CompletionError> {
    let expected = format_args!("a number from {min} to {max}");
    let found = match value {
        Value::Int(int) => int as f64,
        Value::UInt(int) => int as f64,
        Value::Float(float) => float,
        other => return Err(CompletionError::invalid_type(param, expected, other)),
    };
    // NaN is in no range.
    if (f64::from(min)..=f64::from(max)).contains(&found) {
        Ok(found as f32)
    } else {
        Err(CompletionError::out_of_range(param, expected, value))
    }
}

/// A token id as far as it can be checked without a vocabulary.
pub(super) fn token(param: impl Display, value: Value) -> Result<u32, CompletionError> {
    match value {
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => {
            integer(param, value, 0, i64::from(u32::MAX))
        }
        other => Err(CompletionError::invalid_type(param, "a token id", other)),
    }
}
