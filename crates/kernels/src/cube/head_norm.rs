//! Root-mean-square norm of single heads, in place: `y = x / sqrt(mean(x^2) + epsilon) * weight`.
//!
//! - `x`: `[rows, width]` f32, of which each row begins with the heads
//! - `weight`, `kv_weight`: `[head_dim]` f32
//!
//! One invocation has one head: heads are short, and a barrier would cost more than it saves.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::plain_grid;
use crate::HeadNormParams;

/// What the kernel is compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct HeadNormSpec {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    width: usize,
}

pub(super) fn launch(
    x: &CubeTensor,
    weight: CubeTensor,
    kv_weight: CubeTensor,
    params: HeadNormParams,
) {
    let (n_rows, width) = (x.meta.shape()[0], x.meta.shape()[1]);
    let spec = HeadNormSpec {
        n_heads: params.n_heads,
        n_kv_heads: params.n_kv_heads,
        head_dim: weight.meta.shape()[0],
        width,
    };
    let n_units = n_rows * (spec.n_heads + spec.n_kv_heads);
    let (count, dim) = plain_grid(n_units);
    // SAFETY: units past `n_units` return, and the caller has checked that rows hold the heads.
    unsafe {
        head_norm::launch_unchecked(
            &x.client,
            count,
            dim,
            x.clone().into_buffer_arg(),
            weight.into_buffer_arg(),
            kv_weight.into_buffer_arg(),
            n_units as u32,
            params.epsilon,
            spec,
        );
    }
}

#[cube(launch_unchecked)]
fn head_norm(
    x: &mut [f32],
    weight: &[f32],
    kv_weight: &[f32],
    n_units: u32,
    epsilon: f32,
    #[comptime] spec: HeadNormSpec,
) {
    let (n_heads, head_dim) = comptime!((spec.n_heads, spec.head_dim));
    let heads = comptime!(spec.n_heads + spec.n_kv_heads);
    if ABSOLUTE_POS < n_units as usize {
        let head = ABSOLUTE_POS % heads;
        let start = ABSOLUTE_POS / heads * spec.width + head * head_dim;
        let mut sum = f32::new(0.0);
        for i in 0..head_dim {
            sum += x[start + i] * x[start + i];
        }
        let factor = 1.0 / (sum / comptime!(head_dim as f32) + epsilon).sqrt();
        for i in 0..head_dim {
            let weight = select(head < n_heads, weight[i], kv_weight[i]);
            x[start + i] = x[start + i] * factor * weight;
        }
    }
}
