//! Causal attention over a paged cache, with grouped heads.
//!
//! - `q`, `y`: `[rows, n_heads * head_dim]` f32, read and written as vectors of 4
//! - `k_cache`, `v_cache`: `[blocks, n_kv_heads, block_tokens, head_dim]` f32, read as vectors of 4
//! - `step`: the step's words: positions and block tables
//!
//! A workgroup has one head of one row. Its `lanes` invocations walk the positions `lane, lane + lanes, …`, each with a softmax of its
//! own: the largest score so far, the sum of weights and the weighted sum of values, both relative to that score (Milakov and
//! Gimelshein, arXiv:1805.02867). Behind one barrier the lanes' results are brought to a common largest score and added up, each lane
//! doing so for its share of the head's elements. With one lane, which needs no barrier, another kernel does the same,
//! [`attention_serial`](super::attention_serial).
//!
//! A long context is cut into chunks, each a unit of work of its own, so that one token's heads keep a whole GPU busy: what a chunk gives, the
//! largest score, the sum of weights and the weighted values, goes to memory, and a second dispatch brings a head's chunks together in
//! their order. Where chunks begin depends on the row's own position ([`chunk_len`]), and a step whose rows have one chunk each skips all that.
//!
//! The order of additions depends on the number of lanes and the row's position alone. Nothing else depends on the context length but loop
//! bounds and the number of chunks, a power of two.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::attention_serial::{UNITS, attention_serial, heads_per_unit};
use super::{grid_index, lane_of, output, plain_grid, spread};
use crate::step::{CHUNK_POSITIONS, MAX_CHUNKS, ROW_WORDS};
use crate::{AttentionParams, Profile};

/// What the chunks of a launch may give, in bytes: a prompt of many rows over a long context takes several launches.
const PARTIAL_BYTES: usize = 16 << 20;

/// Below every score, and still far enough from the smallest f32 that differences stay finite: WGSL does not promise infinities.
pub(super) const NO_SCORE: f32 = -1.0e30;

/// What the kernel is compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct AttentionSpec {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    block_tokens: usize,
    lanes: usize,
    /// Heads of an invocation that is alone with them; 1 with more lanes.
    pub(super) heads: usize,
    /// Whether contexts are cut into chunks.
    pub(super) is_split: bool,
}

impl AttentionSpec {
    /// Vectors of 4 in a head.
    pub(super) fn vectors(&self) -> usize {
        self.head_dim / 4
    }

    /// Vectors of what a chunk gives: the head's sums, then `[largest, total, 0, 0]`.
    pub(super) fn partial_vectors(&self) -> usize {
        self.vectors() + 1
    }

    /// Heads of rows that one launch has, so that what their chunks give fits [`PARTIAL_BYTES`].
    fn units_per_launch(&self, n_units: usize, n_chunks: usize) -> usize {
        if !self.is_split {
            return n_units;
        }
        let bytes = n_chunks * self.partial_vectors() * 16;
        (PARTIAL_BYTES / bytes / self.heads * self.heads).clamp(self.heads, n_units)
    }
}

pub(super) fn launch(
    q: CubeTensor,
    k_cache: CubeTensor,
    v_cache: CubeTensor,
    step: CubeTensor,
    params: AttentionParams,
    profile: Profile,
) -> CubeTensor {
    let AttentionParams {
        n_heads,
        n_kv_heads,
        head_dim,
        block_tokens,
        scale,
        n_chunks,
    } = params;
    let n_rows = q.meta.shape()[0];
    let y = output([n_rows, n_heads * head_dim], &q);
    let client = q.client.clone();
    let max_shared_bytes = client.properties().hardware.max_shared_memory_size;
    let lanes = lanes_that_fit(profile.attention_lanes, head_dim, max_shared_bytes);
    let spec = AttentionSpec {
        n_heads,
        n_kv_heads,
        head_dim,
        block_tokens,
        lanes,
        heads: if lanes == 1 {
            heads_per_unit(n_heads / n_kv_heads, head_dim / 4)
        } else {
            1
        },
        is_split: n_chunks > 1,
    };
    let n_units = n_rows * n_heads;
    let per_launch = spec.units_per_launch(n_units, n_chunks);
    let partial = if spec.is_split {
        output([per_launch * n_chunks, spec.partial_vectors() * 4], &q)
    } else {
        y.clone()
    };
    let units_per_cube = if lanes == 1 { UNITS } else { 1 };
    let launch = if lanes == 1 {
        attention_serial::launch_unchecked
    } else {
        attention::launch_unchecked
    };
    for first in (0..n_units).step_by(per_launch) {
        let n = per_launch.min(n_units - first);
        let units = || UnitsLaunch::new(first as u32, n as u32, n_chunks as u32);
        let (count_y, count_z) = spread((n / spec.heads * n_chunks).div_ceil(units_per_cube));
        // SAFETY: heads are guarded in the kernel, shapes were checked by the caller, and the caller of `Step::new` vouches for block tables.
        unsafe {
            launch(
                &client,
                CubeCount::Static(1, count_y, count_z),
                CubeDim::new_2d(lanes as u32, units_per_cube as u32),
                q.clone().into_buffer_arg(),
                k_cache.clone().into_buffer_arg(),
                v_cache.clone().into_buffer_arg(),
                step.clone().into_buffer_arg(),
                partial.clone().into_buffer_arg(),
                units(),
                scale,
                spec,
            );
        }
        if spec.is_split {
            let (count, dim) = plain_grid(n * spec.vectors());
            // SAFETY: as above; there is a record for each chunk of a unit, and a head of `y` for each unit.
            unsafe {
                merge_chunks::launch_unchecked(
                    &client,
                    count,
                    dim,
                    partial.clone().into_buffer_arg(),
                    step.clone().into_buffer_arg(),
                    y.clone().into_buffer_arg(),
                    units(),
                    spec,
                );
            }
        }
    }
    y
}

/// The heads of rows that a launch has.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Units {
    pub(super) first: u32,
    pub(super) n: u32,
    /// Chunks of each.
    pub(super) n_chunks: u32,
}

/// The most lanes, halving from `wanted`, whose results fit shared memory. Depends on the adapter and the model alone.
fn lanes_that_fit(wanted: usize, head_dim: usize, max_shared_bytes: usize) -> usize {
    let mut lanes = wanted;
    while lanes > 1 && lanes * (head_dim + 2) * 4 > max_shared_bytes {
        lanes /= 2;
    }
    lanes
}

#[cube(launch_unchecked)]
#[allow(
    clippy::too_many_arguments,
    reason = "the operands of one fused dispatch"
)]
fn attention(
    q: &[Vector<f32, Const<4>>],
    k_cache: &[Vector<f32, Const<4>>],
    v_cache: &[Vector<f32, Const<4>>],
    step: &[u32],
    y: &mut [Vector<f32, Const<4>>],
    units: Units,
    scale: f32,
    #[comptime] spec: AttentionSpec,
) {
    let lane = lane_of(UNIT_POS_X, spec.lanes);
    let index = grid_index();
    let (n, n_chunks) = (units.n as usize, units.n_chunks as usize);
    let unit = units.first as usize + index % n;
    let chunk = index / n;
    let present = chunk < n_chunks;
    let mut place = unit * comptime!(spec.vectors());
    if comptime!(spec.is_split) {
        place = (index % n * n_chunks + chunk) * comptime!(spec.partial_vectors());
    }

    let mut acc = Array::<Vector<f32, Const<4>>>::new(comptime!(spec.vectors()));
    #[unroll]
    for d in 0..comptime!(spec.vectors()) {
        acc[d] = Vector::new(0.0);
    }
    let mut largest = f32::new(NO_SCORE);
    let mut total = f32::new(0.0);
    if present {
        let reach = reach_of(step, unit, chunk, spec);
        for position in range_stepped(reach.start + lane, reach.end, comptime!(spec.lanes)) {
            let kv = place_of(step, &reach, position, spec);
            let score = head_dot(q, unit * comptime!(spec.vectors()), k_cache, kv, spec) * scale;
            let new_largest = max(largest, score);
            let keep = (largest - new_largest).exp();
            let weight = (score - new_largest).exp();
            largest = new_largest;
            total = total * keep + weight;
            #[unroll]
            for d in 0..comptime!(spec.vectors()) {
                acc[d] = acc[d] * Vector::new(keep) + v_cache[kv + d] * Vector::new(weight);
            }
        }
    }
    merge(&acc, largest, total, lane, place, present, y, spec);
}

/// What a head of a row reads of the cache, or one chunk of it.
#[derive(CubeType)]
pub(super) struct Reach {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Where the sequence's block ids begin in the step's words.
    table: usize,
    kv_head: usize,
}

/// What chunk `chunk` of `unit` reads, a head of a row.
#[cube]
pub(super) fn reach_of(
    step: &[u32],
    unit: usize,
    chunk: usize,
    #[comptime] spec: AttentionSpec,
) -> Reach {
    let row = unit / spec.n_heads * ROW_WORDS;
    let mut start = 0usize.runtime();
    let mut end = step[row + 1] as usize + 1;
    if comptime!(spec.is_split) {
        let len = chunk_len(end);
        start = chunk * len;
        end = min(end, start + len);
    }
    Reach {
        start,
        end,
        table: step[row + 3] as usize,
        kv_head: unit % spec.n_heads / comptime!(spec.n_heads / spec.n_kv_heads),
    }
}

/// The first vector of a position's key, and of its value.
#[cube]
pub(super) fn place_of(
    step: &[u32],
    reach: &Reach,
    position: usize,
    #[comptime] spec: AttentionSpec,
) -> usize {
    let block = step[reach.table + position / spec.block_tokens] as usize;
    let head = block * spec.n_kv_heads + reach.kv_head;
    (head * spec.block_tokens + position % spec.block_tokens) * comptime!(spec.vectors())
}

/// Positions in a chunk of a row that attends to `end`: 256, or more, so that there are at most 32 chunks. [`crate::step::n_chunks`] tells how
/// many there are.
#[cube]
fn chunk_len(end: usize) -> usize {
    let mut len = CHUNK_POSITIONS.runtime();
    while len * MAX_CHUNKS < end {
        len *= 2;
    }
    len
}

/// The end of a chunk's record.
#[cube]
pub(super) fn chunk_weight(largest: f32, total: f32) -> Vector<f32, Const<4>> {
    let mut weight = Vector::<f32, Const<4>>::new(0.0);
    weight.insert(0usize, largest);
    weight.insert(1usize, total);
    weight
}

/// A head's vector as the kernel leaves it: the sum of a chunk, or that divided by the total weight.
#[cube]
pub(super) fn finished(
    sum: Vector<f32, Const<4>>,
    total: f32,
    #[comptime] spec: AttentionSpec,
) -> Vector<f32, Const<4>> {
    if comptime!(spec.is_split) {
        sum
    } else {
        sum / Vector::new(total)
    }
}

/// Brings the chunks of each head together, one vector an invocation.
///
/// - `partial`: `[units, n_chunks]` records
/// - `y`: `[units, vectors]`
#[cube(launch_unchecked)]
fn merge_chunks(
    partial: &[Vector<f32, Const<4>>],
    step: &[u32],
    y: &mut [Vector<f32, Const<4>>],
    units: Units,
    #[comptime] spec: AttentionSpec,
) {
    let (vectors, record) = comptime!((spec.vectors(), spec.partial_vectors()));
    if ABSOLUTE_POS < units.n as usize * vectors {
        let unit = units.first as usize + ABSOLUTE_POS / vectors;
        let d = ABSOLUTE_POS % vectors;
        let end = step[unit / spec.n_heads * ROW_WORDS + 1] as usize + 1;
        let len = chunk_len(end);
        let first = ABSOLUTE_POS / vectors * units.n_chunks as usize * record;
        let mut largest = partial[first + vectors].extract(0usize);
        let mut total = partial[first + vectors].extract(1usize);
        let mut sum = partial[first + d];
        for chunk in 1..end.div_ceil(len) {
            let place = first + chunk * record;
            let of_chunk = partial[place + vectors];
            let new_largest = max(largest, of_chunk.extract(0usize));
            let keep = (largest - new_largest).exp();
            let weight = (of_chunk.extract(0usize) - new_largest).exp();
            largest = new_largest;
            total = total * keep + of_chunk.extract(1usize) * weight;
            sum = sum * Vector::new(keep) + partial[place + d] * Vector::new(weight);
        }
        y[unit * vectors + d] = sum / Vector::new(total);
    }
}

/// The product of a query head and a key head, in four chains of additions.
#[cube]
fn head_dot(
    q: &[Vector<f32, Const<4>>],
    q_start: usize,
    k: &[Vector<f32, Const<4>>],
    k_start: usize,
    #[comptime] spec: AttentionSpec,
) -> f32 {
    let mut sums = Vector::<f32, Const<4>>::new(0.0);
    #[unroll]
    for d in 0..comptime!(spec.vectors()) {
        sums += q[q_start + d] * k[k_start + d];
    }
    (sums.extract(0usize) + sums.extract(1usize)) + (sums.extract(2usize) + sums.extract(3usize))
}

/// Adds up the lanes' results, lane by lane, and writes the head, if it is `present`. All invocations of the workgroup come here, and of spare
/// workgroups too.
#[cube]
#[allow(
    clippy::collapsible_if,
    reason = "one condition is known when the kernel is compiled, the other when it runs"
)]
fn merge(
    acc: &Array<Vector<f32, Const<4>>>,
    largest: f32,
    total: f32,
    lane: usize,
    place: usize,
    present: bool,
    y: &mut [Vector<f32, Const<4>>],
    #[comptime] spec: AttentionSpec,
) {
    let (lanes, vectors) = comptime!((spec.lanes, spec.vectors()));
    let mut all_largest = Shared::<[f32]>::new_slice(lanes);
    let mut all_totals = Shared::<[f32]>::new_slice(lanes);
    let mut all_acc = Shared::<[Vector<f32, Const<4>>]>::new_slice(comptime!(lanes * vectors));
    all_largest[lane] = largest;
    all_totals[lane] = total;
    #[unroll]
    for d in 0..vectors {
        all_acc[lane * vectors + d] = acc[d];
    }
    sync_cube();
    let mut largest = f32::new(NO_SCORE);
    for l in 0..lanes {
        largest = max(largest, all_largest[l]);
    }
    for d in range_stepped(lane, vectors, lanes) {
        let mut total = f32::new(0.0);
        let mut sum = Vector::<f32, Const<4>>::new(0.0);
        for l in 0..lanes {
            // A lane without positions has the weight exp(-1e30) = 0.
            let weight = (all_largest[l] - largest).exp();
            total += all_totals[l] * weight;
            sum += all_acc[l * vectors + d] * Vector::new(weight);
        }
        if present {
            if comptime!(spec.is_split) {
                if d == 0 {
                    y[place + vectors] = chunk_weight(largest, total);
                }
            }
            y[place + d] = finished(sum, total, spec);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::lanes_that_fit;

    #[test]
    fn lanes_fit_shared_memory() {
        for (wanted, head_dim, max_shared_bytes, expected) in [
            (32, 64, 16384, 32),
            (32, 128, 16384, 16),
            (32, 128, 32768, 32),
            (32, 256, 16384, 8),
            (1, 256, 0, 1),
            (32, 64, 0, 1),
        ] {
            assert_eq!(
                lanes_that_fit(wanted, head_dim, max_shared_bytes),
                expected,
                "{wanted} lanes of {head_dim} in {max_shared_bytes}"
            );
        }
    }
}
