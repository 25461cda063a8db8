//! Activations rounded to 16 bits, in the form that products with quantised weights read.

use std::ops::Range;

use super::simd::{F32x4, I16x8, I32x4};

/// Values under one scale.
pub(super) const BLOCK: usize = 32;
/// The largest quantum. With weights of at most 8 bits, 32 products of such size add up in 32 bits.
pub(super) const MAX_QUANTUM: i16 = i16::MAX;
/// What lies behind the last row's scales and sums, so that they can be read in fours.
const PADDING: usize = 3;
/// Below this a block counts as zero, so that `MAX_QUANTUM / max` stays finite.
const SMALLEST_MAX: f32 = 1e-30;

/// The quanta of a block, in a line of the cache: `-MAX_QUANTUM..=MAX_QUANTUM`, in the order of [`Planes::unpack`](super::unpack::Planes::unpack).
#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(align(64))]
pub(super) struct Quanta(pub(super) [[i16; 8]; 4]);

/// Cuts `n_rows` rows into those that products take together: eight, then four, then one. With more than eight, sums and quanta would not
/// fit the registers.
pub(super) fn row_groups(n_rows: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let n_rows = [8, 4, 1].into_iter().find(|n| *n <= n_rows - start)?;
        start += n_rows;
        Some(start - n_rows..start)
    })
}

/// Rows of activations rounded to 16 bits. Keeps its memory from use to use.
///
/// All lies group by group of [`row_groups`]; in such a group along the columns, its rows side by side.
#[derive(Debug, Default)]
pub(super) struct QuantizedRows {
    blocks_per_row: usize,
    groups_per_row: usize,
    quanta: Vec<Quanta>,
    scales: Vec<f32>,
    sums: Vec<f32>,
}

/// Some rounded rows, which products take together.
#[derive(Clone, Copy)]
pub(super) struct QuantizedGroup<'a, const R: usize> {
    /// Block by block.
    pub(super) quanta: &'a [[Quanta; R]],
    /// The scale of the block that a group of columns is in: `max|x| / MAX_QUANTUM`.
    pub(super) scales: &'a [[f32; R]],
    /// `scale * sum of quanta` of each group of columns: what a minimum or a zero point multiplies.
    pub(super) sums: &'a [[f32; R]],
}

/// A rounded row that products take by itself; as [`QuantizedGroup`], but that scales and sums are filled up to a multiple of four with what means
/// nothing.
#[derive(Clone, Copy)]
pub(super) struct QuantizedRow<'a> {
    pub(super) quanta: &'a [Quanta],
    pub(super) scales: &'a [f32],
    pub(super) sums: &'a [f32],
}

impl QuantizedRows {
    /// Rounds `x`, `[rows, n_cols]`, in place of what was held, for weights of which `group` columns have one scale: 16 or 32. `n_cols` is
    /// a positive multiple of 32 that divides `x.len()`.
    pub(super) fn quantize(&mut self, x: &[f32], n_cols: usize, group: usize) {
        self.blocks_per_row = n_cols / BLOCK;
        self.groups_per_row = n_cols / group;
        self.quanta.resize(x.len() / BLOCK, Quanta([[0; 8]; 4]));
        self.scales.resize(x.len() / group + PADDING, 0.0);
        self.sums.resize(x.len() / group + PADDING, 0.0);
        let (blocks, _) = x.as_chunks::<4>().0.as_chunks::<8>();
        for rows in row_groups(x.len() / n_cols) {
            for row in rows.clone() {
                let blocks = &blocks[row * self.blocks_per_row..][..self.blocks_per_row];
                self.quantize_row(blocks, row, &rows);
            }
        }
    }

    /// Rounds one of the `rows` that lie side by side.
    fn quantize_row(&mut self, blocks: &[[[f32; 4]; 8]], row: usize, rows: &Range<usize>) {
        let first_quanta = rows.start * self.blocks_per_row + row - rows.start;
        let mut place = rows.start * self.groups_per_row + row - rows.start;
        let halves_per_group = 2 * self.blocks_per_row / self.groups_per_row;
        for (b, x) in blocks.iter().enumerate() {
            let quanta = &mut self.quanta[first_quanta + b * rows.len()];
            let (scale, halves) = quantize_block(x, quanta);
            for halves in halves.chunks(halves_per_group) {
                self.scales[place] = scale;
                self.sums[place] = scale * halves.iter().sum::<i32>() as f32;
                place += rows.len();
            }
        }
    }

    /// The only row of a group of [`row_groups`].
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> QuantizedRow<'_> {
        let start = row * self.groups_per_row;
        let of_groups = start..start + self.groups_per_row.next_multiple_of(4);
        QuantizedRow {
            quanta: &self.quanta[row * self.blocks_per_row..][..self.blocks_per_row],
            scales: &self.scales[of_groups.clone()],
            sums: &self.sums[of_groups],
        }
    }

    /// A group of [`row_groups`], by its first row.
    #[inline(always)]
    pub(super) fn group<const R: usize>(&self, first: usize) -> QuantizedGroup<'_, R> {
        let of_groups = first * self.groups_per_row..(first + R) * self.groups_per_row;
        QuantizedGroup {
            quanta: self.quanta[first * self.blocks_per_row..][..R * self.blocks_per_row]
                .as_chunks()
                .0,
            scales: self.scales[of_groups.clone()].as_chunks().0,
            sums: self.sums[of_groups].as_chunks().0,
        }
    }
}

impl<const R: usize> QuantizedGroup<'_, R> {
    /// The scales and sums of each block's groups of columns.
    #[inline(always)]
    pub(super) fn groups(
        &self,
        per_block: usize,
    ) -> impl Iterator<Item = (&[[f32; R]], &[[f32; R]])> {
        self.scales
            .chunks_exact(per_block)
            .zip(self.sums.chunks_exact(per_block))
    }
}

/// Returns the block's scale and the sums of quanta of its two halves.
fn quantize_block(x: &[[f32; 4]; 8], Quanta(quanta): &mut Quanta) -> (f32, [i32; 2]) {
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
        let mut halves = QuantizedRows::default();
        halves.quantize(&x, 96, 16);
        let mut rows = QuantizedRows::default();
        rows.quantize(&x, 96, 32);
        let (row, halves) = (rows.group::<1>(0), halves.group::<1>(0));
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
            assert_eq!(row.sums[b], [sum(quanta)]);
            assert_eq!(halves.quanta[b], row.quanta[b]);
            assert_eq!(halves.scales[2 * b..][..2], [[scale]; 2]);
            assert_eq!(
                halves.sums[2 * b..][..2],
                [[sum(&quanta[..16])], [sum(&quanta[16..])]]
            );
        }
    }

    #[test]
    fn extreme_blocks_are_zero_or_nan() {
        for (value, scale_is_nan) in [
            (0.0, false),
            (1e-38, false),
            (f32::INFINITY, true),
            (f32::NEG_INFINITY, true),
            (f32::NAN, true),
        ] {
            let mut x = [0.0; BLOCK];
            x[17] = value;
            let mut rows = QuantizedRows::default();
            rows.quantize(&x, BLOCK, 32);
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
        let values: Vec<f32> = (1..=14).map(|row| (-2.0f32).powi(row)).collect();
        let x: Vec<f32> = values.iter().flat_map(|&value| [value; 64]).collect();
        let mut rows = QuantizedRows::default();
        for group in [16, 32] {
            rows.quantize(&x, 64, group);
            check_group(rows.group::<8>(0), group, &values[..8]);
            check_group(rows.group::<4>(8), group, &values[8..12]);
            check_group(rows.group::<1>(12), group, &values[12..13]);
            check_group(rows.group::<1>(13), group, &values[13..]);
        }
    }

    fn check_group<const R: usize>(rows: QuantizedGroup<'_, R>, group: usize, values: &[f32]) {
        assert_eq!((rows.quanta.len(), rows.scales.len()), (2, 64 / group));
        for (r, value) in values.iter().enumerate() {
            let (largest, sign) = (f32::from(MAX_QUANTUM), value.signum());
            for quanta in rows.quanta {
                assert_eq!(quanta[r], Quanta([[MAX_QUANTUM * sign as i16; 8]; 4]));
            }
            for (scales, sums) in rows.scales.iter().zip(rows.sums) {
                assert_eq!(scales[r], value.abs() / largest);
                assert_eq!(sums[r], scales[r] * (group as f32 * largest * sign));
            }
        }
    }

    #[test]
    fn groups_are_as_large_as_they_can_be() {
        let groups: Vec<_> = row_groups(22).collect();
        assert_eq!(groups, [0..8, 8..16, 16..20, 20..21, 21..22]);
        assert_eq!(row_groups(0).count(), 0);
    }
}
