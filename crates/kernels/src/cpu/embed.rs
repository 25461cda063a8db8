//! Rows of an embedding table by token id.

use cinderlm_weights::{BlockType, PackedLayout};

use super::Scratch;
use super::activations::BLOCK;
use super::floats::{BF16, F16, F32, Floats, for_each_strip};
use super::packed_rows::PackedRows;
use super::scales::Scales;
use super::simd::{F32x4, I16x8};
use super::step::StepRows;
use super::unpack::{Bits2, Bits3, Bits4, Bits5, Bits6, Bits8, Planes};

/// `y[i] = table[token of row i]`, in f32: exactly the values that `PackedTensor::dequantize_row` gives.
///
/// # Shapes
/// - `words`: the packed words of the table, `[vocabulary, n_cols]`, in row order
/// - `y`: `[rows, n_cols]`
///
/// # Panics
/// The lengths do not fit, the table's rows are interleaved, or a token is not in the table.
pub fn embed(
    layout: &PackedLayout,
    words: &[u32],
    step: &StepRows<'_>,
    scratch: &mut Scratch,
    y: &mut [f32],
) {
    let scales = &mut scratch.own.scales;
    let table = PackedRows::new(layout, words);
    assert_eq!(
        y.len(),
        step.n_rows() * layout.n_cols,
        "one table row per row of the step"
    );
    if y.is_empty() {
        return;
    }
    for (y, row) in y.chunks_exact_mut(layout.n_cols).zip(step.rows()) {
        assert!(
            row.token < layout.n_rows,
            "token {} in a table of {}",
            row.token,
            layout.n_rows
        );
        match layout.format.block_type {
            BlockType::F32 => write_floats::<F32>(&table, row.token, y),
            BlockType::F16 => write_floats::<F16>(&table, row.token, y),
            BlockType::BF16 => write_floats::<BF16>(&table, row.token, y),
            BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q4K => {
                write_quanta::<Bits4>(&table, row.token, scales, y)
            }
            BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q5K => {
                write_quanta::<Bits5>(&table, row.token, scales, y)
            }
            BlockType::Q8_0 => write_quanta::<Bits8>(&table, row.token, scales, y),
            BlockType::Q2K => write_quanta::<Bits2>(&table, row.token, scales, y),
            BlockType::Q3K => write_quanta::<Bits3>(&table, row.token, scales, y),
            BlockType::Q6K => write_quanta::<Bits6>(&table, row.token, scales, y),
        }
    }
}

fn write_floats<F: Floats>(table: &PackedRows<'_>, token: usize, y: &mut [f32]) {
    for_each_strip::<F>(table.row(token).low, |s, values| {
        let values = values.map(F32x4::to_array);
        for (y, value) in y[16 * s..].iter_mut().zip(values.as_flattened()) {
            *y = *value;
        }
    });
}

fn write_quanta<P: Planes>(
    table: &PackedRows<'_>,
    token: usize,
    scales: &mut Scales,
    y: &mut [f32],
) {
    let packed = table.row(token);
    let zero = I16x8::splat(table.layout.format.zero() as i16);
    table.decode_scales(token..token + 1, scales);
    let (scales, mins) = scales.of(0);
    let low: &[P::Low] = bytemuck::cast_slice(packed.low);
    for (block, (low, y)) in low.iter().zip(y.as_chunks_mut::<BLOCK>().0).enumerate() {
        let [a, b, c, d] = P::unpack(low, &packed.high[block * P::HIGH_WORDS..]);
        let ([a, b], [c, d]) = (a.zip(b), c.zip(d));
        for (i, (quanta, y)) in [a, b, c, d]
            .into_iter()
            .zip(y.as_chunks_mut::<8>().0)
            .enumerate()
        {
            let group = (block * BLOCK + 8 * i) / P::GROUP;
            let scale = F32x4::splat(scales[group]);
            for (quanta, y) in (quanta - zero)
                .widen()
                .into_iter()
                .zip(y.as_chunks_mut::<4>().0)
            {
                let scaled = quanta.to_f32() * scale;
                // Adding a zero minimum would turn -0.0 into 0.0.
                mins.map_or(scaled, |mins| scaled + F32x4::splat(mins[group]))
                    .store(y);
            }
        }
    }
}
