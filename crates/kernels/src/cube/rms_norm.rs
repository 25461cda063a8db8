//! Root-mean-square norm of rows, `y = x / sqrt(mean(x^2) + epsilon) * weight`.
//!
//! - `x`, `y`: `[rows, width]` f32
//! - `weight`: `[width]` f32
//!
//! `lanes` invocations share a row: each adds up the squares of its elements, and behind one barrier each adds up all the partial
//! sums, in the same order. That reads shared memory `lanes` times where a tree would need `log2(lanes)` barriers, which cost more.
//! With one lane, which needs no barrier, a workgroup takes several rows.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{grid_index, lane_of, output, spread};
use crate::Profile;

/// Rows of a workgroup where each row has one lane: the vector width of software adapters.
const ROWS_OF_ONE_LANE: usize = 4;

/// What the kernel is compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct NormSpec {
    width: usize,
    lanes: usize,
}

pub(super) fn launch(
    x: CubeTensor,
    weight: CubeTensor,
    epsilon: f32,
    profile: Profile,
) -> CubeTensor {
    let (n_rows, width) = (x.meta.shape()[0], x.meta.shape()[1]);
    let y = output([n_rows, width], &x);
    let spec = NormSpec {
        width,
        lanes: profile.norm_lanes,
    };
    let rows_per_cube = if spec.lanes == 1 { ROWS_OF_ONE_LANE } else { 1 };
    let (count_y, count_z) = spread(n_rows.div_ceil(rows_per_cube));
    let client = x.client.clone();
    // SAFETY: rows are guarded in the kernel, and `weight` has `width` values.
    unsafe {
        rms_norm::launch_unchecked(
            &client,
            CubeCount::Static(1, count_y, count_z),
            CubeDim::new_2d(spec.lanes as u32, rows_per_cube as u32),
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            n_rows as u32,
            epsilon,
            spec,
        );
    }
    y
}

#[cube(launch_unchecked)]
fn rms_norm(
    x: &[f32],
    weight: &[f32],
    y: &mut [f32],
    n_rows: u32,
    epsilon: f32,
    #[comptime] spec: NormSpec,
) {
    let (width, lanes) = comptime!((spec.width, spec.lanes));
    let lane = lane_of(UNIT_POS_X, lanes);
    let row = grid_index() * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    let present = row < n_rows as usize;
    let start = row * width;

    let mut sum = f32::new(0.0);
    if present {
        for i in range_stepped(lane, width, lanes) {
            let value = x[start + i];
            sum += value * value;
        }
    }
    if comptime!(lanes > 1) {
        let mut partial = Shared::<[f32]>::new_slice(lanes);
        partial[lane] = sum;
        sync_cube();
        sum = f32::new(0.0);
        for l in 0..lanes {
            sum += partial[l];
        }
    }
    if present {
        let factor = 1.0 / (sum / comptime!(width as f32) + epsilon).sqrt();
        for i in range_stepped(lane, width, lanes) {
            y[start + i] = x[start + i] * factor * weight[i];
        }
    }
}
