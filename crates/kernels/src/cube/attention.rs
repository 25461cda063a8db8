//! Causal attention over a paged cache, with grouped heads.
//!
//! - `q`, `y`: `[rows, n_heads * head_dim]` f32, read and written as vectors of 4
//! - `k_cache`, `v_cache`: `[slots, n_kv_heads * head_dim]` f32, read as vectors of 4
//! - `step`: the step's words: positions and block tables
//!
//! A workgroup has one head of one row. Its `lanes` invocations walk the positions `lane, lane + lanes, …`, each with a softmax of its
//! own: the largest score so far, the sum of weights and the weighted sum of values, both relative to that score (Milakov and
//! Gimelshein, arXiv:1805.02867). Behind one barrier the lanes' results are brought to a common largest score and added up, each lane
//! doing so for its share of the head's elements. With one lane, which needs no barrier, a workgroup takes several heads.
//!
//! The order of additions depends on the number of lanes alone. Nothing depends on the context length but loop bounds.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{grid_index, lane_of, output, spread};
use crate::step::ROW_WORDS;
use crate::{AttentionParams, Profile};

/// Heads of a workgroup where each has one lane: the vector width of software adapters.
const HEADS_OF_ONE_LANE: usize = 4;

/// Below every score, and still far enough from the smallest f32 that differences stay finite: WGSL does not promise infinities.
const NO_SCORE: f32 = -1.0e30;

/// What the kernel is compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct AttentionSpec {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    block_tokens: usize,
    lanes: usize,
}

impl AttentionSpec {
    /// Vectors of 4 in a head.
    fn vectors(&self) -> usize {
        self.head_dim / 4
    }

    /// Vectors of the query that an invocation keeps.
    fn query_vectors(&self) -> usize {
        if self.lanes == 1 { self.vectors() } else { 1 }
    }

    /// Whether loops over a head's vectors are unrolled: on a GPU they must be, for `acc` to stay in registers. On a software adapter, where
    /// it lies on the stack anyway, unrolled code takes a third of a second and 60 MB to compile.
    fn is_unrolled(&self) -> bool {
        self.lanes > 1
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
    };
    let heads_per_cube = if lanes == 1 { HEADS_OF_ONE_LANE } else { 1 };
    let n_units = n_rows * n_heads;
    let (count_y, count_z) = spread(n_units.div_ceil(heads_per_cube));
    // SAFETY: heads are guarded in the kernel, shapes were checked by the caller, and the caller of `Step::new` vouches for block tables.
    unsafe {
        attention::launch_unchecked(
            &client,
            CubeCount::Static(1, count_y, count_z),
            CubeDim::new_2d(lanes as u32, heads_per_cube as u32),
            q.into_buffer_arg(),
            k_cache.into_buffer_arg(),
            v_cache.into_buffer_arg(),
            step.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            n_units as u32,
            scale,
            spec,
        );
    }
    y
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
    n_units: u32,
    scale: f32,
    #[comptime] spec: AttentionSpec,
) {
    let lane = lane_of(UNIT_POS_X, spec.lanes);
    let unit = grid_index() * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    let present = unit < n_units as usize;

    let mut acc = Array::<Vector<f32, Const<4>>>::new(comptime!(spec.vectors()));
    #[unroll(spec.is_unrolled())]
    for d in 0..comptime!(spec.vectors()) {
        acc[d] = Vector::new(0.0);
    }
    let mut largest = f32::new(NO_SCORE);
    let mut total = f32::new(0.0);
    if present {
        let row = unit / spec.n_heads * ROW_WORDS;
        let kv_head = unit % spec.n_heads / comptime!(spec.n_heads / spec.n_kv_heads);
        let end = step[row + 1] as usize + 1;
        let table = step[row + 3] as usize;
        // A software adapter reads its stack faster than it gathers a buffer; a GPU wants its registers for `acc`.
        let mut query = Array::<Vector<f32, Const<4>>>::new(comptime!(spec.query_vectors()));
        if comptime!(spec.lanes == 1) {
            for d in 0..comptime!(spec.vectors()) {
                query[d] = q[unit * comptime!(spec.vectors()) + d];
            }
        }
        for position in range_stepped(lane, end, comptime!(spec.lanes)) {
            let block = step[table + position / spec.block_tokens] as usize;
            let slot = block * spec.block_tokens + position % spec.block_tokens;
            let kv = (slot * spec.n_kv_heads + kv_head) * comptime!(spec.vectors());
            let score = head_dot(
                q,
                &query,
                unit * comptime!(spec.vectors()),
                k_cache,
                kv,
                spec,
            ) * scale;
            let new_largest = max(largest, score);
            let keep = (largest - new_largest).exp();
            let weight = (score - new_largest).exp();
            largest = new_largest;
            total = total * keep + weight;
            #[unroll(spec.is_unrolled())]
            for d in 0..comptime!(spec.vectors()) {
                acc[d] = acc[d] * Vector::new(keep) + v_cache[kv + d] * Vector::new(weight);
            }
        }
    }
    if comptime!(spec.lanes == 1) {
        if present {
            for d in 0..comptime!(spec.vectors()) {
                y[unit * comptime!(spec.vectors()) + d] = acc[d] / Vector::new(total);
            }
        }
    } else {
        merge(&acc, largest, total, lane, unit, y, spec);
    }
}

/// The product of a query head and a key head, in four chains of additions. With one lane, `query` holds the query head.
#[cube]
fn head_dot(
    q: &[Vector<f32, Const<4>>],
    query: &Array<Vector<f32, Const<4>>>,
    q_start: usize,
    k: &[Vector<f32, Const<4>>],
    k_start: usize,
    #[comptime] spec: AttentionSpec,
) -> f32 {
    let mut sums = Vector::<f32, Const<4>>::new(0.0);
    #[unroll(spec.is_unrolled())]
    for d in 0..comptime!(spec.vectors()) {
        if comptime!(spec.lanes == 1) {
            sums += query[d] * k[k_start + d];
        } else {
            sums += q[q_start + d] * k[k_start + d];
        }
    }
    (sums.extract(0usize) + sums.extract(1usize)) + (sums.extract(2usize) + sums.extract(3usize))
}

/// Adds up the lanes' results, lane by lane, and writes the head. All invocations of the workgroup come here.
#[cube]
fn merge(
    acc: &Array<Vector<f32, Const<4>>>,
    largest: f32,
    total: f32,
    lane: usize,
    unit: usize,
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
        y[unit * vectors + d] = sum / Vector::new(total);
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
