//! How each case runs.

use burn::tensor::Device;
use cinderlm_weights::{BlockType, PackedTensor};

use super::SelftestError;
use super::compare::{compare, interleaved, matrix, read, vector};
use crate::cpu::selftest::Noise;
use crate::device::is_cpu;
use crate::{
    AttentionParams, KvCache, KvLayout, PackedMatrix, Profile, RopeLayout, RopeParams, Step,
    StepRow, reference,
};

/// Numbers of rows that leave tiles of rows whole, partly filled and empty.
const ROW_COUNTS: [usize; 5] = [1, 2, 3, 5, 17];

fn on_device(tensor: &PackedTensor, device: &Device) -> Result<PackedMatrix, SelftestError> {
    Ok(PackedMatrix::from_packed(
        interleaved(tensor, PackedMatrix::interleave_for(device)),
        device,
    )?)
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
    let rounded = is_cpu(device) && !block_type.is_float();
    // Largest weight and sum of weights, in absolute terms, of each output.
    let sizes: Vec<(f32, f32)> = (0..n_rows)
        .map(|row| {
            let mut values = vec![0.0; n_cols];
            weights.dequantize_row(row, &mut values);
            values
                .iter()
                .fold((0.0, 0.0), |(largest, sum): (f32, f32), value| {
                    (largest.max(value.abs()), sum + value.abs())
                })
        })
        .collect();
    for n_x in ROW_COUNTS {
        let x = noise.units(n_x * n_cols);
        let tolerance = |index: usize| {
            let (largest, sum) = sizes[index % n_rows];
            let x = &x[index / n_rows * n_cols..][..n_cols];
            let x_sum: f32 = x.iter().map(|value| value.abs()).sum();
            let x_largest = x
                .iter()
                .fold(0.0f32, |largest, value| largest.max(value.abs()));
            2e-6 * (x_sum * largest + 1.0)
                + if rounded {
                    x_largest / 65_534.0 * sum
                } else {
                    0.0
                }
        };
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

pub(super) async fn rms_norm(
    width: usize,
    device: &Device,
    profile: Profile,
) -> Result<(), SelftestError> {
    let mut noise = Noise::new(width as u64);
    let weight = noise.units(width);
    for n_rows in ROW_COUNTS {
        let x = noise.units(n_rows * width);
        let y = crate::rms_norm(
            matrix(&x, width, device),
            vector(&weight, device),
            1e-5,
            profile,
        );
        let expected = reference::rms_norm(&x, &weight, 1e-5);
        compare("norm", y, &expected, |index| {
            2e-6 * (1.0 + expected[index].abs())
        })
        .await?;
    }
    Ok(())
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
    profile: Profile,
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
    let (mut q, k, v) = (
        noise.units(4 * n_heads * head_dim),
        noise.units(4 * kv.width()),
        noise.units(4 * kv.width()),
    );
    let (q_width, kv_width) = (n_heads * head_dim, kv.width());
    let turned = crate::rope_append(
        matrix(&q, q_width, device),
        matrix(&k, kv_width, device),
        matrix(&v, kv_width, device),
        vector(&inv_freq, device),
        &mut cache,
        &Step::new(&rows, &tables, device),
        layout,
        scale,
        profile,
    );
    let params = RopeParams {
        layout,
        scale,
        head_dim,
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
    let (rows, tables) = rows_at(&[(0, 0), (0, 50), (1, 11), (0, 3), (0, 4), (1, 7), (0, 33)]);
    let step = Step::new(&rows, &tables, device);
    let q: Vec<f32> = noise
        .units(rows.len() * n_heads * head_dim)
        .into_iter()
        .map(|value| 4.0 * value)
        .collect();
    let params = AttentionParams {
        n_heads,
        n_kv_heads,
        head_dim,
        block_tokens: BLOCK_TOKENS,
        scale: (head_dim as f32).sqrt().recip(),
    };
    let y = crate::attention(
        matrix(&q, n_heads * head_dim, device),
        &cache,
        &step,
        n_heads,
        params.scale,
        profile,
    );
    compare(
        "attention",
        y,
        &reference::attention(&q, &k_cache, &v_cache, &rows, &tables, params),
        |_| 2e-6,
    )
    .await
}

pub(super) async fn swiglu(device: &Device) -> Result<(), SelftestError> {
    let mut noise = Noise::new(1);
    let mut gate: Vec<f32> = noise
        .units(3 * 50)
        .into_iter()
        .map(|value| 10.0 * value)
        .collect();
    gate[..6].copy_from_slice(&[0.0, -0.0, 100.0, -100.0, 1000.0, -1000.0]);
    let up = noise.units(gate.len());
    let y = crate::swiglu(matrix(&gate, 50, device), matrix(&up, 50, device));
    let expected = reference::swiglu(&gate, &up);
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
