//! Metadata of one architecture: keys with its prefix, values with bounds.

use std::fmt::Display;
use std::ops::RangeInclusive;

use cinderlm_weights::gguf::{Metadata, MetadataError};

use crate::ModelError;

/// The keys `<architecture>.…` of a file. Every getter names the whole key in its errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArchitectureKeys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl<'a> ArchitectureKeys<'a> {
    pub(crate) fn new(metadata: &'a Metadata, architecture: &'a str) -> Self {
        Self {
            metadata,
            architecture,
        }
    }

    /// An integer within `bounds` that must be there.
    pub(crate) fn count(
        &self,
        key: &str,
        bounds: RangeInclusive<usize>,
    ) -> Result<usize, ModelError> {
        let value = self.optional_count(key, bounds)?;
        value.ok_or_else(|| self.missing(key))
    }

    /// An integer within `bounds`, if it is there.
    pub(crate) fn optional_count(
        &self,
        key: &str,
        bounds: RangeInclusive<usize>,
    ) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.metadata.find::<u64>(&self.full(key))? else {
            return Ok(None);
        };
        match usize::try_from(value) {
            Ok(count) if bounds.contains(&count) => Ok(Some(count)),
            _ => {
                let expected = format!("{} to {}", bounds.start(), bounds.end());
                Err(self.invalid(key, value, expected))
            }
        }
    }

    /// A finite number that `is_valid` and must be there.
    pub(crate) fn float(
        &self,
        key: &str,
        expected: &'static str,
        is_valid: impl Fn(f32) -> bool,
    ) -> Result<f32, ModelError> {
        let value = self.optional_float(key, expected, is_valid)?;
        value.ok_or_else(|| self.missing(key))
    }

    /// A finite number that `is_valid`, if it is there; `expected` says what is valid.
    pub(crate) fn optional_float(
        &self,
        key: &str,
        expected: &'static str,
        is_valid: impl Fn(f32) -> bool,
    ) -> Result<Option<f32>, ModelError> {
        match self.metadata.find::<f32>(&self.full(key))? {
            Some(value) if !value.is_finite() || !is_valid(value) => {
                Err(self.invalid(key, value, expected))
            }
            value => Ok(value),
        }
    }

    /// A string, if it is there.
    pub(crate) fn optional_string(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        Ok(self.metadata.find::<&str>(&self.full(key))?)
    }

    /// The error for a value that breaks the rule `expected`.
    pub(crate) fn invalid(
        &self,
        key: &str,
        actual: impl Display,
        expected: impl Into<String>,
    ) -> ModelError {
        ModelError::InvalidMetadata {
            key: self.full(key),
            actual: actual.to_string(),
            expected: expected.into(),
        }
    }

    /// The error for a value that stands for something that is not implemented.
    pub(crate) fn unsupported(&self, key: &str, value: impl Display) -> ModelError {
        ModelError::UnsupportedFeature {
            key: self.full(key),
            value: value.to_string(),
        }
    }

    fn missing(&self, key: &str) -> ModelError {
        ModelError::MissingMetadata {
            key: self.full(key),
        }
    }

    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }
}

impl From<MetadataError> for ModelError {
    fn from(error: MetadataError) -> Self {
        match error {
            MetadataError::Missing { key } => Self::MissingMetadata { key },
            MetadataError::WrongType {
                key,
                expected,
                actual,
            } => Self::InvalidMetadata {
                key,
                actual: actual.to_owned(),
                expected: expected.to_owned(),
            },
            MetadataError::OutOfRange {
                key,
                expected,
                value,
            } => Self::InvalidMetadata {
                key,
                actual: value.to_string(),
                expected: expected.to_owned(),
            },
        }
    }
}
