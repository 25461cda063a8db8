//! The index of tensors.

use std::collections::HashSet;

use super::GgufError;
use super::cursor::Cursor;
use super::header::MAX_NAME_BYTES;
use crate::{BlockType, ByteSource, Interleave, PackError, PackedLayout};

/// Dimensions that a ggml tensor can have.
pub const MAX_DIMS: u32 = 4;

/// ggml's names for the tensor types that exist in files but are not read, by identifier.
const UNSUPPORTED_TYPES: [(u32, &str); 28] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

/// One tensor of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    /// Its name, unique within the file.
    pub name: String,
    /// Its 1 to 4 dimensions in ggml's order: the contiguous one first. A matrix of a linear layer is `[n_cols, n_rows]`, inputs
    /// before outputs.
    pub shape: Vec<u64>,
    /// How its values are stored.
    pub block_type: BlockType,
    /// Where its data starts, counted from the start of the file.
    pub offset: u64,
    /// Bytes of its data.
    pub n_bytes: u64,
}

impl TensorInfo {
    /// Values in a contiguous row.
    pub fn n_cols(&self) -> u64 {
        self.shape.first().copied().unwrap_or(0)
    }

    /// Rows: all dimensions but the contiguous one, multiplied.
    pub fn n_rows(&self) -> u64 {
        self.shape.iter().skip(1).product()
    }

    /// The layout of this tensor once packed.
    ///
    /// # Errors
    /// As [`PackedLayout::new`].
    pub fn packed_layout(&self, interleave: Interleave) -> Result<PackedLayout, PackError> {
        // A size beyond this machine's is certainly beyond the layout's own cap.
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let (n_rows, n_cols) = (size(self.n_rows()), size(self.n_cols()));
        PackedLayout::new(self.block_type, n_rows, n_cols, interleave)
    }

    /// Reads one entry. Its offset is still that within the data section.
    pub(super) async fn read<S: ByteSource>(cursor: &mut Cursor<S>) -> Result<Self, GgufError> {
        let tensor = cursor.string(MAX_NAME_BYTES).await?;
        let n_dims = cursor.u32().await?;
        if !(1..=MAX_DIMS).contains(&n_dims) {
            return Err(GgufError::DimensionCount {
                tensor,
                n_dims,
                max: MAX_DIMS,
            });
        }
        let mut shape = Vec::new();
        for _ in 0..n_dims {
            shape.push(cursor.u64().await?);
        }
        let type_id = cursor.u32().await?;
        let offset = cursor.u64().await?;
        Self::check(tensor, shape, type_id, offset)
    }

    fn check(
        tensor: String,
        shape: Vec<u64>,
        type_id: u32,
        offset: u64,
    ) -> Result<Self, GgufError> {
        let Some(block_type) = BlockType::from_ggml(type_id) else {
            return Err(unreadable_type(tensor, type_id));
        };
        if let Some(axis) = shape.iter().position(|n| *n == 0) {
            return Err(GgufError::ZeroDimension { tensor, axis });
        }
        let n_cols = shape[0];
        if !n_cols.is_multiple_of(block_type.block_len() as u64) {
            return Err(GgufError::PartialBlock {
                tensor,
                block_type,
                n_cols,
            });
        }
        let n_bytes = shape
            .iter()
            .try_fold(1_u64, |product, n| product.checked_mul(*n))
            .and_then(|n_values| block_type.n_bytes(n_values));
        let Some(n_bytes) = n_bytes else {
            return Err(GgufError::SizeOverflow { tensor, shape });
        };
        Ok(Self {
            name: tensor,
            shape,
            block_type,
            offset,
            n_bytes,
        })
    }
}

fn unreadable_type(tensor: String, id: u32) -> GgufError {
    match UNSUPPORTED_TYPES.iter().find(|(known, _)| *known == id) {
        Some((_, type_name)) => GgufError::UnsupportedType { tensor, type_name },
        None => GgufError::UnknownType { tensor, id },
    }
}

/// Turns offsets within the data section into offsets in the file and sorts by them, having checked that names are unique and that
/// data is aligned, in the file and apart.
pub(super) fn place(
    tensors: &mut [TensorInfo],
    data_offset: u64,
    alignment: u32,
    file_len: Option<u64>,
) -> Result<(), GgufError> {
    let mut names = HashSet::new();
    for tensor in tensors.iter() {
        if !names.insert(tensor.name.as_str()) {
            return Err(GgufError::DuplicateTensor {
                tensor: tensor.name.clone(),
            });
        }
    }
    for tensor in tensors.iter_mut() {
        let offset = tensor.offset;
        if !offset.is_multiple_of(u64::from(alignment)) {
            return Err(GgufError::Misaligned {
                tensor: tensor.name.clone(),
                offset,
                alignment,
            });
        }
        let start = data_offset.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(tensor.n_bytes));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(GgufError::OffsetOverflow {
                tensor: tensor.name.clone(),
                offset,
            });
        };
        if let Some(len) = file_len.filter(|len| end > *len) {
            return Err(GgufError::BeyondEnd {
                tensor: tensor.name.clone(),
                end,
                len,
            });
        }
        tensor.offset = start;
    }
    tensors.sort_by_key(|tensor| tensor.offset);
    for pair in tensors.windows(2) {
        if let [first, second] = pair
            && first.offset + first.n_bytes > second.offset
        {
            return Err(GgufError::Overlap {
                first: first.name.clone(),
                second: second.name.clone(),
            });
        }
    }
    Ok(())
}
