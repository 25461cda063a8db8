//! All that stands before the tensors' data: counts, metadata, index.

use super::GgufError;
use super::cursor::Cursor;
use super::index::{self, TensorInfo};
use super::metadata::{Array, Metadata, Scalar, ScalarKind, Value};
use crate::ByteSource;

/// Tensors that a file may have. The largest mixtures of experts have some thousands.
pub const MAX_TENSORS: u64 = 1 << 16;
/// Metadata keys that a file may have.
pub const MAX_KEYS: u64 = 1 << 16;
/// Bytes of a key, as the format fixes them, and of a tensor's name.
pub const MAX_NAME_BYTES: u64 = (1 << 16) - 1;
/// Bytes of a string value. Some files carry a whole tokenizer file of tens of megabytes in one.
pub const MAX_STRING_BYTES: u64 = 1 << 26;
/// Elements of an array. Vocabularies have some hundred thousand.
pub const MAX_ARRAY_LEN: u64 = 1 << 24;
/// Arrays within arrays.
pub const MAX_ARRAY_DEPTH: usize = 4;

const MAGIC: [u8; 4] = *b"GGUF";
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u32 = 32;

/// The header of a GGUF file.
#[derive(Clone, PartialEq, Debug)]
pub struct GgufHeader {
    /// 2 or 3.
    pub version: u32,
    /// Everything but the weights: architecture, sizes, tokenizer.
    pub metadata: Metadata,
    /// The tensors in the order of their data.
    pub tensors: Vec<TensorInfo>,
    /// What tensors' offsets in the data section are multiples of.
    pub alignment: u32,
    /// Where in the file the data section starts.
    pub data_offset: u64,
}

impl GgufHeader {
    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    pub(super) async fn read<S: ByteSource>(cursor: &mut Cursor<S>) -> Result<Self, GgufError> {
        let version = version(cursor).await?;
        let n_tensors = cursor.u64().await?;
        if n_tensors > MAX_TENSORS {
            return Err(GgufError::TooManyTensors {
                count: n_tensors,
                max: MAX_TENSORS,
            });
        }
        let n_keys = cursor.u64().await?;
        if n_keys > MAX_KEYS {
            return Err(GgufError::TooManyKeys {
                count: n_keys,
                max: MAX_KEYS,
            });
        }
        let metadata = metadata(cursor, n_keys).await?;
        let alignment = metadata.find(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
        if !alignment.is_power_of_two() {
            return Err(GgufError::BadAlignment { alignment });
        }
        let mut tensors = Vec::new();
        for _ in 0..n_tensors {
            tensors.push(TensorInfo::read(cursor).await?);
        }
        let data_offset = cursor.position().next_multiple_of(u64::from(alignment));
        index::place(&mut tensors, data_offset, alignment, cursor.len())?;
        Ok(Self {
            version,
            metadata,
            tensors,
            alignment,
            data_offset,
        })
    }
}

async fn version<S: ByteSource>(cursor: &mut Cursor<S>) -> Result<u32, GgufError> {
    let magic: [u8; 4] = cursor.array().await?;
    let mut reversed = magic;
    reversed.reverse();
    if reversed == MAGIC {
        return Err(GgufError::BigEndian);
    }
    if magic != MAGIC {
        return Err(GgufError::BadMagic { magic });
    }
    match cursor.u32().await? {
        version @ (2 | 3) => Ok(version),
        // Big-endian files keep the magic's order; their small version then shows in the upper half.
        version if version != 0 && version & 0xffff == 0 => Err(GgufError::BigEndian),
        version => Err(GgufError::UnsupportedVersion { version }),
    }
}

async fn metadata<S: ByteSource>(
    cursor: &mut Cursor<S>,
    n_keys: u64,
) -> Result<Metadata, GgufError> {
    let mut metadata = Metadata::default();
    for _ in 0..n_keys {
        let key = cursor.string(MAX_NAME_BYTES).await?;
        if metadata.get(&key).is_some() {
            return Err(GgufError::DuplicateKey { key });
        }
        let value = value(cursor, &key).await?;
        metadata.insert(key, value);
    }
    Ok(metadata)
}

async fn value<S: ByteSource>(cursor: &mut Cursor<S>, key: &str) -> Result<Value, GgufError> {
    Ok(match cursor.u32().await? {
        STRING => Value::String(cursor.string(MAX_STRING_BYTES).await?),
        ARRAY => Value::Array(array(cursor, key, 1).await?),
        id => Value::Scalar(scalar(cursor, key, scalar_kind(key, id)?).await?),
    })
}

fn scalar_kind(key: &str, id: u32) -> Result<ScalarKind, GgufError> {
    ScalarKind::from_gguf(id).ok_or_else(|| GgufError::UnknownValueType {
        key: key.to_owned(),
        id,
    })
}

async fn scalar<S: ByteSource>(
    cursor: &mut Cursor<S>,
    key: &str,
    kind: ScalarKind,
) -> Result<Scalar, GgufError> {
    let mut bytes = [0; 8];
    let used = &mut bytes[..kind.n_bytes()];
    cursor.read(used).await?;
    check_bools(key, kind, used)?;
    Ok(kind.decode(bytes))
}

async fn array<S: ByteSource>(
    cursor: &mut Cursor<S>,
    key: &str,
    depth: usize,
) -> Result<Array, GgufError> {
    let id = cursor.u32().await?;
    let count = cursor.u64().await?;
    if count > MAX_ARRAY_LEN {
        return Err(GgufError::ArrayTooLong {
            key: key.to_owned(),
            count,
            max: MAX_ARRAY_LEN,
        });
    }
    match id {
        STRING => {
            cursor.expect(count * 8)?; // the strings' lengths
            let mut strings = Vec::new();
            for _ in 0..count {
                strings.push(cursor.string(MAX_STRING_BYTES).await?);
            }
            Ok(Array::Strings(strings))
        }
        ARRAY if depth == MAX_ARRAY_DEPTH => Err(GgufError::ArrayTooDeep {
            key: key.to_owned(),
            max: MAX_ARRAY_DEPTH,
        }),
        ARRAY => {
            cursor.expect(count * 12)?; // the arrays' types and counts
            let mut arrays = Vec::new();
            for _ in 0..count {
                arrays.push(Box::pin(array(cursor, key, depth + 1)).await?);
            }
            Ok(Array::Arrays(arrays))
        }
        id => {
            let kind = scalar_kind(key, id)?;
            let bytes = cursor.bytes(count * kind.n_bytes() as u64).await?;
            check_bools(key, kind, &bytes)?;
            Ok(Array::Scalars { kind, bytes })
        }
    }
}

fn check_bools(key: &str, kind: ScalarKind, bytes: &[u8]) -> Result<(), GgufError> {
    match bytes.iter().find(|byte| **byte > 1) {
        Some(&value) if kind == ScalarKind::Bool => Err(GgufError::InvalidBool {
            key: key.to_owned(),
            value,
        }),
        _ => Ok(()),
    }
}
