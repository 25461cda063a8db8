//! Every kernel against plain arithmetic in f64.

use cinderlm_weights::{BlockType, Interleave, PackedTensor};

use super::selftest::{self, Noise};
use super::{
    AttentionConfig, RopeConfig, RopePairs, Scratch, StepRows, attention, embed, linear, rms_norm,
    rope_append, swiglu,
};

const ROWS: [usize; 6] = [1, 2, 3, 4, 5, 9];

/// Weight matrices of odd shapes in every type.
fn matrices() -> Vec<PackedTensor> {
    let mut noise = Noise::new(1);
    let mut matrices = Vec::new();
    for block_type in BlockType::ALL {
        let widths: &[usize] = match block_type.block_len() {
            1 => &[1, 15, 16, 33, 100],
            32 => &[32, 96, 256, 288],
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
        &weights.layout,
        &weights.words,
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

#[test]
fn rms_norm_matches_its_formula() {
    let mut noise = Noise::new(7);
    for width in [1, 3, 16, 77, 576] {
        let (x, weight) = (noise.units(3 * width), noise.units(width));
        let mut y = vec![f32::NAN; x.len()];
        rms_norm(&x, &weight, 1e-5, &mut y);
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact(width)) {
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
            for ((x, y), weight) in x.iter().zip(y).zip(&weight) {
                let exact = f64::from(*x) / (mean + 1e-5).sqrt() * f64::from(*weight);
                assert!(
                    (f64::from(*y) - exact).abs() <= 1e-6 * exact.abs() + 1e-12,
                    "{y} for {exact}, width {width}"
                );
            }
        }
    }
}

#[test]
fn swiglu_matches_its_formula() {
    let mut noise = Noise::new(8);
    let gate: Vec<f32> = noise
        .units(103)
        .iter()
        .map(|x| x * 60.0)
        .chain([-200.0, 200.0, 0.0])
        .collect();
    let up = noise.units(gate.len());
    let mut y = vec![f32::NAN; gate.len()];
    swiglu(&gate, &up, &mut y);
    for ((gate, up), y) in gate.iter().zip(&up).zip(&y) {
        let gate = f64::from(*gate);
        let exact = gate / (1.0 + (-gate).exp()) * f64::from(*up);
        assert!(
            (f64::from(*y) - exact).abs() <= 1e-6 * exact.abs() + 1e-30,
            "{y} for {exact}"
        );
    }
}

#[test]
fn rope_turns_pairs_and_fills_the_cache() {
    let mut noise = Noise::new(9);
    let (n_heads, n_kv_heads, head_dim, scale) = (4, 2, 10, 1.25f32);
    let inv_freq: Vec<f32> = (0..4).map(|i| 100f32.powf(-0.25 * i as f32)).collect();
    // Two rotary dimensions fewer than the head has; slots out of order.
    let step = [[0u32, 3, 5, 0], [0, 900, 1, 0]].concat();
    for pairs in [RopePairs::Interleaved, RopePairs::Halves] {
        let (q, k, v) = (
            noise.units(2 * n_heads * head_dim),
            noise.units(2 * n_kv_heads * head_dim),
            noise.units(2 * n_kv_heads * head_dim),
        );
        let kv_width = n_kv_heads * head_dim;
        let mut turned = q.clone();
        let (mut k_cache, mut v_cache) = (vec![7.0; 6 * kv_width], vec![7.0; 6 * kv_width]);
        let config = RopeConfig {
            pairs,
            scale,
            head_dim,
        };
        rope_append(
            &mut turned,
            &k,
            &v,
            &inv_freq,
            &mut k_cache,
            &mut v_cache,
            &StepRows::new(&step, 2),
            config,
        );
        for (row, (position, slot)) in [(3.0f64, 5), (900.0, 1)].into_iter().enumerate() {
            let check = |before: &[f32], after: &[f32]| {
                for (before, after) in before
                    .chunks_exact(head_dim)
                    .zip(after.chunks_exact(head_dim))
                {
                    assert_eq!(before[8..], after[8..], "dimensions that do not turn");
                    for (i, frequency) in inv_freq.iter().enumerate() {
                        let (a, b) = if pairs == RopePairs::Interleaved {
                            (2 * i, 2 * i + 1)
                        } else {
                            (i, i + 4)
                        };
                        let (sin, cos) = (position * f64::from(*frequency)).sin_cos();
                        let (x, y) = (
                            f64::from(before[a]) * f64::from(scale),
                            f64::from(before[b]) * f64::from(scale),
                        );
                        assert!(
                            (x * cos - y * sin - f64::from(after[a])).abs() < 1e-4,
                            "{pairs:?}, row {row}, pair {i}"
                        );
                        assert!(
                            (y * cos + x * sin - f64::from(after[b])).abs() < 1e-4,
                            "{pairs:?}, row {row}, pair {i}"
                        );
                    }
                }
            };
            let q_width = n_heads * head_dim;
            check(
                &q[row * q_width..][..q_width],
                &turned[row * q_width..][..q_width],
            );
            check(
                &k[row * kv_width..][..kv_width],
                &k_cache[slot * kv_width..][..kv_width],
            );
            assert_eq!(
                v[row * kv_width..][..kv_width],
                v_cache[slot * kv_width..][..kv_width]
            );
        }
        let untouched = [0, 2, 3, 4];
        assert!(
            untouched
                .iter()
                .all(|slot| k_cache[slot * kv_width..][..kv_width]
                    .iter()
                    .all(|&k| k == 7.0)),
            "other slots"
        );
    }
}

/// Attention of one row in f64, the slots of its positions given one by one.
fn plain_attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    slots: &[usize],
    config: AttentionConfig,
) -> Vec<f64> {
    let AttentionConfig {
        n_heads,
        n_kv_heads,
        head_dim,
        scale,
        ..
    } = config;
    let at = |cache: &[f32], slot: usize, head: usize, d: usize| {
        f64::from(cache[(slot * n_kv_heads + head) * head_dim + d])
    };
    let mut y = Vec::new();
    for (head, q) in q.chunks_exact(head_dim).enumerate() {
        let kv_head = head / (n_heads / n_kv_heads);
        let score = |&slot: &usize| {
            (0..head_dim)
                .map(|d| f64::from(q[d]) * at(k, slot, kv_head, d))
                .sum::<f64>()
                * f64::from(scale)
        };
        let weights: Vec<f64> = slots.iter().map(|slot| score(slot).exp()).collect();
        let sum: f64 = weights.iter().sum();
        y.extend((0..head_dim).map(|d| {
            slots
                .iter()
                .zip(&weights)
                .map(|(&slot, w)| w / sum * at(v, slot, kv_head, d))
                .sum::<f64>()
        }));
    }
    y
}

#[test]
fn attention_matches_plain_softmax_over_pages() {
    let mut noise = Noise::new(10);
    for (n_heads, n_kv_heads, head_dim, block_tokens) in
        [(9, 3, 64, 16), (4, 4, 6, 3), (2, 1, 18, 5), (1, 1, 1, 1)]
    {
        let config = AttentionConfig {
            n_heads,
            n_kv_heads,
            head_dim,
            block_tokens,
            scale: 1.0 / (head_dim as f32).sqrt(),
        };
        // Two sequences whose blocks lie mixed up in the pool; the first has a chunk of its prompt in the step.
        let tables = [[6usize, 1, 4, 0], [2, 7, 5, 3]];
        let rows = [
            (0, 0),
            (0, 1),
            (0, 2),
            (1, 4 * block_tokens - 1),
            (0, 2 * block_tokens),
            (1, block_tokens - 1),
        ];
        let tables_at = 4 * rows.len();
        let mut step: Vec<u32> = rows
            .iter()
            .flat_map(|&(s, position)| [0, position as u32, 0, (tables_at + 4 * s) as u32])
            .collect();
        step.extend(tables.as_flattened().iter().map(|&block| block as u32));

        let width = n_heads * head_dim;
        let n_cached = 8 * block_tokens * n_kv_heads * head_dim;
        let (q, k, v) = (
            noise.units(rows.len() * width),
            noise.units(n_cached),
            noise.units(n_cached),
        );
        let q: Vec<f32> = q.iter().map(|q| q * 8.0).collect();
        let mut scratch = Scratch::default();
        let mut y = vec![f32::NAN; q.len()];
        attention(
            &q,
            &k,
            &v,
            &StepRows::new(&step, rows.len()),
            config,
            &mut scratch,
            &mut y,
        );

        for (r, (&(sequence, position), y)) in rows.iter().zip(y.chunks_exact(width)).enumerate() {
            let slot =
                |p: usize| tables[sequence][p / block_tokens] * block_tokens + p % block_tokens;
            let slots: Vec<usize> = (0..=position).map(slot).collect();
            let q = &q[r * width..][..width];
            for (exact, y) in plain_attention(q, &k, &v, &slots, config).iter().zip(y) {
                assert!(
                    (exact - f64::from(*y)).abs() < 3e-6,
                    "{config:?}, row {r}: {y} for {exact}"
                );
            }
            let mut alone = vec![f32::NAN; width];
            let table: Vec<u32> = tables[sequence].iter().map(|&block| block as u32).collect();
            let step = [vec![0, position as u32, 0, 4], table].concat();
            attention(
                q,
                &k,
                &v,
                &StepRows::new(&step, 1),
                config,
                &mut scratch,
                &mut alone,
            );
            assert_eq!(alone, y, "{config:?}, row {r} alone");
        }
    }
}

#[test]
#[should_panic(expected = "a block past the 2 of the cache")]
fn attention_refuses_a_block_past_the_cache() {
    let config = AttentionConfig {
        n_heads: 1,
        n_kv_heads: 1,
        head_dim: 4,
        block_tokens: 2,
        scale: 1.0,
    };
    let step = [0, 2, 0, 4, 1, 2];
    attention(
        &[0.0; 4],
        &[0.0; 16],
        &[0.0; 16],
        &StepRows::new(&step, 1),
        config,
        &mut Scratch::default(),
        &mut [0.0; 4],
    );
}

#[test]
#[should_panic(expected = "slot 2 of 2")]
fn rope_refuses_a_slot_past_the_cache() {
    let config = RopeConfig {
        pairs: RopePairs::Halves,
        scale: 1.0,
        head_dim: 4,
    };
    let (mut k_cache, mut v_cache) = ([0.0; 8], [0.0; 8]);
    rope_append(
        &mut [0.0; 4],
        &[0.0; 4],
        &[0.0; 4],
        &[1.0],
        &mut k_cache,
        &mut v_cache,
        &StepRows::new(&[0, 0, 2, 0], 1),
        config,
    );
}

#[test]
fn results_are_those_of_every_target() {
    selftest::check().expect("the hashes that are written down");
}
