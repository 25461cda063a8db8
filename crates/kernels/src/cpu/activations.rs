//! Activations rounded to 16 bits, in the form that products with quantised weights read.

use super::simd::{F32x4, I16x8, I32x4};

/// Values under one scale.
pub(super) const BLOCK: usize = 32;
/// Values under one sum, at the finest.
const GROUP: usize = 16;
/// The largest quantum. With weights of at most 8 bits, 32 products of such size add up in 32 bits.
pub(super) const MAX_QUANTUM: i16 = i16::MAX;
/// Below this a block counts as zero, so that `MAX_QUANTUM / max` stays finite.
const SMALLEST_MAX: f32 = 1e-30;

/// The quanta of a block, `-MAX_QUANTUM..=MAX_QUANTUM`.
pub(super) type Quanta = [[i16; 8]; 4];

/// Rows of activations rounded to 16 bits. Keeps its memory from use to use.
#[derive(Debug, Default)]
pub(super) struct QuantizedRows {
    blocks_per_row: usize,
    quanta: Vec<Quanta>,
    scales: Vec<f32>,
    block_sums: Vec<f32>,
    group_sums: Vec<f32>,
}

/// One rounded row.
#[derive(Clone, Copy)]
pub(super) struct QuantizedRow<'a> {
    /// Block by block.
    pub(super) quanta: &'a [Quanta],
    /// The scale of each block: `max|x| / MAX_QUANTUM`.
    pub(super) scales: &'a [f32],
    /// `scale * sum of quanta` of each block: what a minimum or a zero point per block of 32 multiplies.
    pub(super) block_sums: &'a [f32],
    /// The same for each half block: for formats with groups of 16.
    pub(super) group_sums: &'a [f32],
}

impl QuantizedRows {
    /// Rounds `x`, `[rows, n_cols]`, in place of what was held. `n_cols` is a positive multiple of 32 that divides `x.len()`.
    pub(super) fn quantize(&mut self, x: &[f32], n_cols: usize) {
        let n_blocks = x.len() / BLOCK;
        self.blocks_per_row = n_cols / BLOCK;
        self.quanta.resize(n_blocks, [[0; 8]; 4]);
        self.scales.resize(n_blocks, 0.0);
        self.block_sums.resize(n_blocks, 0.0);
        self.group_sums.resize(n_blocks * BLOCK / GROUP, 0.0);
        let (lanes, _) = x.as_chunks::<4>();
        let (group_sums, _) = self.group_sums.as_chunks_mut::<2>();
        for (b, x) in lanes.as_chunks::<8>().0.iter().enumerate() {
            let (scale, [first, second]) = quantize_block(x, &mut self.quanta[b]);
            self.scales[b] = scale;
            self.block_sums[b] = scale * (first + second) as f32;
            group_sums[b] = [scale * first as f32, scale * second as f32];
        }
    }

    /// One of the rows.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> QuantizedRow<'_> {
        let (n, groups) = (self.blocks_per_row, self.blocks_per_row * BLOCK / GROUP);
        QuantizedRow {
            quanta: &self.quanta[row * n..][..n],
            scales: &self.scales[row * n..][..n],
            block_sums: &self.block_sums[row * n..][..n],
            group_sums: &self.group_sums[row * groups..][..groups],
        }
    }
}

/// Returns the block's scale and the sums of quanta of its two halves.
fn quantize_block(x: &[[f32; 4]; 8], quanta: &mut [[i16; 8]; 4]) -> (f32, [i32; 2]) {
    let x = x.each_ref().map(F32x4::load);
    let largest = x
        .iter()
        .fold(F32x4::splat(0.0), |max, lanes| max.max(lanes.abs()))
        .max_lane();
    if !largest.is_finite() || largest < SMALLEST_MAX {
        *quanta = [[0; 8]; 4];
        let scale = if largest < SMALLEST_MAX {
            0.0
        } else {
            f32::NAN
        };
        return (scale, [0; 2]);
    }
    let inverse = F32x4::splat(f32::from(MAX_QUANTUM) / largest);
    let rounded = x.map(|lanes| (lanes * inverse).round().to_i32());
    for (quanta, pair) in quanta.iter_mut().zip(rounded.as_chunks::<2>().0) {
        pair[0].narrow(pair[1]).store(quanta);
    }
    let ones = I16x8::splat(1);
    let half = |quanta: &[[i16; 8]]| {
        let sums: I32x4 = I16x8::load(&quanta[0]).dot(ones) + I16x8::load(&quanta[1]).dot(ones);
        sums.to_array().iter().sum::<i32>()
    };
    (
        largest / f32::from(MAX_QUANTUM),
        [half(&quanta[..2]), half(&quanta[2..])],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_the_nearest_step() {
        let x: Vec<f32> = (0..96)
            .map(|i| (i as f32 * 0.37).sin() * (1.0 + i as f32))
            .collect();
        let mut rows = QuantizedRows::default();
        rows.quantize(&x, 96);
        let row = rows.row(0);
        for (b, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
            let (quanta, scale) = (row.quanta[b].as_flattened(), row.scales[b]);
            for (&q, x) in quanta.iter().zip(x) {
                assert!(
                    (f32::from(q) * scale - x).abs() <= scale * 0.51,
                    "{x} became {q} times {scale}"
                );
            }
            let sum =
                |quanta: &[i16]| scale * quanta.iter().map(|&q| i32::from(q)).sum::<i32>() as f32;
            assert_eq!(
                row.group_sums[2 * b..][..2],
                [sum(&quanta[..16]), sum(&quanta[16..])]
            );
            assert_eq!(row.block_sums[b], sum(quanta));
        }
    }

    #[test]
    fn extreme_blocks_are_zero_or_nan() {
        for (value, scale_is_nan) in [
            (0.0, false),
            (1e-38, false),
            (f32::INFINITY, true),
            (f32::NAN, true),
        ] {
            let mut x = [0.0; BLOCK];
            x[17] = value;
            let mut rows = QuantizedRows::default();
            rows.quantize(&x, BLOCK);
            let row = rows.row(0);
            assert_eq!(
                row.scales[0].is_nan(),
                scale_is_nan,
                "a block that holds {value}"
            );
            assert_eq!(row.quanta[0], [[0; 8]; 4], "a block that holds {value}");
        }
    }

    #[test]
    fn rows_are_rounded_apart() {
        let mut rows = QuantizedRows::default();
        rows.quantize(&[[1.0; 64], [2.0; 64], [-4.0; 64]].concat(), 64);
        for (row, value) in [1.0, 2.0, -4.0f32].into_iter().enumerate() {
            let row = rows.row(row);
            assert_eq!(row.scales, [value.abs() / f32::from(MAX_QUANTUM); 2]);
            assert_eq!(
                row.quanta,
                [[[MAX_QUANTUM * value.signum() as i16; 8]; 4]; 2]
            );
        }
    }
}
