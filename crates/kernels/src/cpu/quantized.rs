//! Products with quantised weights, whose activations are rounded to 16 bits.

use std::marker::PhantomData;
use std::ops::Range;

use super::activations::{BLOCK, Quanta, QuantizedGroup, QuantizedRows};
use super::linear::RowProducts;
use super::packed_rows::{PackedRow, PackedRows};
use super::scales::Scales;
use super::simd::{F32x4, I16x8, I32x4};
use super::unpack::Planes;

/// Weight rows, with the activations that they meet.
///
/// A product is added up group by group of columns, 16 or 32 that have one scale:
/// `sum += (sum of quanta * activation quanta) * (scale * activation scale) + offset * activation sum`,
/// where the first sum is of integers, and exact. The offset is the minimum, or else minus the zero point times the scale, as
/// `x·(s (q - z)) = s (x·q) - z (s sum x)`; quanta that carry their own sign have none.
pub(super) struct QuantizedWeights<'a, P> {
    weights: PackedRows<'a>,
    x: &'a QuantizedRows,
    scales: &'a mut Scales,
    /// The first row of which `scales` holds the scales.
    start: usize,
    planes: PhantomData<P>,
}

/// A weight row with its scales.
struct WeightRow<'a, P: Planes> {
    low: &'a [P::Low],
    high: &'a [u32],
    scales: &'a [f32],
    /// `factor` times these are the offsets.
    offsets: &'a [f32],
    factor: f32,
}

impl<'a, P: Planes> QuantizedWeights<'a, P> {
    pub(super) fn new(
        weights: PackedRows<'a>,
        x: &'a QuantizedRows,
        scales: &'a mut Scales,
    ) -> Self {
        Self {
            weights,
            x,
            scales,
            start: 0,
            planes: PhantomData,
        }
    }

    #[inline(always)]
    fn row(&self, output: usize) -> WeightRow<'_, P> {
        let PackedRow { low, high } = self.weights.row(output);
        let scales = self.scales.scales(output - self.start);
        let zero = self.weights.layout.format.zero() as f32;
        let (offsets, factor) = self
            .scales
            .mins(output - self.start)
            .map_or((scales, -zero), |mins| (mins, 1.0));
        WeightRow {
            low: bytemuck::cast_slice(low),
            high,
            scales,
            offsets,
            factor,
        }
    }
}

impl<P: Planes> WeightRow<'_, P> {
    /// The scales and offsets of each block.
    #[inline(always)]
    fn groups(&self, per_block: usize) -> impl Iterator<Item = (&[f32], &[f32])> {
        self.scales
            .chunks_exact(per_block)
            .zip(self.offsets.chunks_exact(per_block))
    }
}

impl<P: Planes> RowProducts for QuantizedWeights<'_, P> {
    fn prepare(&mut self, outputs: Range<usize>) {
        self.start = outputs.start;
        self.weights.decode_scales(outputs, self.scales);
    }

    #[inline(always)]
    fn products<const R: usize>(&self, output: usize, first: usize) -> [f32; R] {
        let (weights, x) = (self.row(output), self.x.group::<R>(first));
        if R == 1 {
            [product(&weights, &x); R]
        } else {
            products_of_fours(&weights, &x)
        }
    }
}

/// Several rows of activations, four of them in the lanes of a vector.
#[inline(always)]
fn products_of_fours<P: Planes, const R: usize>(
    weights: &WeightRow<'_, P>,
    x: &QuantizedGroup<'_, R>,
) -> [f32; R] {
    let per_block = BLOCK / P::GROUP;
    let mut sums = [F32x4::splat(0.0); R];
    let of_groups = weights.groups(per_block).zip(x.groups(per_block));
    let blocks = weights.low.iter().zip(x.quanta).zip(of_groups);
    for (b, ((low, x), ((scales, offsets), (x_scales, x_sums)))) in blocks.enumerate() {
        let quanta = P::unpack(low, &weights.high[b * P::HIGH_WORDS..]);
        // Written out, since arrays that a loop indexes would leave the registers.
        let scaled = |group: usize| {
            let offset = F32x4::splat(offsets[group] * weights.factor);
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

/// One row of activations: four groups of columns in the lanes of a vector, which are then added one by one.
#[inline(always)]
fn product<P: Planes, const R: usize>(
    weights: &WeightRow<'_, P>,
    x: &QuantizedGroup<'_, R>,
) -> f32 {
    let per_block = BLOCK / P::GROUP;
    let (x_scales, x_sums) = (x.scales.as_flattened(), x.sums.as_flattened());
    let quanta = x.quanta.as_flattened();
    let n_groups = weights.low.len() * per_block;
    let (x_scales, x_scales_rest) = x_scales[..n_groups].as_chunks::<4>();
    let (x_sums, x_sums_rest) = x_sums[..n_groups].as_chunks::<4>();
    let (scales, scales_rest) = weights.scales[..n_groups].as_chunks::<4>();
    let (offsets, offsets_rest) = weights.offsets[..n_groups].as_chunks::<4>();
    let of_groups = scales.iter().zip(offsets).zip(x_scales.iter().zip(x_sums));
    let low = weights.low.chunks_exact(4 / per_block);
    let low_rest = low.remainder();
    let x = quanta.chunks_exact(4 / per_block);
    let x_rest = x.remainder();

    let mut sum = 0.0;
    let mut b = 0;
    for ((low, x), ((scales, offsets), (x_scales, x_sums))) in low.zip(x).zip(of_groups) {
        let mut dots = [I32x4::splat(0); 4];
        for (low, (x, dots)) in low
            .iter()
            .zip(x.iter().zip(dots.chunks_exact_mut(per_block)))
        {
            let quanta = P::unpack(low, &weights.high[b * P::HIGH_WORDS..]);
            for (group, dot) in dots.iter_mut().enumerate() {
                *dot = group_dot::<P>(quanta, x, group);
            }
            b += 1;
        }
        let term = I32x4::sums(dots).to_f32() * (F32x4::load(scales) * F32x4::load(x_scales));
        let offset = F32x4::load(offsets) * F32x4::splat(weights.factor);
        for term in with_offset::<P>(term, offset, F32x4::load(x_sums)).to_array() {
            sum += term;
        }
    }
    let mut rest = scales_rest
        .iter()
        .zip(offsets_rest)
        .zip(x_scales_rest.iter().zip(x_sums_rest));
    for (low, x) in low_rest.iter().zip(x_rest) {
        let quanta = P::unpack(low, &weights.high[b * P::HIGH_WORDS..]);
        for (group, ((scale, offset), (x_scale, x_sum))) in
            rest.by_ref().take(per_block).enumerate()
        {
            let dot: i32 = group_dot::<P>(quanta, x, group).to_array().iter().sum();
            let term = dot as f32 * (scale * x_scale);
            let offset = offset * weights.factor;
            sum += if P::SIGNED {
                term
            } else {
                term + offset * x_sum
            };
        }
        b += 1;
    }
    sum
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
