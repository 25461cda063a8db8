//! Products of activations with packed weights.

use std::ops::Range;

use cinderlm_weights::{BlockType, PackedLayout, ScaleKind};

use super::activations::{QuantizedRows, row_groups};
use super::floats::{BF16, F16, F32, FloatRows};
use super::packed_rows::PackedRows;
use super::quantized::QuantizedWeights;
use super::scales::are_normal_halves;
use super::share::{self, Columns};
use super::swiglu::gate_in_place;
use super::unpack::{Bits2, Bits3, Bits4, Bits5, Bits6, Bits8, Planes};
use super::{Own, Scratch};

/// Weight rows whose scales are decoded together: few enough to stay in the nearest cache.
pub(super) const RUN: usize = 16;

/// A packed matrix `[n_rows, n_cols]` in row order.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// What the words mean.
    pub layout: &'a PackedLayout,
    /// The words.
    pub words: &'a [u32],
    /// Whether [`has_normal_scales`] said so: it then need not be asked at each use. `false` is never wrong.
    pub has_normal_scales: bool,
}

impl<'a> Matrix<'a> {
    /// A matrix of which nothing else is known.
    pub fn new(layout: &'a PackedLayout, words: &'a [u32]) -> Self {
        Self {
            layout,
            words,
            has_normal_scales: false,
        }
    }
}

/// Whether a format has one half for a scale and one for a minimum of each block, and no such half is zero, subnormal, infinite or NaN.
///
/// # Panics
/// The words do not fit the layout.
pub fn has_normal_scales(layout: &PackedLayout, words: &[u32]) -> bool {
    let weights = PackedRows::new(layout, words);
    layout.format.scale_kind() == ScaleKind::SingleMin
        && are_normal_halves(weights.scale_words(0..layout.n_rows))
}

/// `y = x Wᵀ + bias`.
///
/// # Shapes
/// - `x`: `[rows, n_cols]`
/// - `w`: `[n_rows, n_cols]`
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
    w: Matrix<'_>,
    bias: Option<&[f32]>,
    scratch: &mut Scratch,
    y: &mut [f32],
) {
    products(x, w, bias, scratch, y, w.layout.n_rows);
}

/// `y = silu(gate) * up`, where the rows of `W` are those of the gate and then as many for what it gates:
/// `[gate, up] = x Wᵀ + bias`, as [`linear`] gives them. The products, twice as wide as `y`, are nowhere as a whole.
///
/// # Shapes
/// - `y`: `[rows, n_rows / 2]`; else as in [`linear`]
///
/// # Panics
/// As [`linear`], and if `W` has no two halves.
pub fn gated_linear(
    x: &[f32],
    w: Matrix<'_>,
    bias: Option<&[f32]>,
    scratch: &mut Scratch,
    y: &mut [f32],
) {
    let width = w.layout.n_rows / 2;
    assert_eq!(w.layout.n_rows, 2 * width, "a gate and what it gates");
    products(x, w, bias, scratch, y, width);
}

/// `y` is as wide as `W` has rows, or half as wide and gated.
fn products(
    x: &[f32],
    w: Matrix<'_>,
    bias: Option<&[f32]>,
    scratch: &mut Scratch,
    y: &mut [f32],
    width: usize,
) {
    let layout = w.layout;
    let weights = &PackedRows::new(layout, w.words);
    let (n_cols, n_outputs, block_type) = (layout.n_cols, layout.n_rows, layout.format.block_type);
    assert!(width > 0, "a matrix without rows");
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
        x.len() / n_cols * width,
        "one output per row and weight row, or for two of them"
    );
    assert!(
        bias.is_none_or(|bias| bias.len() == n_outputs),
        "one bias per output"
    );

    let Scratch {
        activations, own, ..
    } = scratch;
    if layout.format.float_kind().is_none() {
        activations.quantize(x, n_cols, layout.format.scale_group());
    }
    let activations = &*activations;
    let n_rows = x.len() / n_cols;
    let run = |columns: Range<usize>, y: &mut Columns<'_>, own: &mut Own| {
        let part = Part {
            weights,
            n_rows,
            columns,
            width,
            bias,
            decodes_on_the_way: w.has_normal_scales && n_rows == 1,
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
    let n_parts = share::n_parts(width.div_ceil(RUN), x.len().saturating_mul(n_outputs));
    share::columns(n_parts, y, width, RUN, own, run);
}

/// Weight rows against several rows of activations.
pub(super) trait RowProducts {
    /// Makes ready for a run of weight rows, at most [`RUN`].
    fn prepare(&mut self, outputs: Range<usize>);

    /// The products of each of those with `R` rows of activations from `first` on, which are the same whatever `R` is: of row `r` with the `i`th in
    /// `tile[r][i]`.
    fn fill_tile<const R: usize>(&self, first: usize, tile: &mut [[f32; RUN]; R]);
}

/// Some outputs of all rows.
struct Part<'a> {
    weights: &'a PackedRows<'a>,
    /// Rows of activations.
    n_rows: usize,
    columns: Range<usize>,
    /// Outputs of a row in all: as many as there are weight rows, or half as many where one gates the other.
    width: usize,
    bias: Option<&'a [f32]>,
    /// Whether scales are decoded where they are used, by the only row of activations: memory is read onwards then, and nothing kept.
    decodes_on_the_way: bool,
}

impl Part<'_> {
    fn quantized<P: Planes>(&self, x: &QuantizedRows, own: &mut Own, y: &mut Columns<'_>) {
        let (scales, decodes_on_the_way) = (&mut own.scales, self.decodes_on_the_way);
        let mut rows = QuantizedWeights::<P>::new(self.weights, x, scales, decodes_on_the_way);
        self.fill(&mut rows, y);
    }

    fn fill(&self, rows: &mut impl RowProducts, y: &mut Columns<'_>) {
        self.fill_from(0, rows, y);
        if self.width < self.weights.layout.n_rows {
            self.fill_from(self.width, rows, y);
        }
    }

    /// The weight rows that belong to the columns, from `offset` on: those of another offset than 0 are gated by what the columns hold. Weight rows
    /// outside, activations inside: the weights, by far the larger, are read from memory once.
    fn fill_from(&self, offset: usize, rows: &mut impl RowProducts, y: &mut Columns<'_>) {
        let (n_rows, Range { start, end }) = (self.n_rows, self.columns.clone());
        for first in (start..end).step_by(RUN) {
            let run = Run {
                columns: first - start..end.min(first + RUN) - start,
                outputs: offset + first..offset + end.min(first + RUN),
                is_gated: offset > 0,
            };
            rows.prepare(run.outputs.clone());
            for group in row_groups(n_rows) {
                match group.len() {
                    8 => self.tile::<8>(rows, &run, group.start, y),
                    4 => self.tile::<4>(rows, &run, group.start, y),
                    _ => self.tile::<1>(rows, &run, group.start, y),
                }
            }
        }
    }

    /// Some outputs of `R` rows from `first` on. Written a row at a time: single values, rows apart, would miss the cache.
    #[inline(never)]
    fn tile<const R: usize>(
        &self,
        rows: &impl RowProducts,
        run: &Run,
        first: usize,
        y: &mut Columns<'_>,
    ) {
        let mut tile = [[0.0; RUN]; R];
        rows.fill_tile(first, &mut tile);
        if let Some(bias) = self.bias {
            for row in &mut tile {
                for (y, bias) in row.iter_mut().zip(&bias[run.outputs.clone()]) {
                    *y += bias;
                }
            }
        }
        for (row, tile) in (first..).zip(&tile) {
            let y = &mut y.row(row)[run.columns.clone()];
            if run.is_gated {
                gate_in_place(y, &tile[..y.len()]);
                continue;
            }
            match y.as_mut_array() {
                // Of known length it is a few stores, and no call out of WebAssembly.
                Some(y) => *y = *tile,
                None => y.copy_from_slice(&tile[..y.len()]),
            }
        }
    }
}

/// Weight rows that are taken together, at most [`RUN`].
struct Run {
    /// Where their products go, within a part's columns.
    columns: Range<usize>,
    outputs: Range<usize>,
    is_gated: bool,
}
