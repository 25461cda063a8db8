//! Drawn tokens put where the next step reads them.
//!
//! - `drawn`: `[rows, OUT_WORDS]` f32, as [`draw`](super::draw) gives it
//! - `step`: the step's words, see [`Step`](crate::Step)

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::plain_grid;
use crate::draw::OUT_WORDS;
use crate::step::ROW_WORDS;

pub(crate) fn launch(drawn: CubeTensor, step: CubeTensor) {
    let n_rows = drawn.meta.shape()[0];
    let (count, dim) = plain_grid(n_rows);
    // SAFETY: units past `n_rows` return, and the step has as many rows.
    unsafe {
        take_tokens::launch_unchecked(
            &drawn.client.clone(),
            count,
            dim,
            drawn.into_buffer_arg(),
            step.into_buffer_arg(),
            n_rows as u32,
        );
    }
}

#[cube(launch_unchecked)]
fn take_tokens(drawn: &[f32], step: &mut [u32], n_rows: u32) {
    if ABSOLUTE_POS < n_rows as usize {
        // No token is a negative number.
        step[ABSOLUTE_POS * ROW_WORDS] = max(drawn[ABSOLUTE_POS * OUT_WORDS], 0.0) as u32;
    }
}
