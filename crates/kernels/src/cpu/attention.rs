//! Causal grouped-query attention (Ainslie et al., 2023) over a paged cache (Kwon et al., 2023).

use std::array::from_fn;
use std::ops::Range;

use super::exp::exp;
use super::share;
use super::simd::F32x4;
use super::step::StepRows;
use super::{Own, Scratch};

/// Positions of a sequence that are attended to together, or as many more as make whole blocks.
const CHUNK: usize = 128;
/// Units for each thread from which on query heads go together that share a key-value head: one unit more or less is a quarter at most.
const EVEN_UNITS: usize = 4;
/// Units for each thread from which on no unit's chunks are shared.
const MANY_UNITS: usize = 8;
/// What a partial result has behind its values, see [`Unit`].
const N_STATS: usize = 2;

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
/// - `k_cache`, `v_cache`: `[blocks, n_kv_heads, block_tokens, head_dim]`
///
/// Positions are taken in chunks of 128, or as many more as make whole blocks. Of each come first all scores, then their maximum, the weights
/// `e^(score - maximum)` and their sum in four lanes, and last the weighted values, added up position by position. Chunk by chunk these are then
/// brought to the larger maximum and added, and in the end divided by the sum (Dao et al., 2022). An infinity or NaN among the scores or values
/// makes the outputs that it reaches infinite or NaN.
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
    check(q, k_cache, v_cache, step, config, y.len());
    let AttentionConfig {
        n_heads,
        n_kv_heads,
        head_dim,
        block_tokens,
        ..
    } = config;
    let blocks_per_chunk = CHUNK.div_ceil(block_tokens);
    let longest = step.rows().map(|row| row.position + 1).max().unwrap_or(0);
    let most_chunks = longest.div_ceil(blocks_per_chunk * block_tokens);
    let n_positions: usize = step.rows().map(|row| row.position + 1).sum();
    // Scores and weights take about as long as the multiplications.
    let work = n_positions.saturating_mul(4 * n_heads * head_dim);
    let n_parts = share::n_parts(step.n_rows() * n_heads * most_chunks, work);
    // Query heads that share a key-value head read it one after the other, which keeps it near; but where that leaves threads unequal shares, each
    // head is one of its own.
    let n_shared = step.n_rows() * n_kv_heads * most_chunks;
    let heads_per_unit = if n_parts < 2 || share::has_each(n_shared, EVEN_UNITS) {
        n_heads / n_kv_heads
    } else {
        1
    };
    let units = Units {
        q,
        k_cache,
        v_cache,
        step,
        config,
        heads_per_unit,
        blocks_per_chunk,
    };
    let n_units = units.len();
    if n_parts <= n_units || share::has_each(n_units, MANY_UNITS) {
        units.attend(n_parts.min(n_units), &mut scratch.own, y);
    } else {
        let n_parts = n_parts.min(n_units * most_chunks);
        units.attend_in_chunks(n_parts, most_chunks, scratch, y);
    }
}

/// Holds operands against each other. A function of its own, as are those that it is followed by: browsers' compilers take long for long ones, beside the
/// first tokens of a page.
#[inline(never)]
fn check(
    q: &[f32],
    k_cache: &[f32],
    v_cache: &[f32],
    step: &StepRows<'_>,
    config: AttentionConfig,
    n_outputs: usize,
) {
    let AttentionConfig {
        n_heads,
        n_kv_heads,
        head_dim,
        block_tokens,
        ..
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
        q.len() == step.n_rows() * q_width && n_outputs == q.len(),
        "{} queries, {n_outputs} outputs, {step:?}",
        q.len(),
    );
    assert!(
        k_cache.len() == v_cache.len() && k_cache.len().is_multiple_of(kv_width),
        "{} cached keys",
        k_cache.len()
    );
    let n_blocks = k_cache.len() / kv_width / block_tokens;
    for row in step.rows() {
        let blocks = step.blocks(row, block_tokens);
        assert!(
            blocks.iter().all(|&block| (block as usize) < n_blocks),
            "a block past the {n_blocks} of the cache"
        );
    }
}

/// The operands, cut into units: heads of a row.
struct Units<'a> {
    q: &'a [f32],
    k_cache: &'a [f32],
    v_cache: &'a [f32],
    step: &'a StepRows<'a>,
    config: AttentionConfig,
    heads_per_unit: usize,
    blocks_per_chunk: usize,
}

impl Units<'_> {
    fn len(&self) -> usize {
        self.step.n_rows() * self.per_row()
    }

    fn per_row(&self) -> usize {
        self.config.n_heads / self.heads_per_unit
    }

    /// Values of a unit, in `q` and in the outputs.
    fn width(&self) -> usize {
        self.heads_per_unit * self.config.head_dim
    }

    fn unit(&self, unit: usize) -> Unit<'_> {
        let AttentionConfig {
            n_kv_heads,
            head_dim,
            block_tokens,
            scale,
            ..
        } = self.config;
        let (per_row, width) = (self.per_row(), self.width());
        let row = self.step.row(unit / per_row);
        Unit {
            q: &self.q[unit * width..][..width],
            k_cache: self.k_cache,
            v_cache: self.v_cache,
            scale,
            blocks_per_chunk: self.blocks_per_chunk,
            head: Head {
                blocks: self.step.blocks(row, block_tokens),
                block_tokens,
                n_positions: row.position + 1,
                n_kv_heads,
                kv_head: unit % per_row * n_kv_heads / per_row,
                head_dim,
            },
        }
    }

    /// Threads share the units.
    #[inline(never)]
    fn attend(&self, n_parts: usize, own: &mut Own, y: &mut [f32]) {
        let width = self.width();
        share::units(n_parts, y, width, own, |units, y, own| {
            for (i, y) in units.zip(y.chunks_exact_mut(width)) {
                self.unit(i).attend(own, y);
            }
        });
    }

    /// Units are few, as of a single token: threads share their chunks, of which none has more than `most_chunks`.
    #[inline(never)]
    fn attend_in_chunks(
        &self,
        n_parts: usize,
        most_chunks: usize,
        scratch: &mut Scratch,
        y: &mut [f32],
    ) {
        let Scratch { partials, own, .. } = scratch;
        let head_dim = self.config.head_dim;
        let partial_len = self.heads_per_unit * (head_dim + N_STATS);
        partials.clear();
        partials.resize(self.len() * most_chunks * partial_len, 0.0);
        share::units(
            n_parts,
            partials,
            partial_len,
            own,
            |places, partials, own| {
                for (place, partial) in places.zip(partials.chunks_exact_mut(partial_len)) {
                    let (i, chunk) = (place / most_chunks, place % most_chunks);
                    let unit = self.unit(i);
                    if chunk < unit.n_chunks() {
                        unit.attend_to_chunk(chunk, &mut own.scores, partial);
                    }
                }
            },
        );
        let units = partials.chunks_exact_mut(most_chunks * partial_len);
        for ((i, partials), y) in units.enumerate().zip(y.chunks_exact_mut(self.width())) {
            let (total, others) = partials.split_at_mut(partial_len);
            let others = others.chunks_exact(partial_len);
            for other in others.take(self.unit(i).n_chunks() - 1) {
                add_partial(total, other, head_dim);
            }
            finish(total, head_dim, y);
        }
    }
}

/// Some queries of one row that share a key-value head, with what they attend to.
///
/// What they get from a chunk of positions is *partial*: for each query head its weighted values, then the maximum of its scores, then the sum of
/// its weights.
struct Unit<'a> {
    q: &'a [f32],
    k_cache: &'a [f32],
    v_cache: &'a [f32],
    scale: f32,
    blocks_per_chunk: usize,
    head: Head<'a>,
}

impl Unit<'_> {
    fn n_chunks(&self) -> usize {
        self.head.blocks.len().div_ceil(self.blocks_per_chunk)
    }

    fn attend(&self, own: &mut Own, y: &mut [f32]) {
        let head_dim = self.head.head_dim;
        let partial_len = y.len() / head_dim * (head_dim + N_STATS);
        own.partials.resize(2 * partial_len, 0.0);
        let (total, other) = own.partials.split_at_mut(partial_len);
        self.attend_to_chunk(0, &mut own.scores, total);
        for chunk in 1..self.n_chunks() {
            self.attend_to_chunk(chunk, &mut own.scores, other);
            add_partial(total, other, head_dim);
        }
        finish(total, head_dim, y);
    }

    /// What a chunk gives.
    fn attend_to_chunk(&self, chunk: usize, scores: &mut Vec<f32>, partial: &mut [f32]) {
        let head = &self.head;
        let first_block = chunk * self.blocks_per_chunk;
        let blocks = first_block..head.blocks.len().min(first_block + self.blocks_per_chunk);
        let start = first_block * head.block_tokens;
        let n_positions = head.n_positions.min(blocks.end * head.block_tokens) - start;
        let padded = n_positions.next_multiple_of(4);
        let heads = self.q.chunks_exact(head.head_dim);
        scores.clear();
        scores.resize(heads.len() * padded, f32::NEG_INFINITY);
        partial.fill(0.0);
        for (positions, keys) in head.blocks_of(self.k_cache, blocks.clone()) {
            for (q, scores) in heads.clone().zip(scores.chunks_exact_mut(padded)) {
                score(q, &keys, self.scale, &mut scores[positions.clone()]);
            }
        }
        let partials = partial.chunks_exact_mut(head.head_dim + N_STATS);
        for (scores, partial) in scores.chunks_exact_mut(padded).zip(partials) {
            let (max, sum) = exponentiate(scores);
            partial[head.head_dim..].copy_from_slice(&[max, sum]);
        }
        for (positions, values) in head.blocks_of(self.v_cache, blocks) {
            let partials = partial.chunks_exact_mut(head.head_dim + N_STATS);
            for (partial, weights) in partials.zip(scores.chunks_exact(padded)) {
                let y = &mut partial[..head.head_dim];
                add_values(&weights[positions.clone()], &values, y);
            }
        }
    }
}

/// Adds what another chunk gave.
fn add_partial(total: &mut [f32], other: &[f32], head_dim: usize) {
    let len = head_dim + N_STATS;
    for (total, other) in total.chunks_exact_mut(len).zip(other.chunks_exact(len)) {
        let max = total[head_dim].max(other[head_dim]);
        let [factor, other_factor] = [&*total, other].map(|partial| {
            let [power, ..] = exp(F32x4::splat(partial[head_dim] - max)).to_array();
            power
        });
        // The sum of weights, which comes last, is brought to the larger maximum as the values are.
        for (total, other) in total.iter_mut().zip(other) {
            *total = *total * factor + *other * other_factor;
        }
        total[head_dim] = max;
    }
}

/// Divides by the sum of weights.
fn finish(total: &[f32], head_dim: usize, y: &mut [f32]) {
    let heads = total.chunks_exact(head_dim + N_STATS);
    for (total, y) in heads.zip(y.chunks_exact_mut(head_dim)) {
        let scale = 1.0 / total[head_dim + 1];
        for (y, value) in y.iter_mut().zip(total) {
            *y = value * scale;
        }
    }
}

/// Where one head of a sequence lies in the keys or the values.
struct Head<'a> {
    blocks: &'a [u32],
    block_tokens: usize,
    n_positions: usize,
    /// Key-value heads in all.
    n_kv_heads: usize,
    /// Which of them this is.
    kv_head: usize,
    head_dim: usize,
}

/// One head at neighbouring positions.
struct HeadRows<'a> {
    /// Position by position.
    values: &'a [f32],
    head_dim: usize,
}

impl Head<'_> {
    /// The head in some blocks of `cache`, with the positions that it has there, counted from the first one's.
    fn blocks_of<'c>(
        &self,
        cache: &'c [f32],
        blocks: Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, HeadRows<'c>)> {
        let first = blocks.start * self.block_tokens;
        blocks.map(move |b| {
            let (start, block) = (b * self.block_tokens, self.blocks[b]);
            let end = self.n_positions.min(start + self.block_tokens);
            let from = (block as usize * self.n_kv_heads + self.kv_head) * self.block_tokens;
            let rows = HeadRows {
                values: &cache[from * self.head_dim..][..(end - start) * self.head_dim],
                head_dim: self.head_dim,
            };
            (start - first..end - first, rows)
        })
    }
}

impl<'a> HeadRows<'a> {
    #[inline(always)]
    fn at(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.head_dim..][..self.head_dim]
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
    for (weight, row) in weights
        .iter()
        .zip(values.values.chunks_exact(values.head_dim))
    {
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

/// Turns scores into `e^(score - max)`; gives the maximum and the sum of these. `scores` is whole fours, filled up with minus infinity, which adds less
/// than the sum's round-off.
fn exponentiate(scores: &mut [f32]) -> (f32, f32) {
    let (scores, _) = scores.as_chunks_mut::<4>();
    let lowest = F32x4::splat(f32::NEG_INFINITY);
    let max = scores
        .iter()
        .fold(lowest, |max, scores| max.max(F32x4::load(scores)))
        .max_lane();
    let mut sum = F32x4::splat(0.0);
    for scores in scores {
        let power = exp(F32x4::load(scores) - F32x4::splat(max));
        power.store(scores);
        sum = sum + power;
    }
    (max, sum.sum())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_that_are_shared_give_the_same_bits() {
        let config = AttentionConfig {
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 8,
            block_tokens: 64,
            scale: 0.3,
        };
        let values = |n: usize, factor: f32| -> Vec<f32> {
            (0..n).map(|i| (i as f32 * factor).sin()).collect()
        };
        let (k_cache, v_cache) = (values(6 * 64 * 16, 0.37), values(6 * 64 * 16, 0.11));
        let q = values(2 * 32, 0.77);
        // Three chunks of positions, and one.
        let words = [[0, 300, 0, 8], [0, 10, 0, 9]].concat();
        let words = [words, vec![5, 1, 0, 4, 2]].concat();
        let step = &StepRows::new(&words, 2);
        for heads_per_unit in [1, 2] {
            let units = Units {
                q: &q,
                k_cache: &k_cache,
                v_cache: &v_cache,
                step,
                config,
                heads_per_unit,
                blocks_per_chunk: 2,
            };
            let (mut whole, mut in_chunks) = (vec![0.0; 64], vec![0.0; 64]);
            units.attend(1, &mut Own::default(), &mut whole);
            units.attend_in_chunks(1, 3, &mut Scratch::default(), &mut in_chunks);
            assert!(whole.iter().all(|y| *y != 0.0));
            let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&whole), bits(&in_chunks), "{heads_per_unit} heads");
        }
    }
}
