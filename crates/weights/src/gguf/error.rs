//! What can be wrong with a GGUF file.

use thiserror::Error;

use super::MetadataError;
use crate::{BlockType, PackError, SourceError};

/// Why a GGUF file cannot be read. Apart from [`GgufError::Source`], which is about getting at the bytes, and
/// [`GgufError::Pack`], which may be about memory, the file is corrupt unless [`GgufError::is_unsupported`] says otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum GgufError {
    /// The bytes could not be had.
    #[error(transparent)]
    Source(SourceError),
    /// The file ends too early.
    #[error("the file ends early: {wanted} bytes wanted at {offset}, the file has {len}")]
    Truncated {
        /// Where in the file.
        offset: u64,
        /// Bytes that should be there.
        wanted: u64,
        /// Bytes in the file.
        len: u64,
    },
    /// The file is part of a model that was split into another number of files.
    #[error("the file belongs to a model of {claimed} parts, and {n_parts} are given")]
    PartCount {
        /// Files that are read together.
        n_parts: usize,
        /// Files that there are, by this one.
        claimed: u32,
    },
    /// The parts of a split model are not in order.
    #[error("part {claimed} of the model is given as part {part}, counted from 0")]
    PartNumber {
        /// Where the file stands.
        part: usize,
        /// Where it belongs.
        claimed: u32,
    },
    /// Another kind of file.
    #[error("this is no GGUF file: it starts with {magic:02x?}")]
    BadMagic {
        /// The first four bytes.
        magic: [u8; 4],
    },
    /// A file for big-endian machines.
    #[error("big-endian GGUF files are not supported")]
    BigEndian,
    /// A version other than 2 and 3.
    #[error("GGUF version {version} is not supported, only 2 and 3 are")]
    UnsupportedVersion {
        /// The version in the file.
        version: u32,
    },
    /// More tensors than [`super::MAX_TENSORS`].
    #[error("the file claims {count} tensors, at most {max} are read")]
    TooManyTensors {
        /// Tensors claimed.
        count: u64,
        /// The cap.
        max: u64,
    },
    /// More metadata than [`super::MAX_KEYS`].
    #[error("the file claims {count} metadata keys, at most {max} are read")]
    TooManyKeys {
        /// Keys claimed.
        count: u64,
        /// The cap.
        max: u64,
    },
    /// A string beyond [`super::MAX_STRING_BYTES`], or a key or name beyond [`super::MAX_NAME_BYTES`].
    #[error("the string at {offset} claims {n_bytes} bytes, at most {max} are read")]
    StringTooLong {
        /// Where in the file its bytes start.
        offset: u64,
        /// Bytes claimed.
        n_bytes: u64,
        /// The cap.
        max: u64,
    },
    /// A string that is no UTF-8.
    #[error("the string at {offset} is no valid UTF-8")]
    InvalidUtf8 {
        /// Where in the file its bytes start.
        offset: u64,
    },
    /// An array beyond [`super::MAX_ARRAY_LEN`].
    #[error("the array in `{key}` claims {count} elements, at most {max} are read")]
    ArrayTooLong {
        /// Its key.
        key: String,
        /// Elements claimed.
        count: u64,
        /// The cap.
        max: u64,
    },
    /// Arrays within arrays beyond [`super::MAX_ARRAY_DEPTH`].
    #[error("the array in `{key}` is nested more than {max} deep")]
    ArrayTooDeep {
        /// Its key.
        key: String,
        /// The cap.
        max: usize,
    },
    /// A value of a type that GGUF does not know.
    #[error("`{key}` has the unknown value type {id}")]
    UnknownValueType {
        /// Its key.
        key: String,
        /// Identifier in the file.
        id: u32,
    },
    /// A truth value other than 0 and 1.
    #[error("`{key}` holds the truth value {value}")]
    InvalidBool {
        /// Its key.
        key: String,
        /// The byte.
        value: u8,
    },
    /// Two values under one key.
    #[error("the key `{key}` occurs twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A metadata value that the container itself needs is of another type.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// An alignment that is no power of two.
    #[error("the alignment {alignment} is no power of two")]
    BadAlignment {
        /// `general.alignment`.
        alignment: u32,
    },
    /// Two tensors of one name.
    #[error("the tensor `{tensor}` occurs twice")]
    DuplicateTensor {
        /// Its name.
        tensor: String,
    },
    /// No dimensions or more than [`super::MAX_DIMS`].
    #[error("the tensor `{tensor}` has {n_dims} dimensions, 1 to {max} are possible")]
    DimensionCount {
        /// Its name.
        tensor: String,
        /// Dimensions claimed.
        n_dims: u32,
        /// The cap.
        max: u32,
    },
    /// A dimension of no length.
    #[error("dimension {axis} of the tensor `{tensor}` is zero")]
    ZeroDimension {
        /// Its name.
        tensor: String,
        /// Index into the shape.
        axis: usize,
    },
    /// The number of values, or of their bytes, overflows 64 bits.
    #[error("the tensor `{tensor}` of shape {shape:?} is too large")]
    SizeOverflow {
        /// Its name.
        tensor: String,
        /// Its shape, the contiguous dimension first.
        shape: Vec<u64>,
    },
    /// Rows that end inside a block.
    #[error("the rows of `{tensor}`, {n_cols} values, are no whole blocks of {block_type}")]
    PartialBlock {
        /// Its name.
        tensor: String,
        /// Its type.
        block_type: BlockType,
        /// Values in a row.
        n_cols: u64,
    },
    /// A tensor type that ggml knows and cinderlm does not read.
    #[error("the tensor `{tensor}` has the type {type_name}, which is not supported")]
    UnsupportedType {
        /// Its name.
        tensor: String,
        /// ggml's name for the type.
        type_name: &'static str,
    },
    /// A tensor type without a known name.
    #[error("the tensor `{tensor}` has the unknown type {id}")]
    UnknownType {
        /// Its name.
        tensor: String,
        /// Identifier in the file.
        id: u32,
    },
    /// An offset that is no multiple of the alignment.
    #[error("the tensor `{tensor}` lies at {offset}, no multiple of {alignment}")]
    Misaligned {
        /// Its name.
        tensor: String,
        /// Its offset in the data section.
        offset: u64,
        /// `general.alignment`.
        alignment: u32,
    },
    /// A tensor whose end overflows 64 bits.
    #[error("the offset {offset} of the tensor `{tensor}` is too large")]
    OffsetOverflow {
        /// Its name.
        tensor: String,
        /// Its offset in the data section.
        offset: u64,
    },
    /// A tensor whose data is not all in the file.
    #[error("the tensor `{tensor}` ends at {end}, the file at {len}")]
    BeyondEnd {
        /// Its name.
        tensor: String,
        /// End of its data in the file.
        end: u64,
        /// Bytes in the file.
        len: u64,
    },
    /// Two tensors that share bytes.
    #[error("the tensors `{first}` and `{second}` overlap")]
    Overlap {
        /// The one that starts first.
        first: String,
        /// The one that starts inside it.
        second: String,
    },
    /// A tensor that cannot be packed.
    #[error("the tensor `{tensor}` cannot be packed: {source}")]
    Pack {
        /// Its name.
        tensor: String,
        /// Why not.
        source: PackError,
    },
}

impl GgufError {
    /// Whether the file may be sound, only beyond what this crate reads: another version, byte order, tensor type or size.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self,
            Self::BigEndian
                | Self::UnsupportedVersion { .. }
                | Self::UnsupportedType { .. }
                | Self::UnknownType { .. }
                | Self::Pack {
                    source: PackError::TooLarge { .. },
                    ..
                }
        )
    }
}

impl From<SourceError> for GgufError {
    /// A source that ends early means a file that ends early, whoever notices.
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Truncated {
                offset,
                wanted,
                len,
            } => Self::Truncated {
                offset,
                wanted,
                len,
            },
            SourceError::Io { .. } | SourceError::Cancelled => Self::Source(error),
        }
    }
}
