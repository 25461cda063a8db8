//! Product with packed weights, `y = x w^T + bias`.
//!
//! - `x`: `[rows, n_cols]` f32, read as vectors of 4
//! - `w`: packed `[n_rows, n_cols]` in tiles of 32 rows
//! - `y`: `[rows, n_rows]` f32
//!
//! A workgroup has 32 outputs, one per invocation along x, so that neighbours read neighbouring words. Along y, `lanes` invocations
//! share an output: lane `l` takes the blocks `l, l + lanes, …` of 32 columns, and the partial sums meet in shared memory behind one
//! barrier. Each invocation unpacks a block once and uses it for up to `rows_per_unit` rows of `x`.
//!
//! The same kernel serves one row and many, and a row's sum is formed in the same order wherever it stands, so that a token's logits do
//! not depend on what is batched with it.

use burn_cubecl::tensor::CubeTensor;
use cinderlm_weights::PackedLayout;
use cinderlm_weights::packed::{BLOCK, TILE_ROWS};
use cubecl::prelude::*;

use super::unpack::{packed_row, unpack_block};
use super::{grid_index, lane_of, output, spread};
use crate::Profile;

/// What the kernel is compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct LinearSpec {
    layout: PackedLayout,
    lanes: usize,
    rows_per_unit: usize,
}

pub(super) fn launch(
    x: CubeTensor,
    words: CubeTensor,
    bias: Option<CubeTensor>,
    layout: PackedLayout,
    profile: Profile,
) -> CubeTensor {
    let n_x = x.meta.shape()[0];
    let y = output([n_x, layout.n_rows], &x);
    let spec = LinearSpec {
        layout,
        lanes: profile.linear_lanes,
        // A software adapter runs masked rows too: a single row must not pay for a tile of them.
        rows_per_unit: profile.linear_rows.min(n_x.next_power_of_two()),
    };
    let (count_y, count_z) = spread(n_x.div_ceil(spec.rows_per_unit));
    let client = x.client.clone();
    // SAFETY: the layout was checked against the words when the matrix was made, its padded rows cover the grid along x, and rows of
    // `x` and `y` are guarded in the kernel.
    unsafe {
        linear::launch_unchecked(
            &client,
            CubeCount::Static((layout.padded_rows() / TILE_ROWS) as u32, count_y, count_z),
            CubeDim::new_2d(TILE_ROWS as u32, spec.lanes as u32),
            x.into_buffer_arg(),
            words.into_buffer_arg(),
            bias.map(CubeTensor::into_buffer_arg).into(),
            y.clone().into_buffer_arg(),
            n_x as u32,
            spec,
        );
    }
    y
}

#[cube(launch_unchecked)]
fn linear(
    x: &[Vector<f32, Const<4>>],
    words: &[u32],
    bias: ComptimeOption<&[f32]>,
    y: &mut [f32],
    n_x: u32,
    #[comptime] spec: LinearSpec,
) {
    let (lanes, rows) = comptime!((spec.lanes, spec.rows_per_unit));
    let (n_rows, n_cols) = comptime!((spec.layout.n_rows, spec.layout.n_cols));
    let unit = UNIT_POS_X as usize;
    let lane = lane_of(UNIT_POS_Y, lanes);
    let out = CUBE_POS_X as usize * TILE_ROWS + unit;
    let first = grid_index() * rows;
    let n_x = n_x as usize;

    let mut sums = Array::<f32>::new(rows);
    #[unroll]
    for m in 0..rows {
        sums[m] = f32::new(0.0);
    }
    let weights = packed_row(out, spec.layout);
    for block in range_stepped(lane, comptime!(n_cols / BLOCK), lanes) {
        let values = unpack_block(words, &weights, block, spec.layout);
        #[unroll]
        for m in 0..rows {
            if first + m < n_x {
                sums[m] += block_dot(x, ((first + m) * n_cols + block * BLOCK) / 4, &values);
            }
        }
    }

    let bias: ComptimeOption<f32> = bias.map(|bias| bias[select(out < n_rows, out, 0usize)]);
    let bias = bias.unwrap_or_else(|| f32::new(0.0));
    if comptime!(lanes == 1) {
        #[unroll]
        for m in 0..rows {
            if first + m < n_x && out < n_rows {
                y[(first + m) * n_rows + out] = sums[m] + bias;
            }
        }
    } else {
        let mut partial = Shared::<[f32]>::new_slice(comptime!(rows * lanes * TILE_ROWS));
        #[unroll]
        for m in 0..rows {
            partial[(m * lanes + lane) * TILE_ROWS + unit] = sums[m];
        }
        sync_cube();
        for m in range_stepped(lane, rows, lanes) {
            if first + m < n_x && out < n_rows {
                let mut sum = f32::new(0.0);
                #[unroll]
                for l in 0..lanes {
                    sum += partial[(m * lanes + l) * TILE_ROWS + unit];
                }
                y[(first + m) * n_rows + out] = sum + bias;
            }
        }
    }
}

/// One block of weights times the 32 activations from vector `start` on, in four chains of additions.
#[cube]
fn block_dot(x: &[Vector<f32, Const<4>>], start: usize, values: &Sequence<f32>) -> f32 {
    let mut a = f32::new(0.0);
    let mut b = f32::new(0.0);
    let mut c = f32::new(0.0);
    let mut d = f32::new(0.0);
    #[unroll]
    for v in 0..comptime!(BLOCK / 4) {
        let xs = x[start + v];
        a += *values.index(comptime!(4 * v)) * xs.extract(0usize);
        b += *values.index(comptime!(4 * v + 1)) * xs.extract(1usize);
        c += *values.index(comptime!(4 * v + 2)) * xs.extract(2usize);
        d += *values.index(comptime!(4 * v + 3)) * xs.extract(3usize);
    }
    (a + b) + (c + d)
}
