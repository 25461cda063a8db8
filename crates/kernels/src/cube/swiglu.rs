//! The gate of SwiGLU, `y = gate / (1 + exp(-gate)) * up`, one element per invocation.
//!
//! - `x`: `[rows, 2 * width]` f32, each row the gate and then what it gates
//! - `y`: `[rows, width]` f32

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{output, plain_grid};

pub(super) fn launch(x: CubeTensor) -> CubeTensor {
    let (n_rows, width) = (x.meta.shape()[0], x.meta.shape()[1] / 2);
    let y = output([n_rows, width], &x);
    let n_units = n_rows * width;
    let (count, dim) = plain_grid(n_units);
    let client = x.client.clone();
    // SAFETY: units past `n_units` return.
    unsafe {
        swiglu::launch_unchecked(
            &client,
            count,
            dim,
            x.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            n_units as u32,
            width as u32,
        );
    }
    y
}

#[cube(launch_unchecked)]
fn swiglu(x: &[f32], y: &mut [f32], n_units: u32, width: u32) {
    if ABSOLUTE_POS < n_units as usize {
        let width = width as usize;
        let gate = ABSOLUTE_POS / width * 2 * width + ABSOLUTE_POS % width;
        y[ABSOLUTE_POS] = gated(x[gate], x[gate + width]);
    }
}

/// `silu(gate) * up`.
#[cube]
pub(super) fn gated(gate: f32, up: f32) -> f32 {
    // exp(87) is the last that does not overflow, which WGSL would leave undefined; the quotient is 0 in f32 long before.
    let decay = min(-gate, f32::new(87.0)).exp();
    gate / (1.0 + decay) * up
}
