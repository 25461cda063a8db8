//! Causal grouped-query attention (Ainslie et al., 2023) over a paged cache (Kwon et al., 2023).

use std::array::from_fn;
use std::ops::Range;

use super::Scratch;
use super::exp::exp;
use super::share;
use super::simd::F32x4;
use super::step::StepRows;

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
/// First come all scores, then their maximum, `e^(score - maximum)` and its sum in four lanes, then the weights, each divided by the sum, and
/// last the weighted values, added up position by position.
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
                let head = Head {
                    blocks: step.blocks(row, block_tokens),
                    block_tokens,
                    n_positions: row.position + 1,
                    width: kv_width,
                    start: head * head_dim,
                    head_dim,
                };
                let padded = head.n_positions.next_multiple_of(4);
                let scores = &mut own.scores;
                scores.clear();
                scores.resize(group_width / head_dim * padded, f32::NEG_INFINITY);
                y.fill(0.0);
                for (positions, keys) in head.blocks_of(k_cache) {
                    let queries = q.chunks_exact(head_dim);
                    for (q, scores) in queries.zip(scores.chunks_exact_mut(padded)) {
                        score(q, &keys, scale, &mut scores[positions.clone()]);
                    }
                }
                for scores in scores.chunks_exact_mut(padded) {
                    softmax(scores);
                }
                for (positions, values) in head.blocks_of(v_cache) {
                    let heads = y.chunks_exact_mut(head_dim);
                    for (y, weights) in heads.zip(scores.chunks_exact(padded)) {
                        add_values(&weights[positions.clone()], &values, y);
                    }
                }
            }
        },
    );
}

/// Where one head of a sequence lies in the keys or the values.
struct Head<'a> {
    blocks: &'a [u32],
    block_tokens: usize,
    n_positions: usize,
    /// Values of all heads at a position.
    width: usize,
    /// The first of this head's.
    start: usize,
    head_dim: usize,
}

/// One head at neighbouring positions.
struct HeadRows<'a> {
    /// Begins with the head at the first of them; the next one's lies `width` further.
    values: &'a [f32],
    width: usize,
    head_dim: usize,
}

impl Head<'_> {
    /// The head in each block of `cache`, with the positions that it has there.
    fn blocks_of<'c>(
        &self,
        cache: &'c [f32],
    ) -> impl Iterator<Item = (Range<usize>, HeadRows<'c>)> {
        self.blocks.iter().enumerate().map(move |(b, &block)| {
            let start = b * self.block_tokens;
            let end = self.n_positions.min(start + self.block_tokens);
            let slot = block as usize * self.block_tokens;
            let rows = &cache[slot * self.width..(slot + end - start) * self.width];
            let rows = HeadRows {
                values: &rows[self.start..],
                width: self.width,
                head_dim: self.head_dim,
            };
            (start..end, rows)
        })
    }
}

impl<'a> HeadRows<'a> {
    #[inline(always)]
    fn at(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.width..][..self.head_dim]
    }
}

/// Writes `scale * q·k` of some positions.
fn score(q: &[f32], keys: &HeadRows<'_>, scale: f32, scores: &mut [f32]) {
    let (eights, rest) = scores.as_chunks_mut::<8>();
    let start_of_rest = 8 * eights.len();
    for (i, scores) in eights.iter_mut().enumerate() {
        let keys = from_fn(|row| keys.at(8 * i + row));
        *scores = dots::<8>(q, keys).map(|product| product * scale);
    }
    for (i, score) in rest.iter_mut().enumerate() {
        let [product] = dots(q, [keys.at(start_of_rest + i)]);
        *score = product * scale;
    }
}

/// `y += sum over positions of weight * value`.
fn add_values(weights: &[f32], values: &HeadRows<'_>, y: &mut [f32]) {
    let (lanes, rest) = y.as_chunks_mut::<4>();
    let (eights, lanes) = lanes.as_chunks_mut::<8>();
    let mut column = 0;
    for y in eights {
        add_columns(weights, values, column, y);
        column += 32;
    }
    for y in lanes {
        add_columns(weights, values, column, std::array::from_mut(y));
        column += 4;
    }
    for y in rest {
        for (row, weight) in weights.iter().enumerate() {
            *y += weight * values.at(row)[column];
        }
        column += 1;
    }
}

/// The same for `N` vectors of columns, which stay in registers.
#[inline(always)]
fn add_columns<const N: usize>(
    weights: &[f32],
    values: &HeadRows<'_>,
    column: usize,
    y: &mut [[f32; 4]; N],
) {
    let mut sums = y.each_ref().map(F32x4::load);
    for (weight, row) in weights.iter().zip(values.values.chunks(values.width)) {
        let weight = F32x4::splat(*weight);
        let (lanes, _) = row[column..][..4 * N].as_chunks::<4>();
        for (sum, value) in sums.iter_mut().zip(lanes) {
            *sum = *sum + weight * F32x4::load(value);
        }
    }
    for (y, sum) in y.iter_mut().zip(sums) {
        sum.store(y);
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

/// `q·k` for some keys. Each is added up in four lanes, the lanes then in pairs, and the values past the last whole four one by one.
#[inline(always)]
fn dots<const N: usize>(q: &[f32], keys: [&[f32]; N]) -> [f32; N] {
    let (q_lanes, q_rest) = q.as_chunks::<4>();
    let lanes = keys.map(|key| &key.as_chunks::<4>().0[..q_lanes.len()]);
    let mut sums = [F32x4::splat(0.0); N];
    for (i, q) in q_lanes.iter().enumerate() {
        let q = F32x4::load(q);
        for (sum, lanes) in sums.iter_mut().zip(lanes) {
            *sum = *sum + q * F32x4::load(&lanes[i]);
        }
    }
    let mut products = F32x4::sum_each(sums);
    for (product, key) in products.iter_mut().zip(keys) {
        let rest = &key[q.len() - q_rest.len()..];
        *product = q_rest
            .iter()
            .zip(rest)
            .fold(*product, |sum, (q, k)| sum + q * k);
    }
    products
}
