//! Products with packed weights, and embedding, in every tensor type.

use cinderlm_weights::{BlockType, Interleave, PackedTensor};

use crate::cpu::selftest::Noise;
use crate::cpu::{
    Matrix, Scratch, StepRows, embed, gated_linear, has_normal_scales, linear, swiglu,
};

const ROWS: [usize; 6] = [1, 2, 3, 4, 5, 9];

/// Weight matrices of odd shapes in every type.
fn matrices() -> Vec<PackedTensor> {
    let mut noise = Noise::new(1);
    let mut matrices = Vec::new();
    for block_type in BlockType::ALL {
        let widths: &[usize] = match block_type.block_len() {
            1 => &[1, 15, 16, 33, 100],
            32 => &[32, 96, 256, 288, 64],
            _ => &[256, 768, 1024],
        };
        for (&n_cols, n_rows) in widths.iter().zip([1, 19, 33, 16, 7]) {
            matrices.push(noise.weights(block_type, n_rows, n_cols));
        }
    }
    matrices
}

fn dequantized(weights: &PackedTensor, row: usize) -> Vec<f32> {
    let mut values = vec![0.0; weights.layout.n_cols];
    weights.dequantize_row(row, &mut values);
    values
}

fn product(x: &[f32], weights: &PackedTensor, bias: Option<&[f32]>) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / weights.layout.n_cols * weights.layout.n_rows];
    linear(
        x,
        Matrix::new(&weights.layout, &weights.words),
        bias,
        &mut Scratch::default(),
        &mut y,
    );
    y
}

/// How far an output may be from the exact one: half a step of the 16-bit activations against each weight, and f32 round-off.
fn tolerance(weights: &PackedTensor, w: &[f32], x: &[f32]) -> f64 {
    let size = |w: &[f32], x: f32| w.iter().map(|w| f64::from((w * x).abs())).sum::<f64>();
    let round_off: f64 = w
        .chunks(32)
        .zip(x.chunks(32))
        .map(|(w, x)| size(w, largest(x)) * 3e-6)
        .sum();
    if weights.layout.format.float_kind().is_some() {
        return round_off;
    }
    round_off
        + w.chunks(32)
            .zip(x.chunks(32))
            .map(|(w, x)| size(w, largest(x) / 65_534.0))
            .sum::<f64>()
}

fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max, x| max.max(x.abs()))
}

#[test]
fn linear_is_within_half_a_step_of_its_activations() {
    let mut noise = Noise::new(2);
    for weights in matrices() {
        let (n_rows, n_cols) = (weights.layout.n_rows, weights.layout.n_cols);
        for rows in ROWS {
            let (x, bias) = (noise.units(rows * n_cols), noise.units(n_rows));
            let y = product(&x, &weights, Some(&bias));
            for (r, x) in x.chunks_exact(n_cols).enumerate() {
                for output in 0..n_rows {
                    let w = dequantized(&weights, output);
                    let exact: f64 = w
                        .iter()
                        .zip(x)
                        .map(|(w, x)| f64::from(*w) * f64::from(*x))
                        .sum();
                    let error =
                        (f64::from(y[r * n_rows + output]) - exact - f64::from(bias[output])).abs();
                    let bound = tolerance(&weights, &w, x) + 1e-6;
                    assert!(
                        error <= bound,
                        "{:?}, {rows} rows, [{r}, {output}]: {error:e} over {bound:e}",
                        weights.layout
                    );
                }
            }
        }
    }
}

/// With activations that 16 bits hold exactly, nothing but f32 round-off is left: no term can hide in the rounding.
#[test]
fn linear_is_exact_up_to_round_off_on_whole_activations() {
    let mut noise = Noise::new(3);
    for weights in matrices() {
        let (n_rows, n_cols) = (weights.layout.n_rows, weights.layout.n_cols);
        let x: Vec<f32> = (0..n_cols)
            .map(|i| {
                if i % 32 == 5 {
                    32_767.0 / 256.0
                } else {
                    (noise.unit() * 32_767.0).round() / 256.0
                }
            })
            .collect();
        for (output, y) in product(&x, &weights, None).into_iter().enumerate() {
            let w = dequantized(&weights, output);
            let terms = w.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let (exact, size) = terms.fold((0.0, 0.0), |(sum, size), term| {
                (sum + term, size + term.abs())
            });
            // The absolute part is for weights that are small differences of a scaled quantum and a minimum.
            assert!(
                (f64::from(y) - exact).abs() <= size * 1e-5 + 1e-4,
                "{:?}, output {output} of {n_rows}",
                weights.layout
            );
        }
    }
}

#[test]
fn outputs_do_not_depend_on_the_batch() {
    let mut noise = Noise::new(4);
    for weights in matrices() {
        let n_cols = weights.layout.n_cols;
        let x = noise.units(9 * n_cols);
        let alone: Vec<u32> = x
            .chunks_exact(n_cols)
            .flat_map(|x| product(x, &weights, None))
            .map(f32::to_bits)
            .collect();
        for rows in ROWS {
            let together = product(&x[..rows * n_cols], &weights, None);
            assert!(
                together
                    .iter()
                    .map(|y| y.to_bits())
                    .eq(alone[..together.len()].iter().copied()),
                "{:?}, {rows} rows",
                weights.layout
            );
        }
    }
}

#[test]
fn gated_products_are_products_that_were_gated() {
    let mut noise = Noise::new(6);
    for block_type in BlockType::ALL {
        let n_cols = 2 * block_type.block_len().max(32);
        // A part ends within a run of weight rows, and halves begin within one.
        for width in [1, 21, 40] {
            let weights = noise.weights(block_type, 2 * width, n_cols);
            let bias = noise.units(2 * width);
            for n_rows in ROWS {
                let x = noise.units(n_rows * n_cols);
                let mut expected = vec![0.0; n_rows * width];
                let products = product(&x, &weights, Some(&bias));
                let rows = products.chunks_exact(2 * width);
                for (products, y) in rows.zip(expected.chunks_exact_mut(width)) {
                    let (gate, up) = products.split_at(width);
                    swiglu(gate, up, y);
                }
                let mut y = vec![f32::NAN; expected.len()];
                let w = Matrix::new(&weights.layout, &weights.words);
                gated_linear(&x, w, Some(&bias), &mut Scratch::default(), &mut y);
                assert!(
                    (y.iter().zip(&expected)).all(|(y, exact)| y.to_bits() == exact.to_bits()),
                    "{:?}, {n_rows} rows",
                    weights.layout
                );
            }
        }
    }
}

#[test]
#[should_panic(expected = "a gate and what it gates")]
fn gated_products_need_two_halves() {
    let weights = Noise::new(5).weights(BlockType::Q8_0, 3, 32);
    gated_linear(
        &[0.0; 32],
        Matrix::new(&weights.layout, &weights.words),
        None,
        &mut Scratch::default(),
        &mut [0.0],
    );
}

#[test]
fn scales_that_are_decoded_on_the_way_change_nothing() {
    let mut noise = Noise::new(7);
    for block_type in [BlockType::Q4_1, BlockType::Q5_1] {
        for n_blocks in 1..10 {
            let n_cols = 32 * n_blocks;
            let mut weights = noise.weights(block_type, 19, n_cols);
            noise.make_scales_normal(&mut weights);
            let x = noise.units(n_cols);
            let mut w = Matrix::new(&weights.layout, &weights.words);
            w.has_normal_scales = has_normal_scales(w.layout, w.words);
            assert!(w.has_normal_scales);
            let mut y = vec![f32::NAN; 19];
            linear(&x, w, None, &mut Scratch::default(), &mut y);
            assert_eq!(y, product(&x, &weights, None), "{:?}", weights.layout);
        }
    }
}

#[test]
fn scales_are_normal_only_if_all_of_them_are() {
    let mut noise = Noise::new(8);
    let mut weights = noise.weights(BlockType::Q4_1, 3, 96);
    noise.make_scales_normal(&mut weights);
    let (start, end) = (weights.layout.scale_offset(), weights.words.len());
    for place in [start, start + 4, end - 1] {
        for half in [0, 0x8000, 1, 0x83ff, 0x7c00, 0xfc00, 0x7e01] {
            for (shift, others) in [(0, 0xffff_0000), (16, 0xffff)] {
                let mut words = weights.words.clone();
                words[place] = words[place] & others | half << shift;
                assert!(!has_normal_scales(&weights.layout, &words), "{half:#x}");
            }
        }
    }
    // Formats whose scales are decoded beforehand do not ask.
    let weights = noise.weights(BlockType::Q4_0, 3, 96);
    assert!(!has_normal_scales(&weights.layout, &weights.words));
}

#[test]
fn embedding_equals_the_plain_unpacking() {
    for weights in matrices() {
        let (n_rows, n_cols) = (weights.layout.n_rows, weights.layout.n_cols);
        let tokens = [n_rows - 1, 0, n_rows / 2];
        let step: Vec<u32> = tokens
            .iter()
            .flat_map(|&token| [token as u32, 0, 0, 0])
            .collect();
        let mut y = vec![f32::NAN; tokens.len() * n_cols];
        embed(
            &weights.layout,
            &weights.words,
            &StepRows::new(&step, tokens.len()),
            &mut Scratch::default(),
            &mut y,
        );
        for (y, token) in y.chunks_exact(n_cols).zip(tokens) {
            let expected = dequantized(&weights, token);
            assert!(
                y.iter()
                    .map(|y| y.to_bits())
                    .eq(expected.iter().map(|y| y.to_bits())),
                "{:?}, token {token}",
                weights.layout
            );
        }
    }
}

#[test]
#[should_panic(expected = "token 3 in a table of 3")]
fn embedding_refuses_a_token_past_its_table() {
    let weights = Noise::new(5).weights(BlockType::Q8_0, 3, 32);
    embed(
        &weights.layout,
        &weights.words,
        &StepRows::new(&[3, 0, 0, 0], 1),
        &mut Scratch::default(),
        &mut [0.0; 32],
    );
}

#[test]
#[should_panic(expected = "row by row")]
fn linear_refuses_interleaved_rows() {
    let mut weights = Noise::new(5).weights(BlockType::Q8_0, 32, 32);
    weights.layout.interleave = Interleave::Tiles32;
    product(&[0.0; 32], &weights, None);
}

#[test]
fn activations_that_are_not_finite_reach_the_outputs() {
    let weights = Noise::new(6).weights(BlockType::Q4_1, 3, 64);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = [0.5; 128];
        x[40] = bad;
        let y = product(&x, &weights, None);
        assert!(
            y[..3].iter().all(|y| y.is_nan()) && y[3..].iter().all(|y| y.is_finite()),
            "{y:?}"
        );
    }
}
