//! Weights stored as floats: products in f32 throughout.

use std::marker::PhantomData;
use std::ops::Range;

use super::linear::{RUN, RowProducts};
use super::packed_rows::PackedRows;
use super::scales::pairs_to_f32;
use super::simd::{F32x4, I32x4};

/// Values that are unpacked together.
const STRIP: usize = 16;

/// A float encoding.
pub(super) trait Floats {
    /// The words of sixteen values.
    type Words: bytemuck::Pod;

    /// Sixteen values in the order of the columns.
    fn unpack(words: &Self::Words) -> [F32x4; 4];
}

/// IEEE singles, one a word.
pub(super) struct F32;
/// IEEE halves, two a word.
pub(super) struct F16;
/// Upper halves of IEEE singles, two a word.
pub(super) struct BF16;

impl Floats for F32 {
    type Words = [[u32; 4]; 4];

    #[inline(always)]
    fn unpack(words: &Self::Words) -> [F32x4; 4] {
        words
            .each_ref()
            .map(|words| I32x4::load(words).bits_to_f32())
    }
}

impl Floats for F16 {
    type Words = [[u32; 4]; 2];

    #[inline(always)]
    fn unpack(words: &Self::Words) -> [F32x4; 4] {
        let [[a, b], [c, d]] = words.each_ref().map(|words| {
            let [even, odd] = pairs_to_f32(words);
            even.zip(odd)
        });
        [a, b, c, d]
    }
}

impl Floats for BF16 {
    type Words = [[u32; 4]; 2];

    #[inline(always)]
    fn unpack(words: &Self::Words) -> [F32x4; 4] {
        let [[a, b], [c, d]] = words.each_ref().map(I32x4::load_halves);
        [a, b, c, d].map(|halves| halves.shl::<16>().bits_to_f32())
    }
}

/// Unpacks one row in strips of sixteen, the last one filled up with zeros.
#[inline(always)]
pub(super) fn for_each_strip<F: Floats>(row: &[u32], mut visit: impl FnMut(usize, [F32x4; 4])) {
    let words_per_strip = size_of::<F::Words>() / 4;
    let whole = row.len() / words_per_strip;
    let (strips, rest) = row.split_at(whole * words_per_strip);
    for (s, words) in bytemuck::cast_slice::<u32, F::Words>(strips)
        .iter()
        .enumerate()
    {
        visit(s, F::unpack(words));
    }
    if !rest.is_empty() {
        let mut padded = [0; STRIP];
        padded[..rest.len()].copy_from_slice(rest);
        visit(
            whole,
            F::unpack(&bytemuck::cast_slice::<u32, F::Words>(&padded)[0]),
        );
    }
}

/// Float weights with activations as they are.
pub(super) struct FloatRows<'a, F> {
    weights: &'a PackedRows<'a>,
    x: &'a [f32],
    run: Range<usize>,
    format: PhantomData<F>,
}

impl<'a, F> FloatRows<'a, F> {
    pub(super) fn new(weights: &'a PackedRows<'a>, x: &'a [f32]) -> Self {
        Self {
            weights,
            x,
            run: 0..0,
            format: PhantomData,
        }
    }
}

impl<F: Floats> RowProducts for FloatRows<'_, F> {
    fn prepare(&mut self, outputs: Range<usize>) {
        self.run = outputs;
    }

    #[inline(always)]
    fn fill_tile<const R: usize>(&self, first: usize, tile: &mut [[f32; RUN]; R]) {
        for (i, output) in self.run.clone().enumerate() {
            for (tile, product) in tile.iter_mut().zip(self.products::<R>(output, first)) {
                tile[i] = product;
            }
        }
    }
}

impl<F: Floats> FloatRows<'_, F> {
    /// Products are added up in four vectors, vector `v` taking columns `4 v..4 v + 4` of each sixteen, then `(v0 + v1) + (v2 + v3)` and
    /// its lanes in pairs.
    #[inline(never)]
    fn products<const R: usize>(&self, output: usize, first: usize) -> [f32; R] {
        let n_cols = self.weights.layout.n_cols;
        let x: [&[f32]; R] = std::array::from_fn(|r| &self.x[(first + r) * n_cols..][..n_cols]);
        let mut sums = [[F32x4::splat(0.0); 4]; R];
        for_each_strip::<F>(self.weights.row(output).low, |s, weights| {
            for (sums, x) in sums.iter_mut().zip(x) {
                let x = strip_of(x, s);
                for ((sum, weights), x) in sums.iter_mut().zip(weights).zip(x) {
                    *sum = *sum + weights * x;
                }
            }
        });
        sums.map(|[a, b, c, d]| ((a + b) + (c + d)).sum())
    }
}

/// Values `16 s..16 s + 16`, zeros past the end.
#[inline(always)]
fn strip_of(x: &[f32], s: usize) -> [F32x4; 4] {
    let rest = &x[STRIP * s..];
    let load = |values: &[f32; STRIP]| {
        let (lanes, _) = values.as_chunks::<4>();
        [0, 1, 2, 3].map(|i| F32x4::load(&lanes[i]))
    };
    rest.first_chunk().map(load).unwrap_or_else(|| {
        let mut padded = [0.0; STRIP];
        padded[..rest.len()].copy_from_slice(rest);
        load(&padded)
    })
}
