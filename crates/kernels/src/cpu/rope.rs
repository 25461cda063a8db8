//! Rotary position embedding (Su et al., 2021) and the write of keys and values into the cache.

use super::Scratch;
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
#[expect(
    clippy::too_many_arguments,
    reason = "three of them are written, three read, and the step: a struct would only rename them"
)]
pub fn rope_append(
    qkv: &[f32],
    inv_freq: &[f32],
    k_cache: &mut [f32],
    v_cache: &mut [f32],
    step: &StepRows<'_>,
    config: RopeConfig,
    scratch: &mut Scratch,
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
    let turns = scratch.turns.of(step, inv_freq, scale);
    let rows = qkv.chunks_exact(width).zip(q.chunks_exact_mut(q_width));
    for (i, ((qkv, q), row)) in rows.zip(step.rows()).enumerate() {
        assert!(row.slot < n_slots, "slot {} of {n_slots}", row.slot);
        let turns = &turns[i * inv_freq.len()..][..inv_freq.len()];
        let (queries, keys_values) = qkv.split_at(q_width);
        let (k, v) = keys_values.split_at(kv_width);
        q.copy_from_slice(queries);
        for head in q.chunks_exact_mut(head_dim) {
            turn(head, turns, pairs);
        }
        let (block, offset) = (row.slot / block_tokens, row.slot % block_tokens);
        let places = (0..n_kv_heads)
            .map(|head| ((block * n_kv_heads + head) * block_tokens + offset) * head_dim);
        let heads = k.chunks_exact(head_dim).zip(v.chunks_exact(head_dim));
        for (place, (k, v)) in places.zip(heads) {
            let key = &mut k_cache[place..][..head_dim];
            key.copy_from_slice(k);
            turn(key, turns, pairs);
            v_cache[place..][..head_dim].copy_from_slice(v);
        }
    }
}

/// Turns one head, each pair by its sine and cosine.
#[inline(always)]
fn turn(head: &mut [f32], turns: &[[f32; 2]], pairs: RopePairs) {
    let rotate = |a: &mut f32, b: &mut f32, [sin, cos]: [f32; 2]| {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    };
    match pairs {
        RopePairs::Interleaved => {
            let (neighbours, _) = head.as_chunks_mut::<2>();
            for ([a, b], by) in neighbours.iter_mut().zip(turns) {
                rotate(a, b, *by);
            }
        }
        RopePairs::Halves => {
            let (first, second) = head.split_at_mut(turns.len());
            for ((a, b), by) in first.iter_mut().zip(second).zip(turns) {
                rotate(a, b, *by);
            }
        }
    }
}

/// Sines and cosines of a step. All its layers turn by the same ones.
#[derive(Debug, Default)]
pub(super) struct Turns {
    positions: Vec<usize>,
    inv_freq: Vec<f32>,
    scale: f32,
    /// `[rows, inv_freq]`: sine and cosine, each times the scale.
    values: Vec<[f32; 2]>,
}

impl Turns {
    /// Those of a step, made anew if the last ones are another's.
    fn of(&mut self, step: &StepRows<'_>, inv_freq: &[f32], scale: f32) -> &[[f32; 2]] {
        let positions = || step.rows().map(|row| row.position);
        let is_same = self.scale == scale
            && self.inv_freq == inv_freq
            && self.positions.iter().copied().eq(positions());
        if !is_same {
            self.scale = scale;
            self.inv_freq.clear();
            self.inv_freq.extend_from_slice(inv_freq);
            self.positions.clear();
            self.positions.extend(positions());
            self.values.clear();
            for position in &self.positions {
                self.values.extend(inv_freq.iter().map(|frequency| {
                    let (sin, cos) = (*position as f32 * frequency).sin_cos();
                    [sin * scale, cos * scale]
                }));
            }
        }
        &self.values
    }
}
