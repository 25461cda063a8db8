//! Every operation written out on slices in f32, slowly and so plainly that it can be checked by reading. Tests hold the CPU kernels and
//! the GPU kernels against it; nothing else calls it.
//!
//! Shapes and meanings are those of the functions on tensors in the crate root. A step is its rows and its tables apart, and
//! [`StepRow::table`] counts from the start of the step's data, as there.

use cinderlm_weights::PackedTensor;

use crate::step::step_words;
use crate::{AttentionParams, RopeLayout, RopeParams, StepRow};

/// See [`crate::embed`].
pub fn embed(table: &PackedTensor, rows: &[StepRow]) -> Vec<f32> {
    rows.iter()
        .flat_map(|row| dequantized(table, row.token as usize))
        .collect()
}

/// See [`crate::Norm`]. Sums are f64.
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let norm = |row: &[f32]| {
        let mean = row
            .iter()
            .map(|&value| f64::from(value).powi(2))
            .sum::<f64>()
            / row.len() as f64;
        let factor = 1.0 / (mean + f64::from(epsilon)).sqrt();
        row.iter()
            .zip(weight)
            .map(|(&value, &weight)| (f64::from(value) * factor) as f32 * weight)
            .collect::<Vec<_>>()
    };
    x.chunks_exact(weight.len()).flat_map(norm).collect()
}

/// See [`crate::linear`]. Activations are not rounded; sums are f64.
pub fn linear(x: &[f32], w: &PackedTensor, bias: Option<&[f32]>) -> Vec<f32> {
    let (n_rows, n_cols) = (w.layout.n_rows, w.layout.n_cols);
    let mut y = vec![0.0; x.len() / n_cols * n_rows];
    for output in 0..n_rows {
        let weights = dequantized(w, output);
        for (x, y) in x.chunks_exact(n_cols).zip(y.chunks_exact_mut(n_rows)) {
            y[output] = dot(x, &weights) as f32 + bias.map_or(0.0, |bias| bias[output]);
        }
    }
    y
}

/// See [`crate::rope_append`]: turns `q`, and writes turned keys and the values to the caches.
#[allow(clippy::too_many_arguments, reason = "the operands of one operation")]
pub fn rope_append(
    q: &mut [f32],
    k: &[f32],
    v: &[f32],
    inv_freq: &[f32],
    k_cache: &mut [f32],
    v_cache: &mut [f32],
    rows: &[StepRow],
    params: RopeParams,
) {
    let (q_width, kv_width) = (q.len() / rows.len(), k.len() / rows.len());
    for (i, row) in rows.iter().enumerate() {
        rotate(
            &mut q[i * q_width..][..q_width],
            row.position,
            inv_freq,
            params,
        );
        let mut key = k[i * kv_width..][..kv_width].to_vec();
        rotate(&mut key, row.position, inv_freq, params);
        let value = &v[i * kv_width..][..kv_width];
        for head in 0..params.n_kv_heads {
            let place = place_of(
                row.slot as usize,
                head,
                params.n_kv_heads,
                params.block_tokens,
            );
            let (from, to) = (head * params.head_dim, place * params.head_dim);
            k_cache[to..][..params.head_dim].copy_from_slice(&key[from..][..params.head_dim]);
            v_cache[to..][..params.head_dim].copy_from_slice(&value[from..][..params.head_dim]);
        }
    }
}

/// Where in a cache the key or value of a slot and a head is, counted in heads.
fn place_of(slot: usize, head: usize, n_kv_heads: usize, block_tokens: usize) -> usize {
    (slot / block_tokens * n_kv_heads + head) * block_tokens + slot % block_tokens
}

/// Turns all heads of one row.
fn rotate(heads: &mut [f32], position: u32, inv_freq: &[f32], params: RopeParams) {
    for head in heads.chunks_exact_mut(params.head_dim) {
        for (i, &frequency) in inv_freq.iter().enumerate() {
            let (a, b) = match params.layout {
                RopeLayout::Interleaved => (2 * i, 2 * i + 1),
                RopeLayout::Halves => (i, i + inv_freq.len()),
            };
            // The angle is rounded to f32, as the models' own implementations do; its sine and cosine are exact.
            let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
            let (sin, cos) = (sin * f64::from(params.scale), cos * f64::from(params.scale));
            let (x, y) = (f64::from(head[a]), f64::from(head[b]));
            head[a] = (x * cos - y * sin) as f32;
            head[b] = (x * sin + y * cos) as f32;
        }
    }
}

/// See [`crate::attention`]. Softmax in two passes; sums are f64.
pub fn attention(
    q: &[f32],
    k_cache: &[f32],
    v_cache: &[f32],
    rows: &[StepRow],
    tables: &[u32],
    params: AttentionParams,
) -> Vec<f32> {
    let AttentionParams {
        n_heads,
        n_kv_heads,
        head_dim,
        block_tokens,
        scale,
        n_chunks: _,
    } = params;
    let words = step_words(rows, tables);
    let mut y = Vec::with_capacity(q.len());
    for (row, q) in rows.iter().zip(q.chunks_exact(n_heads * head_dim)) {
        let slot = |position: usize| {
            words[row.table as usize + position / block_tokens] as usize * block_tokens
                + position % block_tokens
        };
        for (head, q) in q.chunks_exact(head_dim).enumerate() {
            let kv_head = head / (n_heads / n_kv_heads);
            let of = |cache: &'_ [f32], position| {
                let place = place_of(slot(position), kv_head, n_kv_heads, block_tokens);
                cache[place * head_dim..][..head_dim].to_vec()
            };
            let positions = 0..=row.position as usize;
            let scores: Vec<f64> = positions
                .clone()
                .map(|position| f64::from(scale) * dot(q, &of(k_cache, position)))
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            y.extend((0..head_dim).map(|d| {
                let sum: f64 = positions
                    .clone()
                    .map(|position| weights[position] * f64::from(of(v_cache, position)[d]))
                    .sum();
                (sum / total) as f32
            }));
        }
    }
    y
}

/// See [`crate::swiglu`]: rows of a gate and what it gates, `width` values each.
pub fn swiglu(x: &[f32], width: usize) -> Vec<f32> {
    let gated = |(&gate, &up): (&f32, &f32)| {
        let gate = f64::from(gate);
        (gate / (1.0 + (-gate).exp()) * f64::from(up)) as f32
    };
    x.chunks_exact(2 * width)
        .flat_map(|row| row[..width].iter().zip(&row[width..]).map(gated))
        .collect()
}

fn dequantized(tensor: &PackedTensor, row: usize) -> Vec<f32> {
    let mut values = vec![0.0; tensor.layout.n_cols];
    tensor.dequantize_row(row, &mut values);
    values
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .sum()
}
