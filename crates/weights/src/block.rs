//! The tensor types of GGUF files that cinderlm reads.
//!
//! Identifiers and block layouts are those of ggml (`enum ggml_type` in `ggml.h`, the `block_*` structs in `ggml-common.h`).

use std::fmt;

/// Element type of a tensor in a GGUF file. Quantised types store a whole block of values at a time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BlockType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single-precision float.
    BF16,
    /// 4 bits and a scale per 32 values.
    Q4_0,
    /// 4 bits, a scale and a minimum per 32 values.
    Q4_1,
    /// 5 bits and a scale per 32 values.
    Q5_0,
    /// 5 bits, a scale and a minimum per 32 values.
    Q5_1,
    /// 8 bits and a scale per 32 values.
    Q8_0,
    /// 2 bits; scales and minima of 4 bits per 16 values under a pair of floats per 256.
    Q2K,
    /// 3 bits; scales of 6 bits per 16 values under one float per 256.
    Q3K,
    /// 4 bits; scales and minima of 6 bits per 32 values under a pair of floats per 256.
    Q4K,
    /// 5 bits; scales and minima as in [`BlockType::Q4K`].
    Q5K,
    /// 6 bits; scales of 8 bits per 16 values under one float per 256.
    Q6K,
}

/// What ggml fixes about a type: its identifier, name, and the size of a block in values and in bytes.
struct Facts {
    ggml_id: u32,
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
}

impl BlockType {
    /// Every type that can be read.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    const fn facts(self) -> Facts {
        let (ggml_id, name, block_len, block_bytes) = match self {
            Self::F32 => (0, "F32", 1, 4),
            Self::F16 => (1, "F16", 1, 2),
            Self::BF16 => (30, "BF16", 1, 2),
            Self::Q4_0 => (2, "Q4_0", 32, 18),
            Self::Q4_1 => (3, "Q4_1", 32, 20),
            Self::Q5_0 => (6, "Q5_0", 32, 22),
            Self::Q5_1 => (7, "Q5_1", 32, 24),
            Self::Q8_0 => (8, "Q8_0", 32, 34),
            Self::Q2K => (10, "Q2_K", 256, 84),
            Self::Q3K => (11, "Q3_K", 256, 110),
            Self::Q4K => (12, "Q4_K", 256, 144),
            Self::Q5K => (13, "Q5_K", 256, 176),
            Self::Q6K => (14, "Q6_K", 256, 210),
        };
        Facts {
            ggml_id,
            name,
            block_len,
            block_bytes,
        }
    }

    /// The type with this `ggml_type` identifier, if it is one that can be read.
    pub fn from_ggml(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.ggml_id() == id)
    }

    /// Its identifier in `enum ggml_type`.
    pub const fn ggml_id(self) -> u32 {
        self.facts().ggml_id
    }

    /// Its name as ggml prints it, such as `Q4_K`.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// Values in a block: 1 for floats.
    pub const fn block_len(self) -> usize {
        self.facts().block_len
    }

    /// Bytes in a block.
    pub const fn block_bytes(self) -> usize {
        self.facts().block_bytes
    }

    /// Whether values are stored as floats, without quantisation.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }

    /// Bytes of `n_values` values that lie one after another; `None` unless they make whole blocks and the product fits.
    pub fn n_bytes(self, n_values: u64) -> Option<u64> {
        let block_len = self.block_len() as u64;
        if !n_values.is_multiple_of(block_len) {
            return None;
        }
        (n_values / block_len).checked_mul(self.block_bytes() as u64)
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_round_trip() {
        for block_type in BlockType::ALL {
            assert_eq!(
                BlockType::from_ggml(block_type.ggml_id()),
                Some(block_type),
                "{block_type}"
            );
        }
        for unreadable in [4, 5, 9, 15, 16, 24, 28, 39, u32::MAX] {
            assert_eq!(BlockType::from_ggml(unreadable), None, "{unreadable}");
        }
    }

    #[test]
    fn sizes_need_whole_blocks() {
        assert_eq!(BlockType::Q4_1.n_bytes(64), Some(40));
        assert_eq!(BlockType::Q4_1.n_bytes(33), None);
        assert_eq!(BlockType::F32.n_bytes(3), Some(12));
        assert_eq!(BlockType::F32.n_bytes(u64::MAX), None);
    }
}
