//! Activations rounded to 16 bits, in the form that products with quantised weights read.

use std::array::from_fn;
use std::ops::Range;

use super::simd::{F32x4, I16x8, I32x4};

/// Values under one scale.
pub(super) const BLOCK: usize = 32;
/// Values under one sum, at the finest.
const GROUP: usize = 16;
/// The largest quantum. With weights of at most 8 bits, 32 products of such size add up in 32 bits.
pub(super) const MAX_QUANTUM: i16 = i16::MAX;
/// Below this a block counts as zero, so that `MAX_QUANTUM / max` stays finite.
const SMALLEST_MAX: f32 = 1e-30;

/// The quanta of a block, in a line of the cache: `-MAX_QUANTUM..=MAX_QUANTUM`, in the order of [`Planes::unpack`](super::unpack::Planes::unpack).
#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(align(64))]
pub(super) struct Quanta(pub(super) [[i16; 8]; 4]);

/// The most rows of activations that one weight row meets in a pass: with more, sums and quanta would not fit the registers.
const MAX_GROUP: usize = 8;

/// Cuts `n_rows` rows into those that products take together: as many as go, always a power of two.
pub(super) fn row_groups(n_rows: usize) -> impl Iterator<Item = Range<usize>> {
    let mut rest = 0..n_rows;
    std::iter::from_fn(move || {
        let n_rows = rest.len().min(MAX_GROUP).checked_ilog2()?;
        let group = rest.start..rest.start + (1 << n_rows);
        rest.start = group.end;
        Some(group)
    })
}

/// Rows of activations rounded to 16 bits. Keeps its memory from use to use.
#[derive(Debug, Default)]
pub(super) struct QuantizedRows {
    blocks_per_row: usize,
    /// Group by group of [`row_groups`]; in a group block by block, its rows side by side.
    quanta: Vec<Quanta>,
    /// In the same order.
    scales: Vec<f32>,
    /// Row by row.
    block_sums: Vec<f32>,
    /// Row by row.
    group_sums: Vec<f32>,
}

/// Some rounded rows, which products take together.
#[derive(Clone, Copy)]
pub(super) struct QuantizedGroup<'a, const R: usize> {
    /// Block by block.
    pub(super) quanta: &'a [[Quanta; R]],
    /// The scale of each block: `max|x| / MAX_QUANTUM`.
    pub(super) scales: &'a [[f32; R]],
    /// Row by row, `scale * sum of quanta` of each block: what a minimum or a zero point per block of 32 multiplies.
    pub(super) block_sums: [&'a [f32]; R],
    /// The same for each half block: for formats with groups of 16.
    pub(super) group_sums: [&'a [f32]; R],
}

impl QuantizedRows {
    /// Rounds `x`, `[rows, n_cols]`, in place of what was held. `n_cols` is a positive multiple of 32 that divides `x.len()`.
    pub(super) fn quantize(&mut self, x: &[f32], n_cols: usize) {
        let n_blocks = x.len() / BLOCK;
        self.blocks_per_row = n_cols / BLOCK;
        self.quanta.resize(n_blocks, Quanta([[0; 8]; 4]));
        self.scales.resize(n_blocks, 0.0);
        self.block_sums.resize(n_blocks, 0.0);
        self.group_sums.resize(n_blocks * BLOCK / GROUP, 0.0);
        let (blocks, _) = x.as_chunks::<4>().0.as_chunks::<8>();
        for group in row_groups(x.len() / n_cols) {
            for row in group.clone() {
                let start = row * self.blocks_per_row;
                let place = group.start * self.blocks_per_row + row - group.start;
                for b in 0..self.blocks_per_row {
                    self.quantize_block(&blocks[start + b], start + b, place + b * group.len());
                }
            }
        }
    }

    /// Rounds block `b` of all, whose quanta go to `place`.
    #[inline(always)]
    fn quantize_block(&mut self, x: &[[f32; 4]; 8], b: usize, place: usize) {
        let (scale, [first, second]) = quantize_block(x, &mut self.quanta[place].0);
        self.scales[place] = scale;
        self.block_sums[b] = scale * (first + second) as f32;
        self.group_sums.as_chunks_mut::<2>().0[b] = [scale * first as f32, scale * second as f32];
    }

    /// A group of [`row_groups`], by its first row.
    #[inline(always)]
    pub(super) fn group<const R: usize>(&self, first: usize) -> QuantizedGroup<'_, R> {
        let (n, groups) = (self.blocks_per_row, self.blocks_per_row * BLOCK / GROUP);
        QuantizedGroup {
            quanta: self.quanta[first * n..][..R * n].as_chunks().0,
            scales: self.scales[first * n..][..R * n].as_chunks().0,
            block_sums: from_fn(|r| &self.block_sums[(first + r) * n..][..n]),
            group_sums: from_fn(|r| &self.group_sums[(first + r) * groups..][..groups]),
        }
    }
}

/// Returns the block's scale and the sums of quanta of its two halves.
fn quantize_block(x: &[[f32; 4]; 8], quanta: &mut [[i16; 8]; 4]) -> (f32, [i32; 2]) {
    let x = x.each_ref().map(F32x4::load);
    // The bits of positive floats are in their order, NaN last.
    let largest = x
        .iter()
        .fold(I32x4::splat(0), |max, lanes| max.max(lanes.abs().to_bits()));
    let largest = largest.to_array().into_iter().fold(0, i32::max);
    let largest = f32::from_bits(largest as u32);
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
    let rounded = x.map(|lanes| (lanes * inverse).round().1);
    let (halves, _) = rounded.as_chunks::<4>();
    for (quanta, [a, b, c, d]) in quanta.as_chunks_mut::<2>().0.iter_mut().zip(halves) {
        let [even, odd] = a.narrow(*b).split(c.narrow(*d));
        even.store(&mut quanta[0]);
        odd.store(&mut quanta[1]);
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
        let row = rows.group::<1>(0);
        for (b, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
            let ([quanta], [scale]) = (&row.quanta[b], row.scales[b]);
            let quanta = quanta.0.as_flattened();
            for (i, x) in x.iter().enumerate() {
                let q = quanta[i / 16 * 16 + i % 2 * 8 + i % 16 / 2];
                assert!(
                    (f32::from(q) * scale - x).abs() <= scale * 0.51,
                    "{x} became {q} times {scale}"
                );
            }
            let sum =
                |quanta: &[i16]| scale * quanta.iter().map(|&q| i32::from(q)).sum::<i32>() as f32;
            assert_eq!(
                row.group_sums[0][2 * b..][..2],
                [sum(&quanta[..16]), sum(&quanta[16..])]
            );
            assert_eq!(row.block_sums[0][b], sum(quanta));
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
            let row = rows.group::<1>(0);
            assert_eq!(
                row.scales[0][0].is_nan(),
                scale_is_nan,
                "a block that holds {value}"
            );
            assert_eq!(
                row.quanta[0],
                [Quanta([[0; 8]; 4])],
                "a block that holds {value}"
            );
        }
    }

    #[test]
    fn rows_are_rounded_apart() {
        let values: Vec<f32> = (1..=15).map(|row| (-2.0f32).powi(row)).collect();
        let x: Vec<f32> = values.iter().flat_map(|&value| [value; 64]).collect();
        let mut rows = QuantizedRows::default();
        rows.quantize(&x, 64);
        check_group(rows.group::<8>(0), &values[..8]);
        check_group(rows.group::<4>(8), &values[8..12]);
        check_group(rows.group::<2>(12), &values[12..14]);
        check_group(rows.group::<1>(14), &values[14..]);
    }

    fn check_group<const R: usize>(group: QuantizedGroup<'_, R>, values: &[f32]) {
        for (r, value) in values.iter().enumerate() {
            for b in 0..2 {
                assert_eq!(group.scales[b][r], value.abs() / f32::from(MAX_QUANTUM));
                let quantum = MAX_QUANTUM * value.signum() as i16;
                assert_eq!(group.quanta[b][r], Quanta([[quantum; 8]; 4]));
            }
            let sum = group.scales[0][r] * 32.0 * f32::from(MAX_QUANTUM) * value.signum();
            assert_eq!(group.block_sums[r], [sum; 2]);
            assert_eq!(group.group_sums[r], [sum / 2.0; 4]);
        }
    }

    #[test]
    fn groups_are_as_large_as_they_can_be() {
        let groups: Vec<_> = row_groups(23).collect();
        assert_eq!(groups, [0..8, 8..16, 16..20, 20..22, 22..23]);
        assert_eq!(row_groups(0).count(), 0);
    }
}
