//! What [`attention`](super::attention) does, for software adapters, where each head is one invocation's own work.
//!
//! Such an adapter checks and gathers every scalar that is read from a buffer, and every one of an array whose place is not known when the kernel is
//! compiled. So an invocation has several heads that share keys and values, copies those of a position once, and goes through its heads with loops that are
//! unrolled. The copying is not, for adapters take long to compile what reads buffers.

use cubecl::prelude::*;

use super::attention::{
    AttentionSpec, NO_SCORE, Units, chunk_weight, finished, place_of, reach_of,
};
use super::grid_index;

/// Invocations of a workgroup: the vector width of software adapters.
pub(super) const UNITS: usize = 4;

/// Most vectors of 4 that the heads of an invocation have, if it has more than one.
const MAX_VECTORS: usize = 64;

/// Heads that an invocation has: as many of those that share keys and values as [`MAX_VECTORS`] allow, all with as many.
pub(super) fn heads_per_unit(heads_per_kv: usize, vectors: usize) -> usize {
    let fits =
        |heads: &usize| heads_per_kv.is_multiple_of(*heads) && heads * vectors <= MAX_VECTORS;
    (1..=heads_per_kv).rev().find(fits).unwrap_or(1)
}

#[cube(launch_unchecked)]
#[allow(
    clippy::too_many_arguments,
    reason = "the operands of one fused dispatch"
)]
pub(super) fn attention_serial(
    q: &[Vector<f32, Const<4>>],
    k_cache: &[Vector<f32, Const<4>>],
    v_cache: &[Vector<f32, Const<4>>],
    step: &[u32],
    y: &mut [Vector<f32, Const<4>>],
    units: Units,
    scale: f32,
    #[comptime] spec: AttentionSpec,
) {
    let (vectors, heads) = comptime!((spec.vectors(), spec.heads));
    // Neighbours have the same chunk of neighbouring heads.
    let index = grid_index() * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    let (n_groups, n_chunks) = (units.n as usize / heads, units.n_chunks as usize);
    let (group, chunk) = (index % n_groups, index / n_groups);
    if chunk < n_chunks {
        let head = units.first as usize + group * heads;
        let reach = reach_of(step, head, chunk, spec);

        let mut queries = Array::<Vector<f32, Const<4>>>::new(comptime!(heads * vectors));
        for i in 0..comptime!(heads * vectors) {
            queries[i] = q[head * vectors + i];
        }
        let mut acc = Array::<Vector<f32, Const<4>>>::new(comptime!(heads * vectors));
        #[unroll]
        for i in 0..comptime!(heads * vectors) {
            acc[i] = Vector::new(0.0);
        }
        let mut largest = Array::<f32>::new(heads);
        let mut totals = Array::<f32>::new(heads);
        #[unroll]
        for h in 0..heads {
            largest[h] = f32::new(NO_SCORE);
            totals[h] = f32::new(0.0);
        }
        let mut key = Array::<Vector<f32, Const<4>>>::new(vectors);
        let mut value = Array::<Vector<f32, Const<4>>>::new(vectors);
        for position in reach.start..reach.end {
            let kv = place_of(step, &reach, position, spec);
            for d in 0..vectors {
                key[d] = k_cache[kv + d];
                value[d] = v_cache[kv + d];
            }
            #[unroll]
            for h in 0..heads {
                let mut sums = Vector::<f32, Const<4>>::new(0.0);
                #[unroll]
                for d in 0..vectors {
                    sums += queries[comptime!(h * vectors + d)] * key[d];
                }
                let sum = (sums.extract(0usize) + sums.extract(1usize))
                    + (sums.extract(2usize) + sums.extract(3usize));
                let score = sum * scale;
                let new_largest = max(largest[h], score);
                let keep = (largest[h] - new_largest).exp();
                let weight = (score - new_largest).exp();
                largest[h] = new_largest;
                totals[h] = totals[h] * keep + weight;
                #[unroll]
                for d in 0..vectors {
                    let i = comptime!(h * vectors + d);
                    acc[i] = acc[i] * Vector::new(keep) + value[d] * Vector::new(weight);
                }
            }
        }
        #[unroll]
        for h in 0..heads {
            let place = if comptime!(spec.is_split) {
                ((group * heads + h) * n_chunks + chunk) * comptime!(spec.partial_vectors())
            } else {
                (head + h) * vectors
            };
            for d in 0..vectors {
                y[place + d] = finished(acc[comptime!(h * vectors) + d], totals[h], spec);
            }
            if comptime!(spec.is_split) {
                y[place + vectors] = chunk_weight(largest[h], totals[h]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::heads_per_unit;

    #[test]
    fn heads_are_shared_evenly() {
        for (heads_per_kv, vectors, expected) in [
            (3, 16, 3),
            (4, 16, 4),
            (7, 16, 1),
            (6, 16, 3),
            (4, 32, 2),
            (1, 64, 1),
            (2, 80, 1),
        ] {
            assert_eq!(
                heads_per_unit(heads_per_kv, vectors),
                expected,
                "{heads_per_kv} heads of {vectors} vectors"
            );
        }
    }
}
