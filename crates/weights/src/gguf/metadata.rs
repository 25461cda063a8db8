//! Key-value metadata, with getters that check types.

use std::collections::BTreeMap;

use thiserror::Error;

/// A number or truth value. Integers of every width become one kind; `f32` fits `f64` without loss.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scalar {
    /// Any of GGUF's eight integer types.
    Int(i128),
    /// `f32` or `f64`.
    Float(f64),
    /// A truth value.
    Bool(bool),
}

/// The fixed-size value types (`gguf_metadata_value_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum ScalarKind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    U64,
    I64,
    F64,
}

impl ScalarKind {
    /// The kind with this identifier; strings (8) and arrays (9) are no scalars.
    pub fn from_gguf(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of a value.
    pub const fn n_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The value in the first [`ScalarKind::n_bytes`] of `bytes`; the rest is not looked at.
    pub(super) fn decode(self, bytes: [u8; 8]) -> Scalar {
        let bits = u64::from_le_bytes(bytes);
        match self {
            Self::U8 => Scalar::Int(i128::from(bits as u8)),
            Self::I8 => Scalar::Int(i128::from(bits as i8)),
            Self::U16 => Scalar::Int(i128::from(bits as u16)),
            Self::I16 => Scalar::Int(i128::from(bits as i16)),
            Self::U32 => Scalar::Int(i128::from(bits as u32)),
            Self::I32 => Scalar::Int(i128::from(bits as i32)),
            Self::U64 => Scalar::Int(i128::from(bits)),
            Self::I64 => Scalar::Int(i128::from(bits as i64)),
            Self::F32 => Scalar::Float(f64::from(f32::from_bits(bits as u32))),
            Self::F64 => Scalar::Float(f64::from_bits(bits)),
            Self::Bool => Scalar::Bool(bits as u8 != 0),
        }
    }
}

/// An array of values of one type.
#[derive(Clone, PartialEq, Debug)]
pub enum Array {
    /// Numbers or truth values, little-endian as in the file, so that a vocabulary's scores take no more room than there.
    Scalars {
        /// Their type.
        kind: ScalarKind,
        /// Whole values one after another.
        bytes: Vec<u8>,
    },
    /// Strings.
    Strings(Vec<String>),
    /// Arrays.
    Arrays(Vec<Array>),
}

/// A metadata value.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A number or truth value.
    Scalar(Scalar),
    /// A string.
    String(String),
    /// An array.
    Array(Array),
}

impl Value {
    /// What the value is, for error messages.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Scalar(Scalar::Int(_)) => "integer",
            Self::Scalar(Scalar::Float(_)) => "float",
            Self::Scalar(Scalar::Bool(_)) => "bool",
            Self::String(_) => "string",
            Self::Array(Array::Strings(_)) => "array of strings",
            Self::Array(Array::Arrays(_)) => "array of arrays",
            Self::Array(Array::Scalars { kind, .. }) => match kind {
                ScalarKind::F32 | ScalarKind::F64 => "array of floats",
                ScalarKind::Bool => "array of bools",
                _ => "array of integers",
            },
        }
    }
}

/// Why a metadata value is not what the caller needs.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum MetadataError {
    /// The key is not there.
    #[error("the file has no metadata key `{key}`")]
    Missing {
        /// The key.
        key: String,
    },
    /// The value has another type.
    #[error("metadata key `{key}` should be {expected}, but is {actual}")]
    WrongType {
        /// The key.
        key: String,
        /// The type asked for.
        expected: &'static str,
        /// The type in the file.
        actual: &'static str,
    },
    /// The value, or one element of it, does not fit the type asked for.
    #[error("metadata key `{key}` holds {value}, which does not fit {expected}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The type asked for.
        expected: &'static str,
        /// The value in the file.
        value: i128,
    },
}

/// A conversion that failed, before its key is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// Another type.
    Type,
    /// An integer that does not fit.
    Range(i128),
}

/// A type that a single number or truth value can be read as.
pub trait FromScalar: Sized {
    /// The type's name for error messages, alone and as an array's element.
    const EXPECTED: [&'static str; 2];

    /// Converts without loss of range.
    ///
    /// # Errors
    /// The value has another type or does not fit.
    fn from_scalar(scalar: Scalar) -> Result<Self, Mismatch>;
}

macro_rules! integer_from_scalar {
    ($($int:ident $array:literal),*) => {$(
        impl FromScalar for $int {
            const EXPECTED: [&'static str; 2] = [stringify!($int), $array];

            fn from_scalar(scalar: Scalar) -> Result<Self, Mismatch> {
                match scalar {
                    Scalar::Int(value) => Self::try_from(value).map_err(|_| Mismatch::Range(value)),
                    Scalar::Float(_) | Scalar::Bool(_) => Err(Mismatch::Type),
                }
            }
        }
    )*};
}

integer_from_scalar!(u32 "array of u32", u64 "array of u64", i32 "array of i32");

impl FromScalar for f32 {
    const EXPECTED: [&'static str; 2] = ["f32", "array of f32"];

    fn from_scalar(scalar: Scalar) -> Result<Self, Mismatch> {
        match scalar {
            Scalar::Float(value) => Ok(value as Self),
            Scalar::Int(_) | Scalar::Bool(_) => Err(Mismatch::Type),
        }
    }
}

impl FromScalar for bool {
    const EXPECTED: [&'static str; 2] = ["bool", "array of bool"];

    fn from_scalar(scalar: Scalar) -> Result<Self, Mismatch> {
        match scalar {
            Scalar::Bool(value) => Ok(value),
            Scalar::Int(_) | Scalar::Float(_) => Err(Mismatch::Type),
        }
    }
}

/// A type that a metadata value can be read as.
pub trait FromValue<'a>: Sized {
    /// The type's name for error messages.
    const EXPECTED: &'static str;

    /// Converts, borrowing where it can.
    ///
    /// # Errors
    /// The value has another type or does not fit.
    fn from_value(value: &'a Value) -> Result<Self, Mismatch>;
}

impl<T: FromScalar> FromValue<'_> for T {
    const EXPECTED: &'static str = T::EXPECTED[0];

    fn from_value(value: &Value) -> Result<Self, Mismatch> {
        match value {
            Value::Scalar(scalar) => T::from_scalar(*scalar),
            Value::String(_) | Value::Array(_) => Err(Mismatch::Type),
        }
    }
}

impl<T: FromScalar> FromValue<'_> for Vec<T> {
    const EXPECTED: &'static str = T::EXPECTED[1];

    fn from_value(value: &Value) -> Result<Self, Mismatch> {
        let Value::Array(Array::Scalars { kind, bytes }) = value else {
            return Err(Mismatch::Type);
        };
        bytes
            .chunks_exact(kind.n_bytes())
            .map(|element| {
                let mut padded = [0; 8];
                padded[..element.len()].copy_from_slice(element);
                T::from_scalar(kind.decode(padded))
            })
            .collect()
    }
}

impl<'a> FromValue<'a> for &'a str {
    const EXPECTED: &'static str = "string";

    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        match value {
            Value::String(text) => Ok(text),
            Value::Scalar(_) | Value::Array(_) => Err(Mismatch::Type),
        }
    }
}

impl<'a> FromValue<'a> for &'a [String] {
    const EXPECTED: &'static str = "array of strings";

    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        match value {
            Value::Array(Array::Strings(strings)) => Ok(strings),
            _ => Err(Mismatch::Type),
        }
    }
}

/// The metadata of a file.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Metadata {
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// Takes an array of strings out: `None` if the key is not there.
    ///
    /// # Errors
    /// The value has another type.
    pub fn take_string_array(&mut self, key: &str) -> Result<Option<Vec<String>>, MetadataError> {
        if self.find::<&[String]>(key)?.is_none() {
            return Ok(None);
        }
        Ok(match self.values.remove(key) {
            Some(Value::Array(Array::Strings(strings))) => Some(strings),
            _ => Some(Vec::new()), // An empty array has no strings, of whatever type it is.
        })
    }

    /// Forgets every key that starts with `prefix`.
    pub fn forget(&mut self, prefix: &str) {
        self.values.retain(|key, _| !key.starts_with(prefix));
    }

    /// Adds a value; gives `false`, and changes nothing, if the key is taken.
    pub fn insert(&mut self, key: String, value: Value) -> bool {
        let entry = self.values.entry(key);
        let vacant = matches!(entry, std::collections::btree_map::Entry::Vacant(_));
        entry.or_insert(value);
        vacant
    }

    /// The value as it is.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// All keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// An optional value: `None` if the key is not there.
    ///
    /// # Errors
    /// The value has another type or does not fit.
    pub fn find<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, MetadataError> {
        let Some(value) = self.values.get(key) else {
            return Ok(None);
        };
        let (key, expected) = (key.to_owned(), T::EXPECTED);
        match T::from_value(value) {
            Ok(value) => Ok(Some(value)),
            Err(Mismatch::Type) => Err(MetadataError::WrongType {
                key,
                expected,
                actual: value.type_name(),
            }),
            Err(Mismatch::Range(value)) => Err(MetadataError::OutOfRange {
                key,
                expected,
                value,
            }),
        }
    }

    /// A value that must be there.
    ///
    /// # Errors
    /// The key is missing, the value has another type or does not fit.
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, MetadataError> {
        self.find(key)?.ok_or_else(|| MetadataError::Missing {
            key: key.to_owned(),
        })
    }

    /// A string. Errors as [`Metadata::require`], as for all that follow.
    pub fn string(&self, key: &str) -> Result<&str, MetadataError> {
        self.require(key)
    }

    /// An integer of any width in the file.
    pub fn u32(&self, key: &str) -> Result<u32, MetadataError> {
        self.require(key)
    }

    /// A float; `f64` is rounded.
    pub fn f32(&self, key: &str) -> Result<f32, MetadataError> {
        self.require(key)
    }

    /// A truth value.
    pub fn bool(&self, key: &str) -> Result<bool, MetadataError> {
        self.require(key)
    }

    /// An array of strings.
    pub fn string_array(&self, key: &str) -> Result<&[String], MetadataError> {
        self.require(key)
    }

    /// An array of floats.
    pub fn f32_array(&self, key: &str) -> Result<Vec<f32>, MetadataError> {
        self.require(key)
    }

    /// An array of integers of any width in the file.
    pub fn i32_array(&self, key: &str) -> Result<Vec<i32>, MetadataError> {
        self.require(key)
    }
}
