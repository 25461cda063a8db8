//! How each case runs.

use burn::tensor::Device;
use cinderlm_weights::{BlockType, PackedLayout, PackedTensor};

use super::SelftestError;
use super::compare::{compare, interleaved, matrix, read, vector};
use crate::cpu::selftest::Noise;
use crate::device::is_cpu;
use crate::{
    AttentionParams, DrawBuffer, DrawKind, DrawRow, Drawn, Fused, HeadNormParams, KvCache,
    KvLayout, PackedMatrix, Profile, RopeLayout, RopeParams, Step, StepRow, reference,
};

/// Numbers of rows that leave tiles of rows whole, partly filled and empty.
const ROW_COUNTS: [usize; 5] = [1, 2, 3, 5, 17];

fn on_device(tensor: &PackedTensor, device: &Device) -> Result<PackedMatrix, SelftestError> {
    Ok(PackedMatrix::from_packed(
        interleaved(tensor, PackedMatrix::interleave_for(device)),
        device,
    )?)
}

/// How large the weights of each output are, which decides how far off its products may be.
struct Sizes {
    /// Largest weight and sum of weights, in absolute terms, of each output.
    outputs: Vec<(f32, f32)>,
    n_cols: usize,
    /// Whether activations are rounded.
    is_rounded: bool,
}

impl Sizes {
    fn new(weights: &PackedTensor, device: &Device) -> Self {
        let PackedLayout {
            n_rows,
            n_cols,
            format,
            ..
        } = weights.layout;
        let mut values = vec![0.0; n_cols];
        let sizes = |row| {
            weights.dequantize_row(row, &mut values);
            values
                .iter()
                .fold((0.0, 0.0), |(largest, sum): (f32, f32), value| {
                    (largest.max(value.abs()), sum + value.abs())
                })
        };
        Self {
            outputs: (0..n_rows).map(sizes).collect(),
            n_cols,
            is_rounded: is_cpu(device) && !format.block_type.is_float(),
        }
    }

    /// Of value `index` of the product with `x`.
    fn tolerance(&self, x: &[f32], index: usize) -> f32 {
        let n_rows = self.outputs.len();
        let (largest, sum) = self.outputs[index % n_rows];
        let x = &x[index / n_rows * self.n_cols..][..self.n_cols];
        let x_sum: f32 = x.iter().map(|value| value.abs()).sum();
        let x_largest = x
            .iter()
            .fold(0.0f32, |largest, value| largest.max(value.abs()));
        let rounding = if self.is_rounded {
            x_largest / 65_534.0 * sum
        } else {
            0.0
        };
        2e-6 * (x_sum * largest + 1.0) + rounding
    }
}

pub(super) async fn linear(
    block_type: BlockType,
    n_rows: usize,
    n_cols: usize,
    device: &Device,
    profile: Profile,
) -> Result<(), SelftestError> {
    let mut noise = Noise::new(n_cols as u64);
    let weights = noise.weights(block_type, n_rows, n_cols);
    let bias = noise.units(n_rows);
    let w = on_device(&weights, device)?;
    let sizes = Sizes::new(&weights, device);
    for n_x in ROW_COUNTS {
        let x = noise.units(n_x * n_cols);
        let tolerance = |index| sizes.tolerance(&x, index);
        let y = crate::linear(matrix(&x, n_cols, device), &w, None, profile);
        compare(
            "product",
            y,
            &reference::linear(&x, &weights, None),
            tolerance,
        )
        .await?;
        let y = crate::linear(
            matrix(&x, n_cols, device),
            &w,
            Some(vector(&bias, device)),
            profile,
        );
        compare(
            "product with bias",
            y,
            &reference::linear(&x, &weights, Some(&bias)),
            tolerance,
        )
        .await?;
    }
    Ok(())
}

pub(super) async fn linear_alone(
    block_type: BlockType,
    device: &Device,
    profile: Profile,
) -> Result<(), SelftestError> {
    let (n_rows, n_cols, n_x) = (40, 256, 11);
    let mut noise = Noise::new(5);
    let w = on_device(&noise.weights(block_type, n_rows, n_cols), device)?;
    let x = noise.units(n_x * n_cols);
    let together = read(
        "product",
        crate::linear(matrix(&x, n_cols, device), &w, None, profile),
    )
    .await?;
    for (x, expected) in x.chunks_exact(n_cols).zip(together.chunks_exact(n_rows)) {
        compare(
            "row alone",
            crate::linear(matrix(x, n_cols, device), &w, None, profile),
            expected,
            |_| 0.0,
        )
        .await?;
    }
    Ok(())
}

pub(super) async fn embed(
    block_type: BlockType,
    device: &Device,
    profile: Profile,
) -> Result<(), SelftestError> {
    let table = Noise::new(3).weights(block_type, 45, 512);
    let rows: Vec<StepRow> = [0, 44, 31, 32, 7]
        .into_iter()
        .map(|token| StepRow {
            token,
            position: 0,
            slot: 0,
            table: 0,
        })
        .collect();
    let y = crate::embed(
        &on_device(&table, device)?,
        &Step::new(&rows, &[], device),
        profile,
    );
    let expected = reference::embed(&table, &rows);
    let largest = expected
        .iter()
        .fold(0.0f32, |largest, value| largest.max(value.abs()));
    compare("embedding", y, &expected, |_| 2e-6 * largest).await
}

pub(super) async fn fused(
    block_type: BlockType,
    n_rows: usize,
    n_cols: usize,
    device: &Device,
    profile: Profile,
) -> Result<(), SelftestError> {
    const EPSILON: f32 = 1e-2;
    let mut noise = Noise::new((n_rows + n_cols) as u64);
    let weights = noise.weights(block_type, n_rows, n_cols);
    let sizes = Sizes::new(&weights, device);
    let (bias, factors) = (noise.units(n_rows), noise.units(n_cols));
    let w = on_device(&weights, device)?;
    let norm = || crate::Norm {
        weight: vector(&factors, device),
        epsilon: EPSILON,
    };
    for n_x in ROW_COUNTS {
        let x = noise.units(n_x * n_cols);
        let normed = reference::rms_norm(&x, &factors, EPSILON);
        let product = reference::linear(&normed, &weights, Some(&bias));
        // The norm rounds each activation, the factor and the sum once more.
        let tolerance = |index| 3.0 * sizes.tolerance(&normed, index);
        let fused = |residual, is_gated| {
            let fused = Fused {
                norm: Some(norm()),
                bias: Some(vector(&bias, device)),
                residual,
                is_gated,
            };
            crate::fused_linear(matrix(&x, n_cols, device), &w, fused, profile)
        };
        compare("normed product", fused(None, false), &product, tolerance).await?;

        let residual = noise.units(product.len());
        let y = fused(Some(matrix(&residual, n_rows, device)), false);
        let expected: Vec<f32> = product.iter().zip(&residual).map(|(y, r)| y + r).collect();
        compare("with residual", y, &expected, tolerance).await?;

        // A gate multiplies errors by at most the other half, or twice that.
        let width = n_rows / 2;
        let halves = |index: usize| {
            let first = index / width * n_rows + index % width;
            (first, first + width)
        };
        let expected = reference::swiglu(&product, width);
        let tolerance_of_gated = |index| {
            let (gate, up) = halves(index);
            2e-6 + (2.0 * product[up].abs() + 1.0) * tolerance(gate)
                + (product[gate].abs() + 1.0) * tolerance(up)
        };
        compare("gated", fused(None, true), &expected, tolerance_of_gated).await?;

        let beside = crate::linear_side_by_side(
            matrix(&x, n_cols, device),
            Some(norm()),
            [(&w, Some(vector(&bias, device))), (&w, None)].into_iter(),
            profile,
        );
        let plain = reference::linear(&normed, &weights, None);
        let expected: Vec<f32> = (product.chunks(n_rows).zip(plain.chunks(n_rows)))
            .flat_map(|(a, b)| [a, b].concat())
            .collect();
        let tolerance = |index: usize| {
            let (row, column) = (index / (2 * n_rows), index % n_rows);
            tolerance(row * n_rows + column)
        };
        compare("side by side", beside, &expected, tolerance).await?;
    }
    Ok(())
}

pub(super) async fn head_norm(device: &Device) -> Result<(), SelftestError> {
    const EPSILON: f32 = 1e-5;
    let (n_heads, n_kv_heads, head_dim, rest) = (3, 2, 20, 24);
    let width = (n_heads + n_kv_heads) * head_dim + rest;
    let mut noise = Noise::new(8);
    let (weight, kv_weight) = (noise.units(head_dim), noise.units(head_dim));
    let x = noise.units(7 * width);
    let mut expected = x.clone();
    for row in expected.chunks_exact_mut(width) {
        for (i, head) in row[..width - rest].chunks_exact_mut(head_dim).enumerate() {
            let weight = if i < n_heads { &weight } else { &kv_weight };
            head.copy_from_slice(&reference::rms_norm(head, weight, EPSILON));
        }
    }
    let y = crate::norm_heads(
        matrix(&x, width, device),
        vector(&weight, device),
        vector(&kv_weight, device),
        HeadNormParams {
            n_heads,
            n_kv_heads,
            epsilon: EPSILON,
        },
    );
    compare("normed heads", y, &expected, |index| {
        2e-6 * (1.0 + expected[index].abs())
    })
    .await
}

/// Blocks of 4 tokens, of which two sequences own some each, out of order.
const BLOCK_TOKENS: usize = 4;
const N_BLOCKS: usize = 16;
const TABLES: [&[u32]; 2] = [&[7, 2, 5, 0, 8, 11, 15, 4, 9, 13, 12, 10, 14], &[3, 6, 1]];

/// Rows at these positions of the two sequences, with tokens that do not matter.
fn rows_at(positions: &[(usize, u32)]) -> (Vec<StepRow>, Vec<u32>) {
    let rows = positions
        .iter()
        .map(|&(sequence, position)| {
            let block = TABLES[sequence][position as usize / BLOCK_TOKENS];
            let slot = block * BLOCK_TOKENS as u32 + position % BLOCK_TOKENS as u32;
            let table = Step::table_offset(
                positions.len(),
                if sequence == 0 { 0 } else { TABLES[0].len() },
            );
            StepRow {
                token: 0,
                position,
                slot,
                table,
            }
        })
        .collect();
    (rows, TABLES.concat())
}

pub(super) async fn rope(
    layout: RopeLayout,
    rotary: usize,
    scale: f32,
    device: &Device,
) -> Result<(), SelftestError> {
    let (n_heads, n_kv_heads, head_dim) = (3, 2, 64);
    let kv = KvLayout {
        block_tokens: BLOCK_TOKENS,
        n_kv_heads,
        head_dim,
    };
    let mut noise = Noise::new(rotary as u64);
    let inv_freq: Vec<f32> = (0..rotary / 2)
        .map(|i| 10_000f32.powf(-2.0 * i as f32 / rotary as f32))
        .collect();
    let mut k_cache = noise.units(N_BLOCKS * BLOCK_TOKENS * kv.width());
    let mut v_cache = noise.units(k_cache.len());
    let mut cache = KvCache::from_values(kv, &k_cache, &v_cache, device)?;
    let (mut rows, tables) = rows_at(&[(0, 0), (0, 17), (1, 9), (1, 10)]);
    // Slots and positions need not agree, so positions can be as large as contexts get.
    (rows[1].position, rows[3].position) = (8191, 131_071);
    let (q_width, kv_width) = (n_heads * head_dim, kv.width());
    let (mut q, k, v) = (
        noise.units(4 * q_width),
        noise.units(4 * kv_width),
        noise.units(4 * kv_width),
    );
    let qkv: Vec<f32> = (q.chunks(q_width))
        .zip(k.chunks(kv_width).zip(v.chunks(kv_width)))
        .flat_map(|(q, (k, v))| [q, k, v].concat())
        .collect();
    let turned = crate::rope_append(
        matrix(&qkv, q_width + 2 * kv_width, device),
        vector(&inv_freq, device),
        &mut cache,
        &Step::new(&rows, &tables, device),
        layout,
        scale,
    );
    let params = RopeParams {
        layout,
        scale,
        head_dim,
        n_heads,
        n_kv_heads,
        block_tokens: BLOCK_TOKENS,
    };
    reference::rope_append(
        &mut q,
        &k,
        &v,
        &inv_freq,
        &mut k_cache,
        &mut v_cache,
        &rows,
        params,
    );
    compare("queries", turned, &q, |_| 2e-6).await?;
    compare("key cache", cache.buffers().k.clone(), &k_cache, |_| 2e-6).await?;
    compare("value cache", cache.buffers().v.clone(), &v_cache, |_| 0.0).await
}

pub(super) async fn attention(
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    device: &Device,
    profile: Profile,
) -> Result<(), SelftestError> {
    let kv = KvLayout {
        block_tokens: BLOCK_TOKENS,
        n_kv_heads,
        head_dim,
    };
    let mut noise = Noise::new(head_dim as u64);
    let k_cache = noise.units(N_BLOCKS * BLOCK_TOKENS * kv.width());
    let v_cache = noise.units(k_cache.len());
    let cache = KvCache::from_values(kv, &k_cache, &v_cache, device)?;
    let params = AttentionParams {
        n_heads,
        n_kv_heads,
        head_dim,
        block_tokens: BLOCK_TOKENS,
        scale: (head_dim as f32).sqrt().recip(),
        n_chunks: 1,
    };
    let attend = |q: &[f32], rows: &[StepRow], tables: &[u32]| {
        crate::attention(
            matrix(q, n_heads * head_dim, device),
            &cache,
            &Step::new(rows, tables, device),
            n_heads,
            params.scale,
            profile,
        )
    };
    let short = rows_at(&[(0, 0), (0, 50), (1, 11), (0, 3), (0, 4), (1, 7), (0, 33)]);
    // lavapipe ends loops after 65,535 turns, of which a chunk of 512 positions has more where heads are that wide.
    let longest = if head_dim > 128 { 8191 } else { 8192 };
    let mut positions = vec![255, 30, 256, 700, longest];
    if n_heads > 8 {
        // More than one launch has room for.
        positions.extend([40; 220]);
    }
    let long = long_rows(&positions);
    // Round-off grows with the number of positions that are added up.
    for ((rows, tables), tolerance) in [(short, 2e-6), (long, 1e-5)] {
        let q: Vec<f32> = noise
            .units(rows.len() * n_heads * head_dim)
            .into_iter()
            .map(|value| 4.0 * value)
            .collect();
        let y = attend(&q, &rows, &tables);
        let expected = reference::attention(&q, &k_cache, &v_cache, &rows, &tables, params);
        compare("attention", y.clone(), &expected, |_| tolerance).await?;
        let y = read("attention", y).await?;
        let of_rows = q
            .chunks(n_heads * head_dim)
            .zip(y.chunks(n_heads * head_dim));
        for (row, (q, y)) in rows.iter().zip(of_rows).take(8) {
            let table = (row.table as usize) - Step::table_offset(rows.len(), 0) as usize;
            let alone = StepRow {
                table: Step::table_offset(1, table),
                ..*row
            };
            let y_alone = attend(q, &[alone], &tables);
            compare("attention of a row alone", y_alone, y, |_| 0.0).await?;
        }
    }
    Ok(())
}

/// Rows of sequences that go through all blocks over and over.
fn long_rows(positions: &[u32]) -> (Vec<StepRow>, Vec<u32>) {
    let longest = positions.iter().copied().max().unwrap_or(0) as usize;
    let rows = positions.iter().map(|&position| StepRow {
        token: 0,
        position,
        slot: 0,
        table: Step::table_offset(positions.len(), 0),
    });
    let blocks = (0..N_BLOCKS as u32).rev().cycle();
    let tables = blocks.take(longest / BLOCK_TOKENS + 1).collect();
    (rows.collect(), tables)
}

pub(super) async fn swiglu(device: &Device) -> Result<(), SelftestError> {
    let width = 50;
    let mut noise = Noise::new(1);
    let mut x = noise.units(3 * 2 * width);
    for row in x.chunks_exact_mut(2 * width) {
        row[..width].iter_mut().for_each(|gate| *gate *= 10.0);
    }
    x[..6].copy_from_slice(&[0.0, -0.0, 100.0, -100.0, 1000.0, -1000.0]);
    let y = crate::swiglu(matrix(&x, 2 * width, device));
    let expected = reference::swiglu(&x, width);
    compare("gated", y, &expected, |index| {
        2e-6 * (1.0 + expected[index].abs())
    })
    .await
}

pub(super) async fn cache(device: &Device) -> Result<(), SelftestError> {
    let kv = KvLayout {
        block_tokens: BLOCK_TOKENS,
        n_kv_heads: 2,
        head_dim: 12,
    };
    let block = BLOCK_TOKENS * kv.width();
    let mut noise = Noise::new(2);
    let (mut k, mut v) = (noise.units(3 * block), noise.units(3 * block));
    let mut cache = KvCache::from_values(kv, &k, &v, device)?;
    cache.grow(5)?;
    cache.copy_blocks(&[(2, 4), (0, 3)]);
    for values in [&mut k, &mut v] {
        values.extend_from_within(..block);
        values.extend_from_within(2 * block..3 * block);
    }
    compare("keys", cache.buffers().k.clone(), &k, |_| 0.0).await?;
    compare("values", cache.buffers().v.clone(), &v, |_| 0.0).await
}

/// Rows that ask for everything a draw can do, of which some draw from flat logits and some from steep ones.
fn draws(vocab: usize, noise: &mut Noise) -> (Vec<DrawRow>, Vec<f32>) {
    let mut rows = Vec::new();
    let mut logits = Vec::new();
    for (i, uniform) in (0..12).zip(noise.units(12)) {
        let adjustments = (0..vocab.min(i)).map(|token| match token % 3 {
            0 => (token as u32, f32::NEG_INFINITY),
            _ => (token as u32, token as f32 - 1.5),
        });
        rows.push(DrawRow {
            temperature: [0.0, 1.0, 0.6, 2.0][i % 4],
            top_p: [1.0, 0.9, 0.3, 0.0][i / 3],
            uniform: f64::from(uniform.abs()).min(0.999_999),
            adjustments: adjustments.collect(),
            n_top: [0, 1, 5, 3][(i / 2) % 4],
        });
        let steepness = [0.5, 8.0, 30.0][i % 3];
        logits.extend(noise.units(vocab).into_iter().map(|unit| steepness * unit));
    }
    // Logits that cannot be drawn, and equals.
    logits[..3].copy_from_slice(&[f32::NAN, f32::NEG_INFINITY, f32::NAN]);
    let (first, last) = (logits[vocab], 2 * vocab - 1);
    logits[last] = first;
    (rows, logits)
}

pub(super) async fn draw(
    vocab: usize,
    device: &Device,
    profile: Profile,
) -> Result<(), SelftestError> {
    let mut noise = Noise::new(vocab as u64);
    for _ in 0..4 {
        let (rows, logits) = draws(vocab, &mut noise);
        let Some(buffer) = DrawBuffer::new(rows.len(), device)? else {
            return Ok(()); // A CPU has the logits at hand.
        };
        let kind = DrawKind::of(rows.iter());
        buffer.write(rows.iter());
        let values = read(
            "draws",
            buffer.draw(matrix(&logits, vocab, device), kind, profile),
        )
        .await?;
        let drawn = Drawn::read(&values, rows.iter());
        for (i, (drawn, row)) in drawn.zip(&rows).enumerate() {
            check_draw(i, &drawn, &row.of(&logits[i * vocab..][..vocab]))?;
        }
    }
    Ok(())
}

fn check_draw(index: usize, actual: &Drawn, expected: &Drawn) -> Result<(), SelftestError> {
    let differs = |what, actual, expected, tolerance| SelftestError::Differs {
        what,
        index,
        actual,
        expected,
        tolerance,
    };
    let token = |token: Option<u32>| token.map_or(-1.0, |token| token as f32);
    if actual.token != expected.token {
        return Err(differs(
            "drawn token",
            token(actual.token),
            token(expected.token),
            0.0,
        ));
    }
    if actual.logit != expected.logit {
        return Err(differs("logit", actual.logit, expected.logit, 0.0));
    }
    if actual.top != expected.top {
        let first = |drawn: &Drawn| token(drawn.top.first().map(|&(token, _)| token));
        return Err(differs("likeliest", first(actual), first(expected), 0.0));
    }
    let tolerance = 1e-5 * expected.sum;
    let close = (actual.sum - expected.sum).abs() <= tolerance;
    let is_right = expected.top.is_empty() || close && actual.largest == expected.largest;
    if !is_right {
        return Err(differs("sum", actual.sum, expected.sum, tolerance));
    }
    Ok(())
}
