//! Causal grouped-query attention (Ainslie et al., 2023) over a paged cache (Kwon et al., 2023).

use super::Scratch;
use super::exp::exp;
use super::share;
use super::simd::F32x4;
use super::step::StepRows;

/// Positions that are taken together.
const TILE: usize = 4;

/// Parameters of [`attention`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AttentionConfig {
    /// Query heads.
    pub n_heads: usize,
    /// Key-value heads, each shared by `n_heads / n_kv_heads` query heads that lie side by side.
    pub n_kv_heads: usize,
    /// Elements in a head.
    pub head_dim: usize,
    /// Tokens in a block of the cache.
    pub block_tokens: usize,
    /// Factor on the products of queries and keys: `1 / sqrt(head_dim)` in most models.
    pub scale: f32,
}

/// `y = softmax(scale * q Kᵀ) V`, each row over positions `0..=position` of its own sequence.
///
/// # Shapes
/// - `q`, `y`: `[rows, n_heads * head_dim]`
/// - `k_cache`, `v_cache`: `[slots, n_kv_heads * head_dim]`
///
/// Positions are taken by fours within each block: first all scores, then their maximum, `e^(score - maximum)` and its sum in four
/// lanes, then the weights `p`, each divided by the sum, and last `y += (p0 v0 + p1 v1) + (p2 v2 + p3 v3)` per four.
///
/// # Panics
/// The lengths do not fit, a dimension is zero, or a block table leaves the step or the cache.
pub fn attention(
    q: &[f32],
    k_cache: &[f32],
    v_cache: &[f32],
    step: &StepRows<'_>,
    config: AttentionConfig,
    scratch: &mut Scratch,
    y: &mut [f32],
) {
    let AttentionConfig {
        n_heads,
        n_kv_heads,
        head_dim,
        block_tokens,
        scale,
    } = config;
    assert!(
        n_kv_heads > 0 && n_heads.is_multiple_of(n_kv_heads),
        "{n_heads} heads over {n_kv_heads}"
    );
    assert!(
        n_heads > 0 && head_dim > 0 && block_tokens > 0,
        "{config:?}"
    );
    let (q_width, kv_width) = (n_heads * head_dim, n_kv_heads * head_dim);
    assert!(
        q.len() == step.n_rows() * q_width && y.len() == q.len(),
        "{} queries, {} outputs, {step:?}",
        q.len(),
        y.len()
    );
    assert!(
        k_cache.len() == v_cache.len() && k_cache.len().is_multiple_of(kv_width),
        "{} cached keys",
        k_cache.len()
    );

    let group_width = q_width / n_kv_heads;
    let n_blocks = k_cache.len() / kv_width / block_tokens;
    for row in step.rows() {
        let blocks = step.blocks(row, block_tokens);
        assert!(
            blocks.iter().all(|&block| (block as usize) < n_blocks),
            "a block past the {n_blocks} of the cache"
        );
    }
    let n_positions: usize = step.rows().map(|row| row.position + 1).sum();
    let n_parts = share::n_parts(
        step.n_rows() * n_kv_heads,
        n_positions.saturating_mul(2 * q_width),
    );
    share::units(
        n_parts,
        y,
        group_width,
        &mut scratch.own,
        |units, y, own| {
            // A unit is what one row gets of the query heads that share a key-value head.
            let queries = q.chunks_exact(group_width).skip(units.start);
            for ((unit, q), y) in units.zip(queries).zip(y.chunks_exact_mut(group_width)) {
                let (row, head) = (step.row(unit / n_kv_heads), unit % n_kv_heads);
                let tiles = Tiles {
                    blocks: step.blocks(row, block_tokens),
                    block_tokens,
                    n_positions: row.position + 1,
                };
                let keys = Cached {
                    values: k_cache,
                    width: kv_width,
                    start: head * head_dim,
                    head_dim,
                };
                let values = Cached {
                    values: v_cache,
                    ..keys
                };
                let padded = tiles.n_positions.next_multiple_of(TILE);
                let scores = &mut own.scores;
                scores.clear();
                scores.resize(group_width / head_dim * padded, f32::NEG_INFINITY);
                score(q, keys, &tiles, scale, scores, padded);
                y.fill(0.0);
                add_values(scores, padded, values, &tiles, y);
            }
        },
    );
}

/// One head of the keys or the values.
#[derive(Clone, Copy)]
struct Cached<'a> {
    values: &'a [f32],
    width: usize,
    start: usize,
    head_dim: usize,
}

impl<'a> Cached<'a> {
    #[inline(always)]
    fn at(&self, slot: usize) -> &'a [f32] {
        &self.values[slot * self.width + self.start..][..self.head_dim]
    }
}

/// The positions of a sequence by fours.
struct Tiles<'a> {
    blocks: &'a [u32],
    block_tokens: usize,
    n_positions: usize,
}

/// Up to four neighbouring positions of one block.
struct Tile {
    /// The first of them.
    position: usize,
    n_positions: usize,
    /// Their slots, the last one repeated.
    slots: [usize; TILE],
}

impl Tiles<'_> {
    fn iter(&self) -> impl Iterator<Item = Tile> {
        self.blocks.iter().enumerate().flat_map(move |(b, &block)| {
            let start = b * self.block_tokens;
            let n_tokens = self.block_tokens.min(self.n_positions - start);
            (0..n_tokens).step_by(TILE).map(move |offset| Tile {
                position: start + offset,
                n_positions: TILE.min(n_tokens - offset),
                slots: [0, 1, 2, 3]
                    .map(|i| block as usize * self.block_tokens + (offset + i).min(n_tokens - 1)),
            })
        })
    }
}

/// Writes `scale * q·k` of every position, head by head, `padded` scores each.
fn score(
    q: &[f32],
    keys: Cached<'_>,
    tiles: &Tiles<'_>,
    scale: f32,
    scores: &mut [f32],
    padded: usize,
) {
    for tile in tiles.iter() {
        let keys_of_tile = tile.slots.map(|slot| keys.at(slot));
        for (q, scores) in q
            .chunks_exact(keys.head_dim)
            .zip(scores.chunks_exact_mut(padded))
        {
            let products = dot4(q, keys_of_tile).map(|product| product * scale);
            scores[tile.position..][..tile.n_positions]
                .copy_from_slice(&products[..tile.n_positions]);
        }
    }
}

/// Turns scores into weights and adds the weighted values to `y`, head by head.
fn add_values(
    scores: &mut [f32],
    padded: usize,
    values: Cached<'_>,
    tiles: &Tiles<'_>,
    y: &mut [f32],
) {
    for scores in scores.chunks_exact_mut(padded) {
        softmax(scores);
    }
    for tile in tiles.iter() {
        let values_of_tile = tile.slots.map(|slot| values.at(slot));
        for (y, scores) in y
            .chunks_exact_mut(values.head_dim)
            .zip(scores.chunks_exact(padded))
        {
            let mut weights = [0.0; TILE];
            weights[..tile.n_positions]
                .copy_from_slice(&scores[tile.position..][..tile.n_positions]);
            axpy4(weights, values_of_tile, y);
        }
    }
}

/// `e^(score - max) / sum`. `scores` is whole fours, filled up with minus infinity, which adds less than the sum's round-off.
fn softmax(scores: &mut [f32]) {
    let (scores, _) = scores.as_chunks_mut::<4>();
    let lowest = F32x4::splat(f32::NEG_INFINITY);
    let max = F32x4::splat(
        scores
            .iter()
            .fold(lowest, |max, scores| max.max(F32x4::load(scores)))
            .max_lane(),
    );
    let mut sum = F32x4::splat(0.0);
    for scores in scores.iter_mut() {
        let power = exp(F32x4::load(scores) - max);
        power.store(scores);
        sum = sum + power;
    }
    let scale = F32x4::splat(1.0 / sum.sum());
    for scores in scores {
        (F32x4::load(scores) * scale).store(scores);
    }
}

/// `q·k` for four keys. Each is added up in four lanes, the lanes then in pairs, and the values past the last whole four one by one.
#[inline(always)]
fn dot4(q: &[f32], keys: [&[f32]; TILE]) -> [f32; TILE] {
    let (q_lanes, q_rest) = q.as_chunks::<4>();
    let lanes = keys.map(|key| &key.as_chunks::<4>().0[..q_lanes.len()]);
    let mut sums = [F32x4::splat(0.0); TILE];
    for (i, q) in q_lanes.iter().enumerate() {
        let q = F32x4::load(q);
        for (sum, lanes) in sums.iter_mut().zip(lanes) {
            *sum = *sum + q * F32x4::load(&lanes[i]);
        }
    }
    let mut products = F32x4::sums(sums).to_array();
    for (product, key) in products.iter_mut().zip(keys) {
        let rest = &key[q.len() - q_rest.len()..];
        *product = q_rest
            .iter()
            .zip(rest)
            .fold(*product, |sum, (q, k)| sum + q * k);
    }
    products
}

/// `y += (w0 v0 + w1 v1) + (w2 v2 + w3 v3)`.
#[inline(always)]
fn axpy4(weights: [f32; TILE], values: [&[f32]; TILE], y: &mut [f32]) {
    let (y_lanes, y_rest) = y.as_chunks_mut::<4>();
    let n_lanes = y_lanes.len();
    let lanes = values.map(|value| &value.as_chunks::<4>().0[..n_lanes]);
    let splats = weights.map(F32x4::splat);
    for (i, y) in y_lanes.iter_mut().enumerate() {
        let [a, b, c, d] = [0, 1, 2, 3].map(|t| splats[t] * F32x4::load(&lanes[t][i]));
        (F32x4::load(y) + ((a + b) + (c + d))).store(y);
    }
    for (i, y) in y_rest.iter_mut().enumerate() {
        let [a, b, c, d] = [0, 1, 2, 3].map(|t| weights[t] * values[t][4 * n_lanes + i]);
        *y += (a + b) + (c + d);
    }
}
