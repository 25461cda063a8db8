//! Rotary embedding of queries and keys, and the writing of keys and values to the cache: one dispatch for all three.
//!
//! - `q`: `[rows, n_heads * head_dim]` f32, turned in place
//! - `k`, `v`: `[rows, n_kv_heads * head_dim]` f32
//! - `inv_freq`: `[rotary / 2]` f32
//! - `k_cache`, `v_cache`: `[slots, n_kv_heads * head_dim]` f32, written in place
//!
//! An invocation turns or copies one pair of elements. The angle is `position * inv_freq[i]` rounded to f32, as the models' own
//! implementations round it.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::plain_grid;
use super::trigonometry::sin_cos;
use crate::step::ROW_WORDS;
use crate::{RopeLayout, RopeParams};

/// What the kernel is compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct RopeSpec {
    layout: RopeLayout,
    head_dim: usize,
    /// Elements of each head that turn.
    rotary: usize,
    q_width: usize,
    kv_width: usize,
}

impl RopeSpec {
    /// Pairs of one row: of queries, then keys, then values.
    fn pairs(&self) -> usize {
        (self.q_width + 2 * self.kv_width) / 2
    }
}

/// `inputs` are `[k, v, inv_freq, step]`.
pub(super) fn launch(
    q: &CubeTensor,
    inputs: [CubeTensor; 4],
    k_cache: &CubeTensor,
    v_cache: &CubeTensor,
    params: RopeParams,
) {
    let [k, v, inv_freq, step] = inputs;
    let spec = RopeSpec {
        layout: params.layout,
        head_dim: params.head_dim,
        rotary: 2 * inv_freq.meta.shape()[0],
        q_width: q.meta.shape()[1],
        kv_width: k.meta.shape()[1],
    };
    let n_units = q.meta.shape()[0] * spec.pairs();
    let (count, dim) = plain_grid(n_units);
    // SAFETY: units past `n_units` return, shapes were checked by the caller, and slots are vouched for by the caller of `Step::new`.
    unsafe {
        rope_append::launch_unchecked(
            &q.client,
            count,
            dim,
            q.clone().into_buffer_arg(),
            k.into_buffer_arg(),
            v.into_buffer_arg(),
            inv_freq.into_buffer_arg(),
            k_cache.clone().into_buffer_arg(),
            v_cache.clone().into_buffer_arg(),
            step.into_buffer_arg(),
            n_units as u32,
            params.scale,
            spec,
        );
    }
}

#[cube(launch_unchecked)]
#[allow(
    clippy::too_many_arguments,
    reason = "the operands of one fused dispatch"
)]
fn rope_append(
    q: &mut [f32],
    k: &[f32],
    v: &[f32],
    inv_freq: &[f32],
    k_cache: &mut [f32],
    v_cache: &mut [f32],
    step: &[u32],
    n_units: u32,
    scale: f32,
    #[comptime] spec: RopeSpec,
) {
    let (q_width, kv_width) = comptime!((spec.q_width, spec.kv_width));
    let (q_pairs, kv_pairs) = comptime!((spec.q_width / 2, spec.kv_width / 2));
    let row_pairs = comptime!(spec.pairs());
    if ABSOLUTE_POS < n_units as usize {
        let row = ABSOLUTE_POS / row_pairs;
        let pair = ABSOLUTE_POS % row_pairs;
        let position = step[row * ROW_WORDS + 1];
        let slot = step[row * ROW_WORDS + 2] as usize * kv_width;
        if pair < q_pairs {
            let (a, b) = pair_places(pair, spec);
            let start = row * q_width;
            let (x, y) = turned(
                q[start + a],
                q[start + b],
                inv_freq,
                pair,
                position,
                scale,
                spec,
            );
            q[start + a] = x;
            q[start + b] = y;
        } else if pair < q_pairs + kv_pairs {
            let pair = pair - q_pairs;
            let (a, b) = pair_places(pair, spec);
            let start = row * kv_width;
            let (x, y) = turned(
                k[start + a],
                k[start + b],
                inv_freq,
                pair,
                position,
                scale,
                spec,
            );
            k_cache[slot + a] = x;
            k_cache[slot + b] = y;
        } else {
            let first = 2 * (pair - q_pairs - kv_pairs);
            v_cache[slot + first] = v[row * kv_width + first];
            v_cache[slot + first + 1] = v[row * kv_width + first + 1];
        }
    }
}

/// The two elements, counted from the start of a row of heads, that pair `pair` of the row consists of. Pairs past the rotary ones are
/// neighbours in either layout.
#[cube]
fn pair_places(pair: usize, #[comptime] spec: RopeSpec) -> (usize, usize) {
    let half = comptime!(spec.head_dim / 2);
    let turning = comptime!(spec.rotary / 2);
    let head = pair / half * spec.head_dim;
    let i = pair % half;
    if comptime!(matches!(spec.layout, RopeLayout::Interleaved)) {
        (head + 2 * i, head + 2 * i + 1)
    } else {
        let turns = i < turning;
        (
            head + select(turns, i, 2 * i),
            head + select(turns, i + turning, 2 * i + 1),
        )
    }
}

/// A pair of elements after turning, or as it was if it is not among the rotary ones.
#[cube]
fn turned(
    x: f32,
    y: f32,
    inv_freq: &[f32],
    pair: usize,
    position: u32,
    scale: f32,
    #[comptime] spec: RopeSpec,
) -> (f32, f32) {
    let i = pair % comptime!(spec.head_dim / 2);
    let turns = i < comptime!(spec.rotary / 2);
    let (sin, cos) = sin_cos(f32::cast_from(position) * inv_freq[select(turns, i, 0usize)]);
    let (sin, cos) = (sin * scale, cos * scale);
    (
        select(turns, x * cos - y * sin, x),
        select(turns, x * sin + y * cos, y),
    )
}
