//! The gate of SwiGLU, `y = gate / (1 + exp(-gate)) * up`, one element per invocation.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{output, plain_grid};

pub(super) fn launch(gate: CubeTensor, up: CubeTensor) -> CubeTensor {
    let (n_rows, width) = (gate.meta.shape()[0], gate.meta.shape()[1]);
    let y = output([n_rows, width], &gate);
    let n_units = n_rows * width;
    let (count, dim) = plain_grid(n_units);
    let client = gate.client.clone();
    // SAFETY: units past `n_units` return; the operands' shapes are the same.
    unsafe {
        swiglu::launch_unchecked(
            &client,
            count,
            dim,
            gate.into_buffer_arg(),
            up.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            n_units as u32,
        );
    }
    y
}

#[cube(launch_unchecked)]
fn swiglu(gate: &[f32], up: &[f32], y: &mut [f32], n_units: u32) {
    if ABSOLUTE_POS < n_units as usize {
        let x = gate[ABSOLUTE_POS];
        // exp(87) is the last that does not overflow, which WGSL would leave undefined; the quotient is 0 in f32 long before.
        let decay = min(-x, f32::new(87.0)).exp();
        y[ABSOLUTE_POS] = x / (1.0 + decay) * up[ABSOLUTE_POS];
    }
}
