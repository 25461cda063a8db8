//! What can go wrong when weights and caches are put on a device.

use cinderlm_weights::{Interleave, PackError};
use thiserror::Error;

/// An error of creating device buffers. Kernels themselves cannot fail: their buffers were checked when they were made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The device cannot bind a buffer of this size to a kernel.
    #[error("a buffer of {n_bytes} bytes exceeds the {max_bytes} bytes that the device can bind")]
    BufferTooLarge {
        /// Size asked for.
        n_bytes: u64,
        /// The device's limit.
        max_bytes: u64,
    },

    /// Rows of a matrix must be whole blocks of 32 values, for float formats too.
    #[error("a matrix has {n_cols} columns, which is no multiple of 32")]
    PartialBlock {
        /// Columns of the matrix.
        n_cols: usize,
    },

    /// The matrix was packed for another kind of device.
    #[error("a matrix is packed as {actual:?}, but the device takes {expected:?}")]
    WrongInterleave {
        /// The order of rows that the device's kernels read, as [`PackedMatrix::interleave_for`](crate::PackedMatrix::interleave_for) says.
        expected: Interleave,
        /// The order found.
        actual: Interleave,
    },

    /// The words of a packed tensor do not fit its layout.
    #[error("a packed tensor has {actual} words where its layout has {expected}")]
    WordCount {
        /// Words of the layout.
        expected: usize,
        /// Words found.
        actual: usize,
    },

    /// The blocks of a file do not make up the matrix, or there is no memory to pack them.
    #[error(transparent)]
    Pack(#[from] PackError),

    /// Attention kernels take head sizes that are multiples of 4, up to 256.
    #[error("heads of {head_dim} values are not supported: 4 to 256 in steps of 4 are")]
    HeadDim {
        /// Values per head.
        head_dim: usize,
    },

    /// A cache layout with no heads or empty blocks, or whose slots cannot be counted with 32 bits.
    #[error(
        "a cache of {n_blocks} blocks of {block_tokens} tokens by {n_kv_heads} heads cannot be addressed"
    )]
    CacheShape {
        /// Blocks asked for.
        n_blocks: usize,
        /// Tokens per block.
        block_tokens: usize,
        /// Key-value heads.
        n_kv_heads: usize,
    },
}
