//! Rotary position embedding (Su et al., 2021) and the write of keys and values into the cache.

use super::step::StepRows;

/// Which elements of a head turn together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RopePairs {
    /// `2 i` with `2 i + 1`: the order that GGUF files of Llama keep their weights in.
    Interleaved,
    /// `i` with `i + rotary / 2`: as in GPT-NeoX and Qwen.
    Halves,
}

/// Parameters of [`rope_append`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RopeConfig {
    /// Which elements turn together.
    pub pairs: RopePairs,
    /// Factor on sine and cosine: YaRN's attention factor, 1 elsewhere.
    pub scale: f32,
    /// Elements in a head.
    pub head_dim: usize,
    /// Key-value heads of a row; its other heads are queries.
    pub n_kv_heads: usize,
    /// Tokens in a block of the cache.
    pub block_tokens: usize,
}

/// Turns queries and keys by their row's position, and writes each row's key and value at its slot of the cache.
///
/// Pair `i` of a head turns by `position * inv_freq[i]`; elements past the `2 * inv_freq.len()` rotary ones are left as they are.
///
/// # Shapes
/// - `qkv`: `[rows, (n_heads + 2 * n_kv_heads) * head_dim]`: queries, keys, values
/// - `inv_freq`: `[rotary / 2]`, radians per position
/// - `k_cache`, `v_cache`: `[blocks, n_kv_heads, block_tokens, head_dim]`
/// - `q`: `[rows, n_heads * head_dim]`
///
/// # Panics
/// The lengths do not fit, or a row's slot lies outside the cache.
pub fn rope_append(
    qkv: &[f32],
    inv_freq: &[f32],
    k_cache: &mut [f32],
    v_cache: &mut [f32],
    step: &StepRows<'_>,
    config: RopeConfig,
    q: &mut [f32],
) {
    let RopeConfig {
        pairs,
        scale,
        head_dim,
        n_kv_heads,
        block_tokens,
    } = config;
    let n_rows = step.n_rows();
    if n_rows == 0 {
        return;
    }
    let (q_width, kv_width) = (q.len() / n_rows, n_kv_heads * head_dim);
    assert!(
        block_tokens > 0 && kv_width > 0 && 2 * inv_freq.len() <= head_dim,
        "{} pairs, {config:?}",
        inv_freq.len()
    );
    assert!(
        q_width > 0 && q.len() == n_rows * q_width && q_width.is_multiple_of(head_dim),
        "{} queries, {n_rows} rows",
        q.len()
    );
    let width = q_width + 2 * kv_width;
    assert!(
        qkv.len() == n_rows * width,
        "{} queries, keys and values, {n_rows} rows of {width}",
        qkv.len()
    );
    assert!(
        k_cache.len() == v_cache.len() && k_cache.len().is_multiple_of(kv_width * block_tokens),
        "{} cached keys, {} cached values",
        k_cache.len(),
        v_cache.len()
    );

    let n_slots = k_cache.len() / kv_width;
    let rows = qkv.chunks_exact(width).zip(q.chunks_exact_mut(q_width));
    for ((qkv, q), row) in rows.zip(step.rows()) {
        assert!(row.slot < n_slots, "slot {} of {n_slots}", row.slot);
        let (queries, keys_values) = qkv.split_at(q_width);
        let (k, v) = keys_values.split_at(kv_width);
        q.copy_from_slice(queries);
        let (block, offset) = (row.slot / block_tokens, row.slot % block_tokens);
        let places = (0..n_kv_heads)
            .map(|head| ((block * n_kv_heads + head) * block_tokens + offset) * head_dim);
        let heads = k.chunks_exact(head_dim).zip(v.chunks_exact(head_dim));
        for (place, (k, v)) in places.clone().zip(heads) {
            k_cache[place..][..head_dim].copy_from_slice(k);
            v_cache[place..][..head_dim].copy_from_slice(v);
        }
        for (pair, frequency) in inv_freq.iter().enumerate() {
            let (sin, cos) = (row.position as f32 * frequency).sin_cos();
            let (sin, cos) = (sin * scale, cos * scale);
            let (a, b) = match pairs {
                RopePairs::Interleaved => (2 * pair, 2 * pair + 1),
                RopePairs::Halves => (pair, pair + inv_freq.len()),
            };
            let turn = |head: &mut [f32]| {
                (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[b] * cos + head[a] * sin);
            };
            q.chunks_exact_mut(head_dim).for_each(turn);
            for place in places.clone() {
                turn(&mut k_cache[place..][..head_dim]);
            }
        }
    }
}
