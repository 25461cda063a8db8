//! Embedding, `y[i] = table[token[i]]`: one invocation unpacks one block of 32 values.
//!
//! - `table`: packed `[vocabulary, width]` in tiles of 32 rows
//! - `step`: the step's words, see [`Step`](crate::Step)
//! - `y`: `[rows, width]` f32

use burn_cubecl::tensor::CubeTensor;
use cinderlm_weights::PackedLayout;
use cinderlm_weights::packed::BLOCK;
use cubecl::prelude::*;

use super::unpack::{packed_row, unpack_block};
use super::{output, plain_grid};
use crate::step::ROW_WORDS;

pub(super) fn launch(
    words: CubeTensor,
    step: CubeTensor,
    n_rows: usize,
    layout: PackedLayout,
) -> CubeTensor {
    let y = output([n_rows, layout.n_cols], &words);
    let n_units = n_rows * (layout.n_cols / BLOCK);
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
            layout,
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
    #[comptime] layout: PackedLayout,
) {
    let blocks = comptime!(layout.n_cols / BLOCK);
    if ABSOLUTE_POS < n_units as usize {
        let row = ABSOLUTE_POS / blocks;
        let block = ABSOLUTE_POS % blocks;
        let token = step[row * ROW_WORDS] as usize;
        let values = unpack_block(words, &packed_row(token, layout), block, layout);
        #[unroll]
        for i in 0..BLOCK {
            y[ABSOLUTE_POS * BLOCK + i] = *values.index(i);
        }
    }
}
