//! Products with quantised weights, whose activations are rounded to 16 bits.

use std::marker::PhantomData;
use std::ops::Range;

use super::activations::{BLOCK, Quanta, QuantizedGroup, QuantizedRow, QuantizedRows};
use super::linear::{RUN, RowProducts};
use super::packed_rows::{PackedRow, PackedRows};
use super::scales::{Scales, filled_up, normal_pairs_to_f32};
use super::simd::{F32x4, I16x8, I32x4};
use super::unpack::Planes;

/// Weight rows, with the activations that they meet.
///
/// A product is added up group by group of columns, 16 or 32 that have one scale:
/// `sum += (sum of quanta * activation quanta) * (scale * activation scale) + offset * activation sum`,
/// where the first sum is of integers, and exact. The offset is the minimum, or else minus the zero point times the scale, as
/// `x·(s (q - z)) = s (x·q) - z (s sum x)`; quanta that carry their own sign have none.
pub(super) struct QuantizedWeights<'a, P> {
    weights: &'a PackedRows<'a>,
    x: &'a QuantizedRows,
    scales: &'a mut Scales,
    /// The rows that products are wanted of, of which `scales` holds the scales unless they are decoded on the way.
    run: Range<usize>,
    decodes_on_the_way: bool,
    planes: PhantomData<P>,
}

/// A weight row with its scales.
struct WeightRow<'a, P: Planes> {
    low: &'a [P::Low],
    high: &'a [u32],
    scales: &'a [f32],
    /// `factor` times these are the offsets.
    offsets: &'a [f32],
}

impl<'a, P: Planes> QuantizedWeights<'a, P> {
    /// `decodes_on_the_way` if there is one row of activations, and each word of scales has a scale and a minimum that are normal halves: products
    /// then read them where they use them.
    pub(super) fn new(
        weights: &'a PackedRows<'a>,
        x: &'a QuantizedRows,
        scales: &'a mut Scales,
        decodes_on_the_way: bool,
    ) -> Self {
        Self {
            weights,
            x,
            scales,
            run: 0..0,
            decodes_on_the_way,
            planes: PhantomData,
        }
    }

    /// What offsets are multiplied by: one, or minus a power of two (where quanta carry their own sign, nothing that is used).
    #[inline(always)]
    fn factor(&self) -> f32 {
        if self.scales.has_mins() {
            1.0
        } else {
            -(self.weights.layout.format.zero() as f32)
        }
    }

    /// A row of the run, whose scales are decoded.
    #[inline(always)]
    fn row(&self, row: usize) -> WeightRow<'_, P> {
        let PackedRow { low, high } = self.weights.row(row);
        let (scales, mins) = self.scales.of(row - self.run.start);
        WeightRow {
            low: bytemuck::cast_slice(low),
            high,
            scales,
            offsets: mins.unwrap_or(scales),
        }
    }

    /// The product of a row whose scales are not decoded yet: a scale and a minimum in each word, all normal halves.
    #[inline(always)]
    fn product_decoding(&self, row: usize, x: QuantizedRow<'_>) -> f32 {
        let PackedRow { low, high } = self.weights.row(row);
        let (fours, rest) = self.weights.scale_words(row..row + 1).as_chunks();
        let last = normal_pairs_to_f32(&filled_up(rest));
        let factors = fours.iter().map(normal_pairs_to_f32);
        product_of_one::<P, 4>((bytemuck::cast_slice(low), high), factors, last, 1.0, x)
    }
}

impl<P: Planes> RowProducts for QuantizedWeights<'_, P> {
    fn prepare(&mut self, outputs: Range<usize>) {
        self.run = outputs.clone();
        if !self.decodes_on_the_way {
            self.weights.decode_scales(outputs, self.scales);
        }
    }

    #[inline(always)]
    fn fill_tile<const R: usize>(&self, first: usize, tile: &mut [[f32; RUN]; R]) {
        if let [products] = tile.as_mut_slice() {
            let x = self.x.row(first);
            let products = self.run.clone().zip(products);
            if P::GROUP == BLOCK && self.decodes_on_the_way {
                for (row, product) in products {
                    *product = self.product_decoding(row, x);
                }
            } else {
                let factor = self.factor();
                for (row, product) in products {
                    *product = product_of_decoded(&self.row(row), factor, x);
                }
            }
        } else {
            let (factor, x) = (self.factor(), self.x.group::<R>(first));
            for (i, row) in self.run.clone().enumerate() {
                let products = products_of_fours(&self.row(row), factor, &x);
                for (tile, product) in tile.iter_mut().zip(products) {
                    tile[i] = product;
                }
            }
        }
    }
}

/// The product of a row whose scales are decoded.
#[inline(always)]
fn product_of_decoded<P: Planes>(row: &WeightRow<'_, P>, factor: f32, x: QuantizedRow<'_>) -> f32 {
    let scales = row.scales.as_chunks().0.iter();
    let factors = scales.zip(row.offsets.as_chunks().0);
    let factors = factors.map(|(scales, offsets)| [scales, offsets].map(F32x4::load));
    let last = factors.clone().next_back().expect("rows are not empty");
    let planes = (row.low, row.high);
    if P::GROUP == BLOCK {
        product_of_one::<P, 4>(planes, factors, last, factor, x)
    } else {
        product_of_one::<P, 2>(planes, factors, last, factor, x)
    }
}

/// Several rows of activations, four of them in the lanes of a vector.
#[inline(always)]
fn products_of_fours<P: Planes, const R: usize>(
    weights: &WeightRow<'_, P>,
    factor: f32,
    x: &QuantizedGroup<'_, R>,
) -> [f32; R] {
    let per_block = BLOCK / P::GROUP;
    let mut sums = [F32x4::splat(0.0); R];
    let of_blocks =
        (weights.scales.chunks_exact(per_block)).zip(weights.offsets.chunks_exact(per_block));
    let of_groups = of_blocks.zip(x.groups(per_block));
    let blocks = weights.low.iter().zip(x.quanta).zip(of_groups);
    for (b, ((low, x), ((scales, offsets), (x_scales, x_sums)))) in blocks.enumerate() {
        let quanta = P::unpack(low, &weights.high[b * P::HIGH_WORDS..]);
        // Written out, since arrays that a loop indexes would leave the registers.
        let scaled = |group: usize| {
            let offset = F32x4::splat(offsets[group] * factor);
            (F32x4::splat(scales[group]), offset)
        };
        add_group::<P, R>(
            &mut sums,
            (quanta, 0),
            x,
            scaled(0),
            (&x_scales[0], &x_sums[0]),
        );
        if per_block == 2 {
            add_group::<P, R>(
                &mut sums,
                (quanta, 1),
                x,
                scaled(1),
                (&x_scales[1], &x_sums[1]),
            );
        }
    }
    let mut products = [0.0; R];
    for (products, sum) in products.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
        sum.store(products);
    }
    products
}

/// Adds one group of columns of a block to the sums of each four rows.
#[inline(always)]
fn add_group<P: Planes, const R: usize>(
    sums: &mut [F32x4; R],
    (quanta, group): ([I16x8; 4], usize),
    x: &[Quanta; R],
    (scale, offset): (F32x4, F32x4),
    (x_scales, x_sums): (&[f32; R], &[f32; R]),
) {
    let x_groups = x_scales
        .as_chunks::<4>()
        .0
        .iter()
        .zip(x_sums.as_chunks::<4>().0);
    let rows = x.as_chunks::<4>().0.iter().zip(x_groups);
    for (sum, (x, (x_scale, x_sum))) in sums.iter_mut().zip(rows) {
        let dots = x.each_ref().map(|x| group_dot::<P>(quanta, x, group));
        let term = I32x4::sums(dots).to_f32() * (scale * F32x4::load(x_scale));
        *sum = *sum + with_offset::<P>(term, offset, F32x4::load(x_sum));
    }
}

/// One row of activations. `B` blocks are four groups of columns: the lanes of a vector, which are added one by one. `factors` gives scales and
/// offsets of whole fours of groups, `last` those of the groups that may be left, filled up.
#[inline(always)]
fn product_of_one<P: Planes, const B: usize>(
    (low, high): (&[P::Low], &[u32]),
    factors: impl Iterator<Item = [F32x4; 2]>,
    last: [F32x4; 2],
    factor: f32,
    x: QuantizedRow<'_>,
) -> f32 {
    let mut sum = 0.0;
    let (whole, rest) = x.quanta.as_chunks::<B>();
    let x_groups = x.scales.as_chunks().0.iter().zip(x.sums.as_chunks().0);
    let blocks = low.as_chunks().0.iter().zip(whole).zip(x_groups);
    for (i, (((low, x), (x_scales, x_sums)), factors)) in blocks.zip(factors).enumerate() {
        let lanes = Lanes::<P, B> {
            low,
            high: &high[i * B * P::HIGH_WORDS..],
            factors,
            x,
            x_scales,
            x_sums,
        };
        lanes.add_products(factor, &mut sum);
    }
    match rest.len() {
        0 => {}
        1 => Lanes::<P, 1>::last(low, high, last, x).add_products(factor, &mut sum),
        2 => Lanes::<P, 2>::last(low, high, last, x).add_products(factor, &mut sum),
        _ => Lanes::<P, 3>::last(low, high, last, x).add_products(factor, &mut sum),
    }
    sum
}

/// `B` blocks of a row of weights and of one of activations, with what belongs to four groups of columns, of which those of the blocks are the
/// first.
struct Lanes<'a, P: Planes, const B: usize> {
    low: &'a [P::Low; B],
    high: &'a [u32],
    /// Scales and offsets.
    factors: [F32x4; 2],
    x: &'a [Quanta; B],
    x_scales: &'a [f32; 4],
    x_sums: &'a [f32; 4],
}

impl<'a, P: Planes, const B: usize> Lanes<'a, P, B> {
    const GROUPS_PER_BLOCK: usize = BLOCK / P::GROUP;

    /// The last blocks of two rows.
    #[inline(always)]
    fn last(low: &'a [P::Low], high: &'a [u32], factors: [F32x4; 2], x: QuantizedRow<'a>) -> Self {
        let block = x.quanta.len() - B;
        let group = block * Self::GROUPS_PER_BLOCK;
        Self {
            low: chunk(low, block),
            high: &high[block * P::HIGH_WORDS..],
            factors,
            x: chunk(x.quanta, block),
            x_scales: chunk(x.scales, group),
            x_sums: chunk(x.sums, group),
        }
    }

    /// Adds the product of each group.
    #[inline(always)]
    fn add_products(&self, factor: f32, sum: &mut f32) {
        let mut dots = [I32x4::splat(0); 4];
        let of_blocks = dots.chunks_exact_mut(Self::GROUPS_PER_BLOCK);
        for (b, ((low, x), dots)) in self.low.iter().zip(self.x).zip(of_blocks).enumerate() {
            let quanta = P::unpack(low, &self.high[b * P::HIGH_WORDS..]);
            for (group, dot) in dots.iter_mut().enumerate() {
                *dot = group_dot::<P>(quanta, x, group);
            }
        }
        let [scales, offsets] = self.factors;
        let scales = scales * F32x4::load(self.x_scales);
        // But for its sign the factor is a power of two: multiplied in first it rounds nothing either.
        let x_sums = F32x4::load(self.x_sums) * F32x4::splat(factor);
        let term = I32x4::sums(dots).to_f32() * scales;
        let terms = with_offset::<P>(term, offsets, x_sums).to_array();
        for term in &terms[..B * Self::GROUPS_PER_BLOCK] {
            *sum += term;
        }
    }
}

#[inline(always)]
fn chunk<T, const N: usize>(values: &[T], start: usize) -> &[T; N] {
    values[start..].first_chunk().expect("rows are whole")
}

/// The product of a block's quanta with activations, over one of its groups of columns: four integer sums.
#[inline(always)]
fn group_dot<P: Planes>(quanta: [I16x8; 4], Quanta(x): &Quanta, group: usize) -> I32x4 {
    let half = |half: usize| {
        let first = quanta[2 * half].dot(I16x8::load(&x[2 * half]));
        first + quanta[2 * half + 1].dot(I16x8::load(&x[2 * half + 1]))
    };
    if P::GROUP == BLOCK {
        half(0) + half(1)
    } else {
        half(group)
    }
}

#[inline(always)]
fn with_offset<P: Planes>(term: F32x4, offset: F32x4, x_sum: F32x4) -> F32x4 {
    if P::SIGNED {
        term
    } else {
        term + offset * x_sum
    }
}
