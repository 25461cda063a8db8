//! What failures inside mean to the caller of a completion, in the contract's terms.

use cinderlm_models::ModelError;
use cinderlm_protocol::{CompletionError, ErrorCode};
use cinderlm_sampler::SampleError;
use cinderlm_tokenizer::TokenizerError;
use cinderlm_weights::gguf::{GgufError, MetadataError};
use cinderlm_weights::{PackError, SourceError};

/// An error of loading or running a model.
pub fn model_failure(error: ModelError) -> CompletionError {
    let code = match error {
        ModelError::Weights(error) => return gguf_failure(error),
        ModelError::UnsupportedArchitecture { .. }
        | ModelError::UnsupportedFeature { .. }
        | ModelError::UnexpectedTensor { .. } => ErrorCode::UnsupportedModel,
        ModelError::MissingMetadata { .. }
        | ModelError::InvalidMetadata { .. }
        | ModelError::MissingTensor { .. }
        | ModelError::WrongShape { .. }
        | ModelError::InvalidTensor { .. } => ErrorCode::CorruptModel,
        ModelError::OutOfMemory { .. } => ErrorCode::OutOfMemory,
        ModelError::DeviceLost { .. } => ErrorCode::DeviceLost,
        _ => ErrorCode::Internal,
    };
    CompletionError::new(code, error.to_string())
}

/// An error of a model file's container.
pub fn gguf_failure(error: GgufError) -> CompletionError {
    let code = match error {
        GgufError::Source(source) => return source_failure(source),
        GgufError::Pack {
            source: PackError::OutOfMemory { .. },
            ..
        } => ErrorCode::OutOfMemory,
        _ if error.is_unsupported() => ErrorCode::UnsupportedModel,
        _ => ErrorCode::CorruptModel,
    };
    CompletionError::new(code, error.to_string())
}

/// An error of getting at a model file's bytes.
pub fn source_failure(error: SourceError) -> CompletionError {
    let code = match error {
        SourceError::Io { .. } | SourceError::Cancelled => ErrorCode::DownloadFailed,
        SourceError::Truncated { .. } => ErrorCode::CorruptModel,
    };
    CompletionError::new(code, error.to_string())
}

/// An error of a model file's metadata.
pub fn metadata_failure(error: MetadataError) -> CompletionError {
    CompletionError::new(ErrorCode::CorruptModel, error.to_string())
}

/// An error of a model file's vocabulary.
pub fn tokenizer_failure(error: TokenizerError) -> CompletionError {
    let code = match error {
        TokenizerError::UnsupportedModel { .. } | TokenizerError::UnknownPreTokenizer { .. } => {
            ErrorCode::UnsupportedModel
        }
        _ => ErrorCode::CorruptModel,
    };
    CompletionError::new(code, error.to_string())
}

/// An error of drawing a token. With a bias it is the request that left nothing to draw, without one the model.
pub(crate) fn sample_failure(error: &SampleError, has_bias: bool) -> CompletionError {
    match error {
        SampleError::NoCandidates { .. } if has_bias => {
            let rule = "it bans every token that the model allows";
            CompletionError::conflicting("logit_bias", rule)
        }
        _ => CompletionError::new(ErrorCode::Internal, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_the_codes_of_the_contract() {
        let check = |error: CompletionError, code: ErrorCode, part: &str| {
            assert_eq!(error.code, code, "{error}");
            assert!(
                error.message.contains(part),
                "{part:?} is missing from: {error}"
            );
        };
        let message = || "gone".to_owned();
        check(
            model_failure(ModelError::DeviceLost { message: message() }),
            ErrorCode::DeviceLost,
            "gone",
        );
        check(
            model_failure(ModelError::OutOfMemory { message: message() }),
            ErrorCode::OutOfMemory,
            "gone",
        );
        check(
            model_failure(ModelError::TooManyRows {
                n_rows: 65,
                max: 64,
            }),
            ErrorCode::Internal,
            "65",
        );
        check(
            model_failure(ModelError::UnsupportedArchitecture {
                architecture: "mamba".to_owned(),
            }),
            ErrorCode::UnsupportedModel,
            "mamba",
        );
        check(
            model_failure(ModelError::MissingTensor {
                name: "output_norm.weight".to_owned(),
            }),
            ErrorCode::CorruptModel,
            "output_norm.weight",
        );
        check(
            gguf_failure(GgufError::BadMagic {
                magic: *b"PK\x03\x04",
            }),
            ErrorCode::CorruptModel,
            "no GGUF file",
        );
        check(
            gguf_failure(GgufError::UnsupportedVersion { version: 1 }),
            ErrorCode::UnsupportedModel,
            "version 1",
        );
        check(
            gguf_failure(SourceError::Io { message: message() }.into()),
            ErrorCode::DownloadFailed,
            "gone",
        );
        check(
            tokenizer_failure(TokenizerError::UnknownPreTokenizer {
                pre: "novel".to_owned(),
            }),
            ErrorCode::UnsupportedModel,
            "novel",
        );
        check(
            tokenizer_failure(TokenizerError::EmptyVocabulary),
            ErrorCode::CorruptModel,
            "empty",
        );
    }

    #[test]
    fn nothing_to_draw_is_the_fault_of_a_bias_if_there_is_one() {
        let error = SampleError::NoCandidates { n_logits: 8 };
        assert_eq!(
            sample_failure(&error, true).param.as_deref(),
            Some("logit_bias")
        );
        assert_eq!(sample_failure(&error, false).code, ErrorCode::Internal);
    }
}
