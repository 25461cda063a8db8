//! The one error that callers see.

use std::fmt;

use serde::ser::{Serialize, SerializeStruct, Serializer};

/// Declares [`ErrorCode`] from the contract's table, so that each code's name, status and type
/// stand in one place.
macro_rules! error_codes {
    ($($(#[$doc:meta])+ $code:ident = $name:literal, $status:literal, $error_type:literal;)+) => {
        /// What went wrong, for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])+ $code,)+
        }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$code),+];

            /// The code as callers see it.
            pub const fn name(self) -> &'static str {
                match self { $(ErrorCode::$code => $name,)+ }
            }

            /// The HTTP status that goes with it.
            pub const fn status(self) -> u16 {
                match self { $(ErrorCode::$code => $status,)+ }
            }

            /// The `type` field: the kind of error that the code belongs to.
            pub const fn error_type(self) -> &'static str {
                match self { $(ErrorCode::$code => $error_type,)+ }
            }
        }
    };
}

error_codes! {
    /// A field has a value of the wrong type, or a required one is missing.
    InvalidType = "invalid_type", 400, "invalid_request_error";
    /// A value has the right type but is not allowed.
    OutOfRange = "out_of_range", 400, "invalid_request_error";
    /// There is no such field.
    UnknownParameter = "unknown_parameter", 400, "invalid_request_error";
    /// The field exists, but this model cannot do it.
    UnsupportedParameter = "unsupported_parameter", 400, "invalid_request_error";
    /// The prompt and what may be generated do not fit.
    ContextLengthExceeded = "context_length_exceeded", 400, "invalid_request_error";
    /// Two fields are each right but not together.
    ConflictingParameters = "conflicting_parameters", 400, "invalid_request_error";
    /// Keys are configured and the request has none.
    MissingApiKey = "missing_api_key", 401, "authentication_error";
    /// The request's key is not one of those configured.
    InvalidApiKey = "invalid_api_key", 401, "authentication_error";
    /// No model of this id is registered.
    ModelNotFound = "model_not_found", 404, "invalid_request_error";
    /// Over `fetch`: no such path.
    NotFound = "not_found", 404, "invalid_request_error";
    /// Over `fetch`: the path exists, but not for this method.
    MethodNotAllowed = "method_not_allowed", 405, "invalid_request_error";
    /// Too many requests are waiting.
    QueueFull = "queue_full", 429, "rate_limit_error";
    /// This user has reached a limit.
    UserLimit = "user_limit", 429, "rate_limit_error";
    /// A device was asked for by name and is not there.
    DeviceUnavailable = "device_unavailable", 503, "runtime_error";
    /// The device went away while it was in use.
    DeviceLost = "device_lost", 500, "runtime_error";
    /// Memory ran out, of the device or of the page.
    OutOfMemory = "out_of_memory", 500, "runtime_error";
    /// A fault of this software.
    Internal = "internal", 500, "runtime_error";
    /// The model's file could not be fetched or read.
    DownloadFailed = "download_failed", 502, "model_load_error";
    /// The model's file is not the one whose hash was given.
    IntegrityMismatch = "integrity_mismatch", 502, "model_load_error";
    /// The model's file breaks the rules of its format.
    CorruptModel = "corrupt_model", 502, "model_load_error";
    /// The model's file is sound, but its architecture or format is not supported.
    UnsupportedModel = "unsupported_model", 502, "model_load_error";
    /// The browser's storage has no room for the model.
    StorageFull = "storage_full", 502, "model_load_error";
    /// A remote server that the request was handed to failed.
    RemoteFailed = "remote_failed", 502, "model_load_error";
}

/// A request's failure, in the terms of the contract.
///
/// Serialises as `{ message, type, param, code, status, retry_after }`, absent ones as null.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionError {
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// What was wrong, what was expected and where, for people.
    pub message: String,
    /// The field at fault, down to the element, such as `stop[2]` or `logit_bias.50256`.
    pub param: Option<String>,
    /// Seconds after which trying again makes sense.
    pub retry_after: Option<f64>,
}

impl CompletionError {
    /// An error that concerns no single field.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            param: None,
            retry_after: None,
        }
    }

    /// The same error, naming the field at fault.
    #[must_use]
    pub fn with_param(self, param: impl fmt::Display) -> Self {
        Self {
            param: Some(param.to_string()),
            ..self
        }
    }

    /// The same error, saying after how many seconds to try again.
    #[must_use]
    pub fn with_retry_after(self, seconds: f64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }

    /// `param` is of the wrong type: `expected` is a noun phrase, `found` what was there.
    pub fn invalid_type(
        param: impl fmt::Display,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Self {
        Self::new(
            ErrorCode::InvalidType,
            format!("`{param}` must be {expected}, but is {found}"),
        )
        .with_param(param)
    }

    /// `param` is of the right type but not allowed: `expected` is a noun phrase, `found` what was
    /// there.
    pub fn out_of_range(
        param: impl fmt::Display,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Self {
        Self::new(
            ErrorCode::OutOfRange,
            format!("`{param}` must be {expected}, but is {found}"),
        )
        .with_param(param)
    }

    /// `param`, where a token id stands, is no id of the model.
    pub fn token_out_of_range(param: impl fmt::Display, token: u32, vocab_size: usize) -> Self {
        let expected = format_args!("a token id of the model, below {vocab_size}");
        Self::out_of_range(param, expected, token)
    }

    /// `param` is no field of a request. `known` lists those there are.
    pub fn unknown_parameter(param: &str, known: &[&str]) -> Self {
        let known = known.join("`, `");
        let message = format!("there is no parameter `{param}`; the parameters are `{known}`");
        Self::new(ErrorCode::UnknownParameter, message).with_param(param)
    }

    /// `param` asks for something that this model cannot do; `reason` is a whole clause.
    pub fn unsupported_parameter(param: &str, reason: impl fmt::Display) -> Self {
        let message = format!("`{param}` is not supported here: {reason}");
        Self::new(ErrorCode::UnsupportedParameter, message).with_param(param)
    }

    /// `param` cannot stand beside what else the request says; `rule` is a whole clause.
    pub fn conflicting(param: &str, rule: impl fmt::Display) -> Self {
        let message = format!("`{param}` conflicts with another parameter: {rule}");
        Self::new(ErrorCode::ConflictingParameters, message).with_param(param)
    }

    /// The prompt and `max_tokens` do not fit into the context, all counted in tokens.
    pub fn context_length_exceeded(
        prompt_tokens: u64,
        max_tokens: u64,
        context_length: u64,
    ) -> Self {
        let total = prompt_tokens.saturating_add(max_tokens);
        let message = format!(
            "the model's context length is {context_length} tokens, but {total} were asked for: \
             {prompt_tokens} in the prompt and {max_tokens} as `max_tokens`; shorten one of them"
        );
        let param = if prompt_tokens > context_length {
            "prompt"
        } else {
            "max_tokens"
        };
        Self::new(ErrorCode::ContextLengthExceeded, message).with_param(param)
    }

    /// No model is registered as `id`.
    pub fn model_not_found(id: &str) -> Self {
        Self::new(
            ErrorCode::ModelNotFound,
            format!("no model is registered as `{id}`"),
        )
        .with_param("model")
    }

    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        self.code.status()
    }

    /// The `type` field.
    pub const fn error_type(&self) -> &'static str {
        self.code.error_type()
    }
}

impl fmt::Display for CompletionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CompletionError {}

impl Serialize for CompletionError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut error = serializer.serialize_struct("CompletionError", 6)?;
        error.serialize_field("message", &self.message)?;
        error.serialize_field("type", self.error_type())?;
        error.serialize_field("param", &self.param)?;
        error.serialize_field("code", self.code.name())?;
        error.serialize_field("status", &self.status())?;
        error.serialize_field("retry_after", &self.retry_after)?;
        error.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Value;

    #[test]
    fn names_are_distinct_snake_case_of_the_variants() {
        for &code in ErrorCode::ALL {
            let variant = format!("{code:?}");
            let snake: String = variant
                .char_indices()
                .flat_map(|(at, c)| {
                    let gap = (at > 0 && c.is_ascii_uppercase()).then_some('_');
                    gap.into_iter().chain([c.to_ascii_lowercase()])
                })
                .collect();
            assert_eq!(code.name(), snake);
        }
    }

    #[test]
    fn a_type_belongs_to_its_statuses() {
        for &code in ErrorCode::ALL {
            let expect = match code.status() {
                400 | 404 | 405 => "invalid_request_error",
                401 => "authentication_error",
                429 => "rate_limit_error",
                500 | 503 => "runtime_error",
                502 => "model_load_error",
                status => panic!("{code:?} has status {status}"),
            };
            assert_eq!(code.error_type(), expect, "{code:?}");
        }
    }

    #[test]
    fn serialises_every_field_even_if_null() {
        let error = CompletionError::invalid_type("stop[2]", "a string", Value::Int(3));
        let expect = json!({
            "message": "`stop[2]` must be a string, but is 3",
            "type": "invalid_request_error",
            "param": "stop[2]",
            "code": "invalid_type",
            "status": 400,
            "retry_after": null,
        });
        assert_eq!(serde_json::to_value(&error).expect("serialisable"), expect);

        let busy = CompletionError::new(ErrorCode::QueueFull, "8 requests are waiting")
            .with_retry_after(1.5);
        let expect = json!({
            "message": "8 requests are waiting",
            "type": "rate_limit_error",
            "param": null,
            "code": "queue_full",
            "status": 429,
            "retry_after": 1.5,
        });
        assert_eq!(serde_json::to_value(&busy).expect("serialisable"), expect);
    }

    #[test]
    fn messages_and_params() {
        let check = |error: CompletionError, code: ErrorCode, param: &str, parts: &[&str]| {
            assert_eq!(error.code, code);
            assert_eq!(error.param.as_deref(), Some(param));
            for part in parts {
                assert!(
                    error.to_string().contains(part),
                    "{part:?} is missing from: {error}"
                );
            }
        };
        check(
            CompletionError::token_out_of_range("prompt[1][3]", 49152, 49152),
            ErrorCode::OutOfRange,
            "prompt[1][3]",
            &["prompt[1][3]", "below 49152", "is 49152"],
        );
        check(
            CompletionError::context_length_exceeded(100, 50, 128),
            ErrorCode::ContextLengthExceeded,
            "max_tokens",
            &["128", "150", "100 in the prompt", "50 as `max_tokens`"],
        );
        check(
            CompletionError::context_length_exceeded(129, u64::MAX, 128),
            ErrorCode::ContextLengthExceeded,
            "prompt",
            &["129 in the prompt"],
        );
        check(
            CompletionError::model_not_found("tale"),
            ErrorCode::ModelNotFound,
            "model",
            &["`tale`"],
        );
        check(
            CompletionError::unsupported_parameter("suffix", "the model has no such tokens"),
            ErrorCode::UnsupportedParameter,
            "suffix",
            &["`suffix`", "the model has no such tokens"],
        );
    }
}
