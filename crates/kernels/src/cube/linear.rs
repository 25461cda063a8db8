//! Product with packed weights and what stands around it, `y = gated(norm(x) w^T + bias) + residual`.
//!
//! - `x`: `[rows, n_cols]` f32, read as vectors of 4
//! - `w`: packed `[n_rows, n_cols]` in tiles of 32 rows
//! - `norm`: `[n_cols]` f32, the factors of a root-mean-square norm of `x`; `bias`: `[n_rows]` f32; `residual`: as `y`
//! - `y`: `[rows, width]` f32, of which `n_rows` columns (half as many if the outputs are gated) are written
//!
//! An invocation forms `tiles_per_unit` outputs, 32 apart, of `rows_per_unit` rows: each weight it unpacks serves all its rows and each
//! activation it reads all its outputs. Its 32 neighbours along x have the neighbouring outputs, so that they read neighbouring words.
//! Along y, `lanes` invocations, two or more, share outputs: lane `l` takes the blocks `l, l + lanes, …` of 32 columns, and the partial sums meet in
//! shared memory behind one barrier.
//!
//! With one lane another kernel does the same, [`linear_serial`](super::linear_serial).
//!
//! The norm costs no dispatch of its own: `sum(w x norm) / rms(x)` is the product with the normed row, and whoever adds up products reads all
//! of `x` for its squares. Gated outputs lie half a matrix apart; an invocation forms both of a pair.
//!
//! A row's sums are formed in the same order wherever it stands and however many rows there are, so that a token's logits do not depend
//! on what is batched with it.

use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cinderlm_weights::packed::{BLOCK, TILE_ROWS};
use cinderlm_weights::{PackedFormat, PackedLayout};
use cubecl::prelude::*;

use super::linear_serial::linear_serial;
use super::swiglu::gated;
use super::unpack::{
    PackedRow, PackedShape, QUAD, Scale, has_scale_per_block, packed_row, packed_shape, quad_value,
    read_quad, read_scale,
};
use super::{grid_index, output, spread};
use crate::{LinearOperands, LinearParams, Profile};

/// What the kernel is compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct LinearSpec {
    pub(super) format: PackedFormat,
    pub(super) lanes: usize,
    pub(super) rows_per_unit: usize,
    /// Outputs that an invocation forms, or with one lane has room for; of gated ones the first half and the second.
    pub(super) tiles_per_unit: usize,
    pub(super) has_norm: bool,
    pub(super) is_gated: bool,
}

impl LinearSpec {
    /// Whether a block's loops are unrolled, which lets a GPU load ahead.
    fn is_unrolled(&self) -> bool {
        self.rows_per_unit * self.tiles_per_unit == 1
    }

    /// Bytes of shared memory that a workgroup takes.
    fn shared_bytes(&self) -> usize {
        if self.lanes == 1 {
            return 0;
        }
        let sums = self.tiles_per_unit * self.rows_per_unit * self.lanes * TILE_ROWS;
        (sums + self.n_squares() * QUAD) * 4
    }

    /// Quads of squares in shared memory, which has at least one.
    fn n_squares(&self) -> usize {
        if self.has_norm {
            self.rows_per_unit * self.lanes
        } else {
            1
        }
    }

    /// Columns of the result that an invocation writes.
    fn tiles_out(&self) -> usize {
        if self.is_gated {
            self.tiles_per_unit / 2
        } else {
            self.tiles_per_unit
        }
    }
}

/// Writes the columns from `params.column` on of `into`, or of a new tensor.
pub(super) fn launch(
    operands: LinearOperands<CubeBackend>,
    layout: PackedLayout,
    params: LinearParams,
    profile: Profile,
) -> CubeTensor {
    let LinearOperands {
        x,
        words,
        norm,
        bias,
        residual,
        into,
    } = operands;
    let x = into_contiguous(x);
    let [norm, bias, residual] =
        [norm, bias, residual].map(|operand| operand.get().map(into_contiguous));
    let n_x = x.meta.shape()[0];
    let y = into
        .get()
        .unwrap_or_else(|| output([n_x, params.width], &x));
    let client = x.client.clone();
    let parts = if params.is_gated { 2 } else { 1 };
    let is_serial = profile.linear_lanes == 1;
    let tiles = profile.linear_tiles;
    let mut spec = LinearSpec {
        format: layout.format,
        lanes: profile.linear_lanes,
        // A software adapter runs masked rows too: a single row must not pay for a tile of them.
        rows_per_unit: profile.linear_rows.min(n_x.next_power_of_two()),
        tiles_per_unit: tiles.max(parts),
        has_norm: norm.is_some(),
        is_gated: params.is_gated,
    };
    let max_shared_bytes = client.properties().hardware.max_shared_memory_size;
    while spec.shared_bytes() > max_shared_bytes && spec.rows_per_unit > 1 {
        spec.rows_per_unit /= 2;
    }
    let n_groups = n_x.div_ceil(spec.rows_per_unit);
    let (count_y, count_z) = spread(n_groups);
    let n_out = layout.n_rows / parts;
    let n_tiles = n_out.div_ceil(TILE_ROWS);
    let tiles_out = if is_serial {
        let most = (n_tiles * n_groups).div_ceil(profile.linear_cubes);
        let most = most.clamp(1, spec.tiles_out());
        // As many for each, for those past the last are formed too.
        n_tiles.div_ceil(n_tiles.div_ceil(most))
    } else {
        spec.tiles_out()
    };
    let launch = if is_serial {
        linear_serial::launch_unchecked
    } else {
        linear::launch_unchecked
    };
    // SAFETY: the layout was checked against the words when the matrix was made, its padded rows cover the grid along x, rows of `x` and `y`
    // are guarded in the kernel, and the caller has checked the shapes of the others.
    unsafe {
        launch(
            &client,
            CubeCount::Static(n_tiles.div_ceil(tiles_out) as u32, count_y, count_z),
            CubeDim::new_2d(TILE_ROWS as u32, spec.lanes as u32),
            x.into_buffer_arg(),
            words.into_buffer_arg(),
            norm.map(CubeTensor::into_buffer_arg).into(),
            bias.map(CubeTensor::into_buffer_arg).into(),
            residual.map(CubeTensor::into_buffer_arg).into(),
            y.clone().into_buffer_arg(),
            OutputPlaceLaunch::new(
                n_x as u32,
                n_out as u32,
                params.width as u32,
                params.column as u32,
                tiles_out as u32,
            ),
            params.epsilon,
            packed_shape(&layout),
            spec,
        );
    }
    y
}

/// Where the results go.
#[derive(CubeType, CubeLaunch)]
pub(super) struct OutputPlace {
    /// Rows of `x` and `y`.
    pub(super) n_x: u32,
    /// Columns that are written.
    pub(super) n_out: u32,
    /// Columns of `y`.
    width: u32,
    /// The first that is written.
    column: u32,
    /// Outputs that an invocation forms, or pairs of them if they are gated.
    pub(super) tiles: u32,
}

#[cube(launch_unchecked)]
#[allow(
    clippy::too_many_arguments,
    reason = "the operands of one fused dispatch"
)]
#[allow(
    clippy::collapsible_if,
    reason = "one condition is known when the kernel is compiled, the other when it runs"
)]
fn linear(
    x: &[Vector<f32, Const<4>>],
    words: &[u32],
    norm: ComptimeOption<&[Vector<f32, Const<4>>]>,
    bias: ComptimeOption<&[f32]>,
    residual: ComptimeOption<&[f32]>,
    y: &mut [f32],
    place: OutputPlace,
    epsilon: f32,
    shape: PackedShape,
    #[comptime] spec: LinearSpec,
) {
    let (lanes, rows, tiles) = comptime!((spec.lanes, spec.rows_per_unit, spec.tiles_per_unit));
    let tiles_out = comptime!(spec.tiles_out());
    let format = comptime!(spec.format);
    let n_blocks = shape.n_blocks as usize;
    let (n_out, n_x) = (place.n_out as usize, place.n_x as usize);
    let unit = UNIT_POS_X as usize;
    let lane = UNIT_POS_Y as usize;
    let first_tile = CUBE_POS_X as usize * tiles_out;
    let first_row = grid_index() * rows;

    // Rows and tiles past the last repeat it, which costs less than asking in the loop, and are not written.
    let mut starts = Sequence::<usize>::new();
    #[unroll]
    for m in 0..rows {
        starts.push(min(first_row + m, n_x - 1) * n_blocks * comptime!(BLOCK / QUAD));
    }
    let mut weights = Sequence::<PackedRow>::new();
    #[unroll]
    for t in 0..tiles {
        // The second half of gated outputs begins with a tile.
        let tile = min(
            first_tile + comptime!(t % tiles_out),
            (n_out - 1) / TILE_ROWS,
        );
        let row = comptime!(t / tiles_out) * n_out + tile * TILE_ROWS + unit;
        weights.push(packed_row(row, &shape));
    }
    let mut sums = Array::<f32>::new(comptime!(rows * tiles));
    #[unroll]
    for i in 0..comptime!(rows * tiles) {
        sums[i] = f32::new(0.0);
    }
    let mut squares = Array::<Vector<f32, Const<4>>>::new(rows);
    #[unroll]
    for m in 0..rows {
        squares[m] = Vector::new(0.0);
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
                    let values = x[*starts.index(m) + block * comptime!(BLOCK / QUAD) + quad];
                    if comptime!(spec.has_norm) {
                        squares[m] += values * values;
                        let norm = norm.unwrap();
                        xs.push(values * norm[block * comptime!(BLOCK / QUAD) + quad]);
                    } else {
                        xs.push(values);
                    }
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

    let mut partial = Shared::<[f32]>::new_slice(comptime!(tiles * rows * lanes * TILE_ROWS));
    #[unroll]
    for i in 0..comptime!(tiles * rows) {
        partial[(i * lanes + lane) * TILE_ROWS + unit] = sums[i];
    }
    let mut partial_squares =
        Shared::<[Vector<f32, Const<4>>]>::new_slice(comptime!(spec.n_squares()));
    if comptime!(spec.has_norm) {
        if unit == 0 {
            #[unroll]
            for m in 0..rows {
                partial_squares[m * lanes + lane] = squares[m];
            }
        }
    }
    sync_cube();
    for m in range_stepped(lane, rows, lanes) {
        #[unroll]
        for t in 0..tiles_out {
            let mut up = f32::new(0.0);
            if comptime!(spec.is_gated) {
                up = lane_sum(&partial, (t + tiles_out) * rows + m, unit, lanes);
            }
            let out = (first_tile + t) * TILE_ROWS + unit;
            if first_row + m < n_x && out < n_out {
                let mut square = Vector::<f32, Const<4>>::new(0.0);
                if comptime!(spec.has_norm) {
                    #[unroll]
                    for l in 0..lanes {
                        square += partial_squares[m * lanes + l];
                    }
                }
                let factor = norm_factor(square, epsilon, &shape, spec);
                let sum = lane_sum(&partial, t * rows + m, unit, lanes);
                let value = finished(sum, up, factor, &bias, out, n_out, spec);
                write(value, first_row + m, out, &residual, y, &place);
            }
        }
    }
}

/// Sum `i` of an invocation and its neighbours in the other lanes, lane by lane.
#[cube]
fn lane_sum(partial: &Shared<[f32]>, i: usize, unit: usize, #[comptime] lanes: usize) -> f32 {
    let mut sum = f32::new(0.0);
    #[unroll]
    for l in 0..lanes {
        sum += partial[(i * lanes + l) * TILE_ROWS + unit];
    }
    sum
}

/// What a norm multiplies a row by, from the sum of its squares.
#[cube]
pub(super) fn norm_factor(
    squares: Vector<f32, Const<4>>,
    epsilon: f32,
    shape: &PackedShape,
    #[comptime] spec: LinearSpec,
) -> f32 {
    if comptime!(spec.has_norm) {
        let sum = (squares.extract(0usize) + squares.extract(1usize))
            + (squares.extract(2usize) + squares.extract(3usize));
        let n_cols = f32::cast_from(shape.n_blocks) * comptime!(BLOCK as f32);
        1.0 / (sum / n_cols + epsilon).sqrt()
    } else {
        f32::new(1.0)
    }
}

/// An output from its sum of products, or from two if it is gated.
#[cube]
pub(super) fn finished(
    sum: f32,
    up: f32,
    factor: f32,
    bias: &ComptimeOption<&[f32]>,
    out: usize,
    n_out: usize,
    #[comptime] spec: LinearSpec,
) -> f32 {
    let value = with_bias(sum * factor, bias, out);
    if comptime!(spec.is_gated) {
        gated(value, with_bias(up * factor, bias, n_out + out))
    } else {
        value
    }
}

#[cube]
fn with_bias(value: f32, bias: &ComptimeOption<&[f32]>, out: usize) -> f32 {
    let bias: ComptimeOption<f32> = bias.map(|bias| bias[out]);
    value + bias.unwrap_or_else(|| f32::new(0.0))
}

/// Adds the residual to a result and writes it.
#[cube]
pub(super) fn write(
    value: f32,
    row: usize,
    out: usize,
    residual: &ComptimeOption<&[f32]>,
    y: &mut [f32],
    place: &OutputPlace,
) {
    let at = row * place.width as usize + place.column as usize + out;
    let residual: ComptimeOption<f32> = residual.map(|residual| residual[at]);
    y[at] = value + residual.unwrap_or_else(|| f32::new(0.0));
}
