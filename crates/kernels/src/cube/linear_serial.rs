//! The product of [`linear`](super::linear) for software adapters, where each output is one invocation's own work.
//!
//! - `x`, `w`, `norm`, `bias`, `residual`, `y`: as there
//!
//! Such an adapter checks and gathers every scalar that is read from a buffer, which costs it several products, and has few vector registers. So
//! an invocation reads 32 columns of its rows once, and then goes through all its outputs, 32 apart, with them: `place.tiles` of them, a number
//! that depends on the shape and on no result. That loop is not unrolled, for adapters take long to compile what is.
//!
//! Quanta of 4 bits are multiplied where they lie in a word, which saves shifts, by activations that make up for it, and a block's scale and offset
//! applied to the sum of its 32 products and of its 32 activations.

use cinderlm_weights::PackedFormat;
use cinderlm_weights::packed::{BLOCK, TILE_ROWS};
use cubecl::prelude::*;

use super::grid_index;
use super::linear::{LinearSpec, OutputPlace, finished, norm_factor, write};
use super::unpack::{
    PackedRow, PackedShape, QUAD, has_scale_per_block, pair_factors, pair_quantum, pair_word,
    quad_value, read_quad, read_scale, row_of_tile,
};

const QUADS: usize = BLOCK / QUAD;

/// Whether each word has two quads of one scale.
fn is_paired(format: PackedFormat) -> bool {
    format.low_bits() == 4 && format.high_bits() == 0 && has_scale_per_block(format)
}

/// 32 columns of an invocation's rows.
#[derive(CubeType)]
struct Activations {
    /// Normed but for the factor of the row; all of a row, then of the next. For paired quanta, times what these lack.
    quads: Array<Vector<f32, Const<4>>>,
    /// Sum of each row's.
    totals: Array<f32>,
}

#[cube(launch_unchecked)]
#[allow(
    clippy::too_many_arguments,
    reason = "the operands of one fused dispatch"
)]
pub(super) fn linear_serial(
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
    let rows = comptime!(spec.rows_per_unit);
    let (n_out, tiles) = (place.n_out as usize, place.tiles as usize);
    let n_tiles = n_out.div_ceil(TILE_ROWS);
    let first_tile = CUBE_POS_X as usize * tiles;
    let first_row = grid_index() * rows;
    let parts = comptime!(if spec.is_gated { 2usize } else { 1usize });

    // An array for each row: what one takes to compile grows with the square of its length on Mesa's lavapipe.
    let mut sums = Sequence::<Array<f32>>::new();
    #[unroll]
    for _ in 0..rows {
        let mut of_row = Array::<f32>::new(comptime!(spec.tiles_per_unit));
        for i in 0..parts * tiles {
            of_row[i] = f32::new(0.0);
        }
        sums.push(of_row);
    }
    let mut squares = Array::<Vector<f32, Const<4>>>::new(rows);
    for m in 0..rows {
        squares[m] = Vector::new(0.0);
    }
    for block in 0..shape.n_blocks as usize {
        let n_x = place.n_x as usize;
        let xs = read_activations(x, &norm, &mut squares, first_row, n_x, block, &shape, spec);
        for part in 0..parts {
            for t in 0..tiles {
                // Tiles past the last repeat it, and are not written. The second half of gated outputs begins with a tile.
                let tile = part * n_tiles + min(first_tile + t, n_tiles - 1);
                let weights = row_of_tile(tile, UNIT_POS_X as usize, &shape);
                let output = part * tiles + t;
                if comptime!(is_paired(spec.format)) {
                    add_pairs(words, &weights, block, &xs, &mut sums, output, spec);
                } else {
                    add_quads(words, &weights, block, &xs, &mut sums, output, spec);
                }
            }
        }
    }
    let mut factors = Array::<f32>::new(rows);
    #[unroll]
    for m in 0..rows {
        factors[m] = norm_factor(squares[m], epsilon, &shape, spec);
    }
    #[unroll]
    for m in 0..rows {
        let sums = sums.index(m);
        for t in 0..tiles {
            let mut up = f32::new(0.0);
            if comptime!(spec.is_gated) {
                up = sums[t + tiles];
            }
            let out = (first_tile + t) * TILE_ROWS + UNIT_POS_X as usize;
            if first_row + m < place.n_x as usize && out < n_out {
                let sum = sums[t];
                let value = finished(sum, up, factors[m], &bias, out, n_out, spec);
                write(value, first_row + m, out, &residual, y, &place);
            }
        }
    }
}

/// Reads a block of 32 columns of the rows from `first_row` on, and adds its squares up for the norm. Rows past the last repeat it.
///
/// Its loops over rows and quads are not unrolled: a software adapter compiles several ways of loading for each place that loads.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "where a block lies, and where its squares go"
)]
fn read_activations(
    x: &[Vector<f32, Const<4>>],
    norm: &ComptimeOption<&[Vector<f32, Const<4>>]>,
    squares: &mut Array<Vector<f32, Const<4>>>,
    first_row: usize,
    n_x: usize,
    block: usize,
    shape: &PackedShape,
    #[comptime] spec: LinearSpec,
) -> Activations {
    let rows = comptime!(spec.rows_per_unit);
    let mut quads = Array::<Vector<f32, Const<4>>>::new(comptime!(rows * QUADS));
    let mut totals = Array::<f32>::new(rows);
    for m in 0..rows {
        let row = min(first_row + m, n_x - 1);
        let start = (row * shape.n_blocks as usize + block) * QUADS;
        let mut total = Vector::<f32, Const<4>>::new(0.0);
        let mut square = Vector::<f32, Const<4>>::new(0.0);
        #[unroll]
        for half in 0..2usize {
            for i in 0..comptime!(QUADS / 2) {
                let quad = comptime!(half * QUADS / 2) + i;
                let mut values = x[start + quad];
                if comptime!(spec.has_norm) {
                    square += values * values;
                    values *= norm.unwrap()[block * QUADS + quad];
                }
                total += values;
                if comptime!(is_paired(spec.format)) {
                    values *= pair_factors(comptime!(half == 1));
                }
                quads[m * QUADS + quad] = values;
            }
        }
        if comptime!(spec.has_norm) {
            squares[m] += square;
        }
        totals[m] = (total.extract(0usize) + total.extract(1usize))
            + (total.extract(2usize) + total.extract(3usize));
    }
    Activations { quads, totals }
}

/// Adds the products of a block of weights, two quads to a word, to each row's sum for output `output` of the invocation.
#[cube]
fn add_pairs(
    words: &[u32],
    weights: &PackedRow,
    block: usize,
    xs: &Activations,
    sums: &mut Sequence<Array<f32>>,
    output: usize,
    #[comptime] spec: LinearSpec,
) {
    let rows = comptime!(spec.rows_per_unit);
    let products = zeros(rows);
    #[unroll]
    for pair in 0..comptime!(QUADS / 2) {
        let word = pair_word(words, weights, block, pair);
        let mut quanta = Sequence::<f32>::new();
        #[unroll]
        for i in 0..comptime!(2 * QUAD) {
            quanta.push(pair_quantum(word, i));
        }
        #[unroll]
        for m in 0..rows {
            let low = xs.quads[comptime!(m * QUADS + pair)];
            let high = xs.quads[comptime!(m * QUADS + QUADS / 2 + pair)];
            let sum = products.index(m);
            sum.store(sum.read() + (dot(&quanta, 0usize, low) + dot(&quanta, QUAD, high)));
        }
    }
    let scale = read_scale(words, weights, block, 0usize, spec.format);
    #[unroll]
    for m in 0..rows {
        let offset = xs.totals[m] * scale.offset;
        let of_row = sums.index_mut(m);
        of_row[output] += products.index(m).read() * scale.scale + offset;
    }
}

/// As [`add_pairs`], of any format.
#[cube]
fn add_quads(
    words: &[u32],
    weights: &PackedRow,
    block: usize,
    xs: &Activations,
    sums: &mut Sequence<Array<f32>>,
    output: usize,
    #[comptime] spec: LinearSpec,
) {
    let rows = comptime!(spec.rows_per_unit);
    let products = zeros(rows);
    #[unroll]
    for half in 0..2usize {
        let scale = read_scale(words, weights, block, half, spec.format);
        #[unroll]
        for v in 0..comptime!(QUADS / 2) {
            let quad = comptime!(half * (QUADS / 2) + v);
            let packed = read_quad(words, weights, block, quad, spec.format);
            let mut values = Sequence::<f32>::new();
            #[unroll]
            for i in 0..QUAD {
                values.push(quad_value(&packed, &scale, i, spec.format));
            }
            #[unroll]
            for m in 0..rows {
                let x = xs.quads[comptime!(m * QUADS + quad)];
                let sum = products.index(m);
                sum.store(sum.read() + dot(&values, 0usize, x));
            }
        }
    }
    #[unroll]
    for m in 0..rows {
        let of_row = sums.index_mut(m);
        of_row[output] += products.index(m).read();
    }
}

/// Sums that stay in registers while they grow: an array that is indexed at run time lies in memory.
#[cube]
fn zeros(#[comptime] n: usize) -> Sequence<RuntimeCell<f32>> {
    let mut sums = Sequence::<RuntimeCell<f32>>::new();
    #[unroll]
    for _ in 0..n {
        sums.push(RuntimeCell::<f32>::new(f32::new(0.0)));
    }
    sums
}

/// The product of four values from `first` on and a quad of activations.
#[cube]
fn dot(values: &Sequence<f32>, #[comptime] first: usize, x: Vector<f32, Const<4>>) -> f32 {
    (*values.index(first) * x.extract(0usize)
        + *values.index(comptime!(first + 1)) * x.extract(1usize))
        + (*values.index(comptime!(first + 2)) * x.extract(2usize)
            + *values.index(comptime!(first + 3)) * x.extract(3usize))
}
