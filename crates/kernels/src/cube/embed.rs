//! Embedding, `y[i] = table[token[i]]`: one invocation unpacks one block of 32 values.
//!
//! - `table`: packed `[vocabulary, width]` in tiles of 32 rows
//! - `step`: the step's words, see [`Step`](crate::Step)
//! - `y`: `[rows, width]` f32

use burn_cubecl::tensor::CubeTensor;
use cinderlm_weights::packed::BLOCK;
use cinderlm_weights::{PackedFormat, PackedLayout};
use cubecl::prelude::*;

use super::unpack::{
    PackedShape, QUAD, packed_row, packed_shape, quad_value, read_quad, read_scale,
};
use super::{output, plain_grid};
use crate::step::ROW_WORDS;

pub(super) fn launch(
    words: CubeTensor,
    step: CubeTensor,
    n_rows: usize,
    layout: PackedLayout,
) -> CubeTensor {
    let y = output([n_rows, layout.n_cols], &words);
    let n_units = n_rows * (layout.n_cols / QUAD);
    let (count, dim) = plain_grid(n_units);
    let client = words.client.clone();
    // SAFETY: units past `n_units` return, and the caller of `Step::new` vouches for its tokens.
    unsafe {
        embed::launch_unchecked(
            &client,
            count,
            dim,
            words.into_buffer_arg(),
            step.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            n_units as u32,
            packed_shape(&layout),
            layout.format,
        );
    }
    y
}

#[cube(launch_unchecked)]
fn embed(
    words: &[u32],
    step: &[u32],
    y: &mut [f32],
    n_units: u32,
    shape: PackedShape,
    #[comptime] format: PackedFormat,
) {
    let quads_per_block = comptime!(BLOCK / QUAD);
    let quads = quads_per_block * shape.n_blocks as usize;
    if ABSOLUTE_POS < n_units as usize {
        let token = step[ABSOLUTE_POS / quads * ROW_WORDS] as usize;
        let row = packed_row(token, &shape);
        let block = ABSOLUTE_POS % quads / quads_per_block;
        let quad = ABSOLUTE_POS % quads_per_block;
        let half = quad / comptime!(BLOCK / QUAD / 2);
        let scale = read_scale(words, &row, block, half, format);
        let values = read_quad(words, &row, block, quad, format);
        #[unroll]
        for i in 0..QUAD {
            y[ABSOLUTE_POS * QUAD + i] = quad_value(&values, &scale, i, format);
        }
    }
}
