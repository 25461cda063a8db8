//! Rotary embedding of queries and keys, and the writing of keys and values to the cache: one dispatch for all three.
//!
//! - `qkv`: `[rows, (n_heads + 2 * n_kv_heads) * head_dim]` f32: queries, keys, values
//! - `q`: `[rows, n_heads * head_dim]` f32, the turned queries
//! - `inv_freq`: `[rotary / 2]` f32
//! - `k_cache`, `v_cache`: `[blocks, n_kv_heads, block_tokens, head_dim]` f32, written in place
//!
//! An invocation turns or copies one pair of elements. The angle is `position * inv_freq[i]` rounded to f32, as the models' own
//! implementations round it.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::trigonometry::sin_cos;
use super::{output, plain_grid};
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
    block_tokens: usize,
}

impl RopeSpec {
    /// Pairs of one row: of queries, then keys, then values.
    fn pairs(&self) -> usize {
        (self.q_width + 2 * self.kv_width) / 2
    }
}

pub(super) fn launch(
    qkv: CubeTensor,
    inv_freq: CubeTensor,
    k_cache: &CubeTensor,
    v_cache: &CubeTensor,
    step: CubeTensor,
    params: RopeParams,
) -> CubeTensor {
    let RopeParams {
        layout,
        scale,
        head_dim,
        n_heads,
        n_kv_heads,
        block_tokens,
    } = params;
    let spec = RopeSpec {
        layout,
        head_dim,
        rotary: 2 * inv_freq.meta.shape()[0],
        q_width: n_heads * head_dim,
        kv_width: n_kv_heads * head_dim,
        block_tokens,
    };
    let n_rows = qkv.meta.shape()[0];
    let q = output([n_rows, spec.q_width], &qkv);
    let n_units = n_rows * spec.pairs();
    let (count, dim) = plain_grid(n_units);
    // SAFETY: units past `n_units` return, shapes were checked by the caller, and slots are vouched for by the caller of `Step::new`.
    unsafe {
        rope_append::launch_unchecked(
            &q.client,
            count,
            dim,
            qkv.into_buffer_arg(),
            inv_freq.into_buffer_arg(),
            q.clone().into_buffer_arg(),
            k_cache.clone().into_buffer_arg(),
            v_cache.clone().into_buffer_arg(),
            step.into_buffer_arg(),
            n_units as u32,
            scale,
            spec,
        );
    }
    q
}

#[cube(launch_unchecked)]
#[allow(
    clippy::too_many_arguments,
    reason = "the operands of one fused dispatch"
)]
fn rope_append(
    qkv: &[f32],
    inv_freq: &[f32],
    q: &mut [f32],
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
        let slot = step[row * ROW_WORDS + 2] as usize;
        let start = row * comptime!(q_width + 2 * kv_width);
        if pair < q_pairs + kv_pairs {
            // Keys are turned as queries are; only where they go differs.
            let (a, b) = pair_places(pair, spec);
            let (x, y) = (qkv[start + a], qkv[start + b]);
            let (x, y) = turned(x, y, inv_freq, pair, position, scale, spec);
            if pair < q_pairs {
                q[row * q_width + a] = x;
                q[row * q_width + b] = y;
            } else {
                k_cache[cached(slot, a - q_width, spec)] = x;
                k_cache[cached(slot, b - q_width, spec)] = y;
            }
        } else {
            let first = 2 * (pair - q_pairs - kv_pairs);
            let from = start + q_width + kv_width + first;
            let to = cached(slot, first, spec);
            v_cache[to] = qkv[from];
            v_cache[to + 1] = qkv[from + 1];
        }
    }
}

/// Where in the cache an element of a slot's key or value is.
#[cube]
fn cached(slot: usize, element: usize, #[comptime] spec: RopeSpec) -> usize {
    let head = slot / spec.block_tokens * comptime!(spec.kv_width / spec.head_dim)
        + element / spec.head_dim;
    (head * spec.block_tokens + slot % spec.block_tokens) * spec.head_dim + element % spec.head_dim
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
