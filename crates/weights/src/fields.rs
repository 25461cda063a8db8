//! Where the bits lie inside each quantised ggml block (`block_*` in `ggml-common.h`).
//!
//! A block is read in stretches of 32 values. `block` always has the [`BlockType::block_bytes`] of its type. Floats have no such
//! fields; zeros are returned for them.

use crate::BlockType;

/// The 32 quanta of a stretch, all bits together, unsigned; [`BlockType::Q8_0`]'s are in two's complement.
pub(crate) fn quanta(block_type: BlockType, block: &[u8], stretch: usize) -> [u8; 32] {
    let s = stretch;
    match block_type {
        BlockType::F32 | BlockType::F16 | BlockType::BF16 => [0; 32],
        BlockType::Q4_0 => nibbles(&block[2..]),
        BlockType::Q4_1 => nibbles(&block[4..]),
        BlockType::Q5_0 => with_fifth_bit(nibbles(&block[6..]), &block[2..]),
        BlockType::Q5_1 => with_fifth_bit(nibbles(&block[8..]), &block[4..]),
        BlockType::Q8_0 => run(&block[2..], 0, 0, 0xff),
        BlockType::Q2K => run(&block[16..], s / 4, 2 * (s % 4), 3),
        BlockType::Q3K => join(
            run(&block[32..], s / 4, 2 * (s % 4), 3),
            run(block, 0, s, 1),
            2,
        ),
        BlockType::Q4K => run(&block[16..], s / 2, 4 * (s % 2), 15),
        BlockType::Q5K => join(
            run(&block[48..], s / 2, 4 * (s % 2), 15),
            run(&block[16..], 0, s, 1),
            4,
        ),
        BlockType::Q6K => join(
            run(block, s / 4 * 2 + s % 2, s % 4 / 2 * 4, 15),
            run(&block[128..], s / 4, 2 * (s % 4), 3),
            4,
        ),
    }
}

/// The block's f16 scale and f16 minimum (0 where there is none), as bits.
pub(crate) fn floats(block_type: BlockType, block: &[u8]) -> (u16, u16) {
    match block_type {
        BlockType::F32 | BlockType::F16 | BlockType::BF16 => (0, 0),
        BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => (half_at(block, 0), 0),
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => {
            (half_at(block, 0), half_at(block, 2))
        }
        BlockType::Q2K => (half_at(block, 80), half_at(block, 82)),
        BlockType::Q3K => (half_at(block, 108), 0),
        BlockType::Q6K => (half_at(block, 208), 0),
    }
}

/// Scales per group of 16 of the types that have no minima, [`BlockType::Q3K`] and [`BlockType::Q6K`].
pub(crate) fn signed_scales(block_type: BlockType, block: &[u8]) -> [i8; 16] {
    match block_type {
        BlockType::Q3K => {
            // Sixteen 6-bit numbers: low nibbles in bytes 0..8 (the upper eight in the high halves), high pairs in bytes 8..12.
            let packed = &block[96..108];
            std::array::from_fn(|g| {
                let low = packed[g % 8] >> (4 * (g / 8)) & 15;
                let high = packed[8 + g % 4] >> (2 * (g / 4)) & 3;
                (low | high << 4) as i8 - 32
            })
        }
        BlockType::Q6K => std::array::from_fn(|g| block[192 + g] as i8),
        _ => [0; 16],
    }
}

/// `[scale, min]` per group: 16 groups of 16 for [`BlockType::Q2K`], 8 groups of 32 (the rest zero) for [`BlockType::Q4K`] and
/// [`BlockType::Q5K`].
pub(crate) fn scales_and_mins(block_type: BlockType, block: &[u8]) -> [[u8; 2]; 16] {
    let mut pairs = [[0; 2]; 16];
    match block_type {
        BlockType::Q2K => {
            for (pair, byte) in pairs.iter_mut().zip(&block[..16]) {
                *pair = [byte & 15, byte >> 4];
            }
        }
        BlockType::Q4K | BlockType::Q5K => {
            // Eight pairs of 6-bit numbers in 12 bytes: the first four lie whole in the low six bits of bytes 0..8, the others
            // have their low nibbles in bytes 8..12 and their high pairs in the bits left over.
            let packed = &block[4..16];
            for g in 0..4 {
                let [scale, min, low] = [packed[g], packed[g + 4], packed[g + 8]];
                pairs[g] = [scale & 63, min & 63];
                pairs[g + 4] = [low & 15 | scale >> 6 << 4, low >> 4 | min >> 6 << 4];
            }
        }
        _ => {}
    }
    pairs
}

fn half_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// The low nibbles of 16 bytes, then their high nibbles.
fn nibbles(bytes: &[u8]) -> [u8; 32] {
    let bytes = &bytes[..16];
    std::array::from_fn(|j| bytes[j % 16] >> (4 * (j / 16)) & 15)
}

fn with_fifth_bit(nibbles: [u8; 32], bits: &[u8]) -> [u8; 32] {
    let bits = u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]);
    std::array::from_fn(|j| nibbles[j] | ((bits >> j & 1) as u8) << 4)
}

/// One field from each of the 32 bytes of run `index`.
fn run(bytes: &[u8], index: usize, shift: usize, mask: u8) -> [u8; 32] {
    let bytes = &bytes[32 * index..32 * index + 32];
    std::array::from_fn(|j| bytes[j] >> shift & mask)
}

fn join(low: [u8; 32], high: [u8; 32], shift: usize) -> [u8; 32] {
    std::array::from_fn(|j| low[j] | high[j] << shift)
}
