//! Products of activations with packed weights.

use std::marker::PhantomData;
use std::ops::Range;

use cinderlm_weights::{BlockType, PackedLayout};

use super::activations::{BLOCK, Quanta, QuantizedRows, row_groups};
use super::floats::{BF16, F16, F32, FloatRows};
use super::packed_rows::PackedRows;
use super::scales::Scales;
use super::share::{self, Columns};
use super::simd::{F32x4, I16x8};
use super::unpack::{Bits2, Bits3, Bits4, Bits5, Bits6, Bits8, Planes};
use super::{Own, Scratch};

/// Weight rows whose scales are decoded together: few enough to stay in the nearest cache.
const RUN: usize = 16;

/// `y = x Wᵀ + bias`.
///
/// # Shapes
/// - `x`: `[rows, n_cols]`
/// - `words`: the packed words of `W`, `[n_rows, n_cols]`, in row order
/// - `bias`: `[n_rows]`
/// - `y`: `[rows, n_rows]`
///
/// Quantised weights meet activations rounded to 16 bits, float weights meet them as they are (see the module's doc). Up to eight rows
/// of `x` share each unpacked block of weights, which changes no result.
///
/// # Panics
/// The lengths do not fit the layout, the matrix is empty, its rows are no whole blocks, or they are interleaved.
pub fn linear(
    x: &[f32],
    layout: &PackedLayout,
    words: &[u32],
    bias: Option<&[f32]>,
    scratch: &mut Scratch,
    y: &mut [f32],
) {
    let weights = PackedRows::new(layout, words);
    let (n_cols, n_outputs, block_type) = (layout.n_cols, layout.n_rows, layout.format.block_type);
    assert!(n_outputs > 0, "a matrix without rows");
    assert!(
        n_cols > 0 && x.len().is_multiple_of(n_cols),
        "{} activations in rows of {n_cols}",
        x.len()
    );
    assert!(
        n_cols.is_multiple_of(block_type.block_len()),
        "{n_cols} columns in blocks of {block_type:?}"
    );
    assert_eq!(
        y.len(),
        x.len() / n_cols * n_outputs,
        "one output per row and weight row"
    );
    assert!(
        bias.is_none_or(|bias| bias.len() == n_outputs),
        "one bias per output"
    );

    let Scratch { activations, own } = scratch;
    if layout.format.float_kind().is_none() {
        activations.quantize(x, n_cols);
    }
    let activations = &*activations;
    let run = |columns: Range<usize>, y: &mut Columns<'_>, own: &mut Own| {
        let part = Part {
            weights,
            n_rows: x.len() / n_cols,
            columns,
            bias,
        };
        match block_type {
            BlockType::F32 => part.fill(&mut FloatRows::<F32>::new(weights, x), y),
            BlockType::F16 => part.fill(&mut FloatRows::<F16>::new(weights, x), y),
            BlockType::BF16 => part.fill(&mut FloatRows::<BF16>::new(weights, x), y),
            BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q4K => {
                part.quantized::<Bits4>(activations, own, y)
            }
            BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q5K => {
                part.quantized::<Bits5>(activations, own, y)
            }
            BlockType::Q8_0 => part.quantized::<Bits8>(activations, own, y),
            BlockType::Q2K => part.quantized::<Bits2>(activations, own, y),
            BlockType::Q3K => part.quantized::<Bits3>(activations, own, y),
            BlockType::Q6K => part.quantized::<Bits6>(activations, own, y),
        }
    };
    let n_parts = share::n_parts(n_outputs.div_ceil(RUN), x.len().saturating_mul(n_outputs));
    share::columns(n_parts, y, n_outputs, RUN, own, run);
}

/// One weight row against several rows of activations.
pub(super) trait RowProducts {
    /// Makes ready for a run of weight rows, of which [`RowProducts::products`] is then asked.
    fn prepare(&mut self, outputs: Range<usize>);

    /// The products of weight row `output` with `R` rows of activations from `first` on. Each is the same whatever `R` is.
    fn products<const R: usize>(&self, output: usize, first: usize) -> [f32; R];
}

/// Some outputs of all rows.
struct Part<'a> {
    weights: PackedRows<'a>,
    /// Rows of activations.
    n_rows: usize,
    columns: Range<usize>,
    bias: Option<&'a [f32]>,
}

impl Part<'_> {
    fn quantized<P: Planes>(&self, x: &QuantizedRows, own: &mut Own, y: &mut Columns<'_>) {
        let mut rows = QuantizedWeights::<P>::new(self.weights, x, &mut own.scales);
        self.fill(&mut rows, y);
    }

    /// Weight rows outside, activations inside: the weights, by far the larger, are read from memory once.
    fn fill(&self, rows: &mut impl RowProducts, y: &mut Columns<'_>) {
        let (n_rows, Range { start, end }) = (self.n_rows, self.columns.clone());
        for run in (start..end).step_by(RUN) {
            let run = run..end.min(run + RUN);
            rows.prepare(run.clone());
            for group in row_groups(n_rows) {
                match group.len() {
                    8 => self.tile::<8>(rows, run.clone(), group.start, y),
                    4 => self.tile::<4>(rows, run.clone(), group.start, y),
                    2 => self.tile::<2>(rows, run.clone(), group.start, y),
                    _ => self.tile::<1>(rows, run.clone(), group.start, y),
                }
            }
        }
    }

    /// Some outputs of `R` rows from `first` on. Written a row at a time: single values, rows apart, would miss the cache.
    #[inline(never)]
    fn tile<const R: usize>(
        &self,
        rows: &impl RowProducts,
        run: Range<usize>,
        first: usize,
        y: &mut Columns<'_>,
    ) {
        let mut tile = [[0.0; RUN]; R];
        for (i, output) in run.clone().enumerate() {
            let bias = self.bias.map_or(0.0, |bias| bias[output]);
            let products = rows.products::<R>(output, first);
            for (tile, product) in tile.iter_mut().zip(products) {
                tile[i] = product + bias;
            }
        }
        for (row, tile) in (first..).zip(&tile) {
            y.row(row)[run.start - self.columns.start..][..run.len()]
                .copy_from_slice(&tile[..run.len()]);
        }
    }
}

/// Quantised weights with activations rounded to 16 bits.
struct QuantizedWeights<'a, P> {
    weights: PackedRows<'a>,
    x: &'a QuantizedRows,
    scales: &'a mut Scales,
    /// The first row of which `scales` holds the scales.
    start: usize,
    /// The factor of scales that stand in for minima.
    minus_zero: f32,
    planes: PhantomData<P>,
}

impl<'a, P> QuantizedWeights<'a, P> {
    fn new(weights: PackedRows<'a>, x: &'a QuantizedRows, scales: &'a mut Scales) -> Self {
        Self {
            weights,
            x,
            scales,
            start: 0,
            minus_zero: -(weights.layout.format.zero() as f32),
            planes: PhantomData,
        }
    }
}

impl<P: Planes> RowProducts for QuantizedWeights<'_, P> {
    fn prepare(&mut self, outputs: Range<usize>) {
        self.start = outputs.start;
        self.weights.decode_scales(outputs, self.scales);
    }

    /// Per block of 32 columns, in order, `sum += (four integer sums) * (scale * activation scale)`; then [`add_offsets`].
    #[inline(always)]
    fn products<const R: usize>(&self, output: usize, first: usize) -> [f32; R] {
        let row = self.weights.row(output);
        let low: &[P::Low] = bytemuck::cast_slice(row.low);
        let scales = self.scales.scales(output - self.start);
        let x = self.x.group::<R>(first);

        let mut sums = [F32x4::splat(0.0); R];
        for (b, (((low, scales), quanta), x_scales)) in low
            .iter()
            .zip(scales.chunks_exact(BLOCK / P::GROUP))
            .zip(x.quanta)
            .zip(x.scales)
            .enumerate()
        {
            let weights = P::unpack(low, &row.high[b * P::HIGH_WORDS..]);
            for ((sum, quanta), x_scale) in sums.iter_mut().zip(quanta).zip(x_scales) {
                *sum = *sum + block_product::<P>(weights, scales, quanta, *x_scale);
            }
        }
        if P::SIGNED {
            return F32x4::sum_each(sums);
        }
        let n_groups = low.len() * (BLOCK / P::GROUP);
        let (offsets, factor) = self
            .scales
            .mins(output - self.start)
            .map_or((scales, self.minus_zero), |mins| (mins, 1.0));
        let x_sums = if P::GROUP == BLOCK {
            x.block_sums
        } else {
            x.group_sums
        };
        let x_sums = x_sums.map(|x_sums| &x_sums[..n_groups]);
        add_offsets(sums, &offsets[..n_groups], factor, x_sums)
    }
}

/// `sum of the lanes of (sum + factor * B)` for each row, where the lanes of `B` are the products of offsets and activation sums, taken in
/// turns. Those past the last whole four are added in the end, one by one.
///
/// Offsets are minima, with factor 1, or else scales, with factor minus the zero point: `x·(s (q - z)) = s (x·q) - z (s sum x)`.
#[inline(always)]
fn add_offsets<const R: usize>(
    mut sums: [F32x4; R],
    offsets: &[f32],
    factor: f32,
    x_sums: [&[f32]; R],
) -> [f32; R] {
    let (fours, rest) = offsets.as_chunks::<4>();
    let x_sums = x_sums.map(|x_sums| x_sums.as_chunks::<4>());
    let mut products = [F32x4::splat(0.0); R];
    for (i, offsets) in fours.iter().enumerate() {
        let offsets = F32x4::load(offsets);
        for (product, (x_sums, _)) in products.iter_mut().zip(x_sums) {
            *product = *product + offsets * F32x4::load(&x_sums[i]);
        }
    }
    for (sum, product) in sums.iter_mut().zip(products) {
        *sum = *sum + F32x4::splat(factor) * product;
    }
    let mut sums = F32x4::sum_each(sums);
    for (sum, (_, x_rest)) in sums.iter_mut().zip(x_sums) {
        for (offset, x_sum) in rest.iter().zip(x_rest) {
            *sum += factor * offset * x_sum;
        }
    }
    sums
}

/// One block: integer sums of four interleaved sets of columns, scaled.
#[inline(always)]
fn block_product<P: Planes>(quanta: [I16x8; 4], scales: &[f32], x: &Quanta, x_scale: f32) -> F32x4 {
    let [q0, q1, q2, q3] = quanta;
    let first = q0.dot(I16x8::load(&x.0[0])) + q1.dot(I16x8::load(&x.0[1]));
    let second = q2.dot(I16x8::load(&x.0[2])) + q3.dot(I16x8::load(&x.0[3]));
    if P::GROUP == BLOCK {
        (first + second).to_f32() * F32x4::splat(scales[0] * x_scale)
    } else {
        first.to_f32() * F32x4::splat(scales[0] * x_scale)
            + second.to_f32() * F32x4::splat(scales[1] * x_scale)
    }
}
