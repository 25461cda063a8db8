//! Product with packed weights, `y = x w^T + bias`.
//!
//! - `x`: `[rows, n_cols]` f32, read as vectors of 4
//! - `w`: packed `[n_rows, n_cols]` in tiles of 32 rows
//! - `y`: `[rows, n_rows]` f32
//!
//! An invocation forms `tiles_per_unit` outputs, 32 apart, of `rows_per_unit` rows: each weight it unpacks serves all its rows and each
//! activation it reads all its outputs. Its 32 neighbours along x have the neighbouring outputs, so that they read neighbouring words.
//! Along y, `lanes` invocations share outputs: lane `l` takes the blocks `l, l + lanes, …` of 32 columns, and the partial sums meet in
//! shared memory behind one barrier.
//!
//! A row's sums are formed in the same order wherever it stands and however many rows there are, so that a token's logits do not depend
//! on what is batched with it.

use burn_cubecl::tensor::CubeTensor;
use cinderlm_weights::packed::{BLOCK, TILE_ROWS};
use cinderlm_weights::{PackedFormat, PackedLayout};
use cubecl::prelude::*;

use super::unpack::{
    PackedRow, PackedShape, QUAD, Scale, has_scale_per_block, packed_row, packed_shape, quad_value,
    read_quad, read_scale,
};
use super::{grid_index, lane_of, output, spread};
use crate::Profile;

/// What the kernel is compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct LinearSpec {
    format: PackedFormat,
    lanes: usize,
    rows_per_unit: usize,
    tiles_per_unit: usize,
}

impl LinearSpec {
    /// Whether a block's loops are unrolled, which lets a GPU load ahead. A software adapter gains nothing from it, and its compiler takes
    /// tens of megabytes for a tile of 16 outputs.
    fn is_unrolled(&self) -> bool {
        self.rows_per_unit * self.tiles_per_unit == 1
    }
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
        format: layout.format,
        lanes: profile.linear_lanes,
        // A software adapter runs masked rows too: a single row must not pay for a tile of them.
        rows_per_unit: profile.linear_rows.min(n_x.next_power_of_two()),
        tiles_per_unit: profile.linear_tiles,
    };
    let (count_y, count_z) = spread(n_x.div_ceil(spec.rows_per_unit));
    let n_tiles = layout.n_rows.div_ceil(TILE_ROWS);
    let client = x.client.clone();
    // SAFETY: the layout was checked against the words when the matrix was made, its padded rows cover the grid along x, and rows of
    // `x` and `y` are guarded in the kernel.
    unsafe {
        linear::launch_unchecked(
            &client,
            CubeCount::Static(
                n_tiles.div_ceil(spec.tiles_per_unit) as u32,
                count_y,
                count_z,
            ),
            CubeDim::new_2d(TILE_ROWS as u32, spec.lanes as u32),
            x.into_buffer_arg(),
            words.into_buffer_arg(),
            bias.map(CubeTensor::into_buffer_arg).into(),
            y.clone().into_buffer_arg(),
            n_x as u32,
            packed_shape(&layout),
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
    shape: PackedShape,
    #[comptime] spec: LinearSpec,
) {
    let (lanes, rows, tiles) = comptime!((spec.lanes, spec.rows_per_unit, spec.tiles_per_unit));
    let format = comptime!(spec.format);
    let (n_rows, n_blocks) = (shape.n_rows as usize, shape.n_blocks as usize);
    let unit = UNIT_POS_X as usize;
    let lane = lane_of(UNIT_POS_Y, lanes);
    let first_tile = CUBE_POS_X as usize * tiles;
    let first_row = grid_index() * rows;
    let n_x = n_x as usize;

    // Rows and tiles past the last repeat it, which costs less than asking in the loop, and are not written.
    let mut starts = Sequence::<usize>::new();
    #[unroll]
    for m in 0..rows {
        starts.push(min(first_row + m, n_x - 1) * n_blocks * comptime!(BLOCK / QUAD));
    }
    let mut weights = Sequence::<PackedRow>::new();
    #[unroll]
    for t in 0..tiles {
        let tile = min(first_tile + t, (n_rows - 1) / TILE_ROWS);
        weights.push(packed_row(tile * TILE_ROWS + unit, &shape));
    }
    let mut sums = Array::<f32>::new(comptime!(rows * tiles));
    #[unroll]
    for i in 0..comptime!(rows * tiles) {
        sums[i] = f32::new(0.0);
    }
    for block in range_stepped(lane, n_blocks, lanes) {
        let mut block_scales = Sequence::<Scale>::new();
        if comptime!(has_scale_per_block(format)) {
            #[unroll]
            for t in 0..tiles {
                block_scales.push(read_scale(words, weights.index(t), block, 0usize, format));
            }
        }
        #[unroll(spec.is_unrolled())]
        for half in 0..2usize {
            let mut scales = Sequence::<Scale>::new();
            #[unroll]
            for t in 0..tiles {
                if comptime!(has_scale_per_block(format)) {
                    let of_block = block_scales.index(t);
                    scales.push(Scale {
                        scale: of_block.scale,
                        offset: of_block.offset,
                    });
                } else {
                    scales.push(read_scale(words, weights.index(t), block, half, format));
                }
            }
            #[unroll(spec.is_unrolled())]
            for v in 0..comptime!(BLOCK / QUAD / 2) {
                let quad = half * comptime!(BLOCK / QUAD / 2) + v;
                let mut xs = Sequence::<Vector<f32, Const<4>>>::new();
                #[unroll]
                for m in 0..rows {
                    xs.push(x[*starts.index(m) + block * comptime!(BLOCK / QUAD) + quad]);
                }
                #[unroll]
                for t in 0..tiles {
                    let packed = read_quad(words, weights.index(t), block, quad, format);
                    let scale = scales.index(t);
                    let w0 = quad_value(&packed, scale, 0usize, format);
                    let w1 = quad_value(&packed, scale, 1usize, format);
                    let w2 = quad_value(&packed, scale, 2usize, format);
                    let w3 = quad_value(&packed, scale, 3usize, format);
                    #[unroll]
                    for m in 0..rows {
                        let x = *xs.index(m);
                        sums[t * rows + m] += (w0 * x.extract(0usize) + w1 * x.extract(1usize))
                            + (w2 * x.extract(2usize) + w3 * x.extract(3usize));
                    }
                }
            }
        }
    }

    #[unroll]
    for t in 0..tiles {
        let out = (first_tile + t) * TILE_ROWS + unit;
        let bias: ComptimeOption<f32> = bias.map(|bias| bias[min(out, n_rows - 1)]);
        let bias = bias.unwrap_or_else(|| f32::new(0.0));
        if comptime!(lanes == 1) {
            #[unroll]
            for m in 0..rows {
                if first_row + m < n_x && out < n_rows {
                    y[(first_row + m) * n_rows + out] = sums[t * rows + m] + bias;
                }
            }
        } else {
            let mut partial = Shared::<[f32]>::new_slice(comptime!(rows * lanes * TILE_ROWS));
            #[unroll]
            for m in 0..rows {
                partial[(m * lanes + lane) * TILE_ROWS + unit] = sums[t * rows + m];
            }
            sync_cube();
            for m in range_stepped(lane, rows, lanes) {
                if first_row + m < n_x && out < n_rows {
                    let mut sum = f32::new(0.0);
                    #[unroll]
                    for l in 0..lanes {
                        sum += partial[(m * lanes + l) * TILE_ROWS + unit];
                    }
                    y[(first_row + m) * n_rows + out] = sum + bias;
                }
            }
        }
    }
}
