//! The GGUF container, versions 2 and 3, little-endian.
//!
//! Format: `docs/gguf.md` in the ggml repository. A file is a header (magic, version, two counts), key-value metadata, an index of
//! tensors and, at the next multiple of the alignment, the tensors' blocks.
//!
//! A [`GgufReader`] reads it once from front to back, or the parts of a model that was split into several files, one after the other. Its bytes are taken for hostile: no count is believed before its bytes have
//! arrived, every size is bounded by a named cap or by the length of the file, and each malformation has its own [`GgufError`].

mod cursor;
mod error;
mod header;
mod index;
mod metadata;
mod parts;
mod reader;

pub use error::GgufError;
pub use header::{
    GgufHeader, MAX_ARRAY_DEPTH, MAX_ARRAY_LEN, MAX_KEYS, MAX_NAME_BYTES, MAX_STRING_BYTES,
    MAX_TENSORS,
};
pub use index::{MAX_DIMS, TensorInfo};
pub use metadata::{
    Array, FromScalar, FromValue, Metadata, MetadataError, Scalar, ScalarKind, Value,
};
pub use parts::{JoinedParts, PartFiles};
pub use reader::{GgufReader, PIECE_BYTES, TensorStream};
