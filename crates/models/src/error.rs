//! What can go wrong between a model file and its logits.

use burn::backend::ExecutionError;
use cinderlm_kernels::KernelError;
use cinderlm_weights::gguf::GgufError;
use cinderlm_weights::{PackError, SourceError};
use thiserror::Error;

use crate::SequenceId;

/// An error of loading or running a model.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// `general.architecture` names a family that is not implemented.
    #[error("architecture \"{architecture}\" is not supported")]
    UnsupportedArchitecture {
        /// The value in the file.
        architecture: String,
    },

    /// The file asks for a variant of a supported family that is not implemented.
    #[error("{key} = {value} is not supported")]
    UnsupportedFeature {
        /// The metadata key or tensor that asks for it.
        key: String,
        /// What it asks for.
        value: String,
    },

    /// A metadata key that the architecture needs is absent.
    #[error("metadata key {key} is missing")]
    MissingMetadata {
        /// The key.
        key: String,
    },

    /// A metadata value has the wrong type, is out of range or contradicts another.
    #[error("metadata key {key} is {actual}, expected {expected}")]
    InvalidMetadata {
        /// The key.
        key: String,
        /// The value in the file.
        actual: String,
        /// The rule that it breaks.
        expected: String,
    },

    /// A tensor that the configuration needs is absent.
    #[error("tensor {name} is missing")]
    MissingTensor {
        /// The tensor.
        name: String,
    },

    /// A tensor that the configuration has no place for.
    #[error("tensor {name} is not part of this architecture")]
    UnexpectedTensor {
        /// The tensor.
        name: String,
    },

    /// A tensor's shape contradicts the configuration. Shapes are `[rows, columns]`, columns contiguous.
    #[error("tensor {name} has shape {actual:?}, expected {expected:?}")]
    WrongShape {
        /// The tensor.
        name: String,
        /// The shape that the configuration asks for.
        expected: Vec<u64>,
        /// The shape in the file.
        actual: Vec<u64>,
    },

    /// A tensor's values cannot be used, for instance rope factors that are not positive.
    #[error("tensor {name}: {reason}")]
    InvalidTensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The file is malformed, or its source failed.
    #[error(transparent)]
    Weights(GgufError),

    /// Loading was cancelled by its caller.
    #[error("loading was cancelled")]
    Cancelled,

    /// A sequence id that was never opened, or is closed.
    #[error("sequence {} is not open", sequence.0)]
    UnknownSequence {
        /// The id.
        sequence: SequenceId,
    },

    /// One forward call names a sequence in two feeds.
    #[error("sequence {} occurs in two feeds of one step", sequence.0)]
    SequenceFedTwice {
        /// The id.
        sequence: SequenceId,
    },

    /// A token id that the vocabulary does not have.
    #[error("token id {token} is out of range, the vocabulary has {vocab_size}")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Number of ids.
        vocab_size: usize,
    },

    /// A sequence would grow past the context length.
    #[error("{n_tokens} tokens exceed the context length of {context_length}")]
    ContextExceeded {
        /// The length the sequence would have.
        n_tokens: usize,
        /// The most it may have.
        context_length: usize,
    },

    /// One forward call has more rows than a step takes; split it.
    #[error("{n_rows} rows in one step, at most {max} fit")]
    TooManyRows {
        /// Rows asked for.
        n_rows: usize,
        /// The limit.
        max: usize,
    },

    /// An allocation was refused.
    #[error("out of memory: {message}")]
    OutOfMemory {
        /// What the device or the accountant said.
        message: String,
    },

    /// The device is gone; every tensor on it is too.
    #[error("device lost: {message}")]
    DeviceLost {
        /// What the device said.
        message: String,
    },

    /// The device failed at a step, but is still there.
    #[error("the device failed: {message}")]
    Execution {
        /// What the device said.
        message: String,
    },

    /// A buffer that the kernels cannot work with.
    #[error(transparent)]
    Kernel(KernelError),
}

impl From<GgufError> for ModelError {
    fn from(error: GgufError) -> Self {
        match error {
            GgufError::Source(SourceError::Cancelled) => Self::Cancelled,
            GgufError::Pack {
                source: PackError::OutOfMemory { .. },
                ..
            } => Self::OutOfMemory {
                message: error.to_string(),
            },
            error => Self::Weights(error),
        }
    }
}

impl From<KernelError> for ModelError {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::BufferTooLarge { .. } => Self::OutOfMemory {
                message: error.to_string(),
            },
            error => Self::Kernel(error),
        }
    }
}

impl From<ExecutionError> for ModelError {
    fn from(error: ExecutionError) -> Self {
        match error {
            ExecutionError::DevicePoisoned { reason } => Self::DeviceLost { message: reason },
            ExecutionError::WithContext { reason } | ExecutionError::Generic { reason, .. } => {
                Self::Execution { message: reason }
            }
        }
    }
}
