//! Copies for caches: all of an old buffer to the front of a larger one, and blocks within a buffer.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::plain_grid;

/// Copies `from`, `[n]`, over the first `n` values of `into`.
pub(super) fn launch_front(from: CubeTensor, into: &CubeTensor) {
    let n_units = from.meta.shape()[0];
    let (count, dim) = plain_grid(n_units);
    // SAFETY: units past `n_units` return; a cache only grows, so `into` has at least as many values as `from`.
    unsafe {
        copy_front::launch_unchecked(
            &into.client,
            count,
            dim,
            from.into_buffer_arg(),
            into.clone().into_buffer_arg(),
            n_units as u32,
        );
    }
}

/// Copies blocks of `block_values` values within both caches: `pairs` holds `from, to` block ids.
pub(super) fn launch_blocks(
    k_cache: &CubeTensor,
    v_cache: &CubeTensor,
    pairs: CubeTensor,
    block_values: usize,
) {
    let n_units = pairs.meta.shape()[0] / 2 * block_values;
    let (count, dim) = plain_grid(n_units);
    // SAFETY: units past `n_units` return; block ids were checked by the caller.
    unsafe {
        copy_blocks::launch_unchecked(
            &k_cache.client,
            count,
            dim,
            k_cache.clone().into_buffer_arg(),
            v_cache.clone().into_buffer_arg(),
            pairs.into_buffer_arg(),
            n_units as u32,
            block_values,
        );
    }
}

#[cube(launch_unchecked)]
fn copy_front(from: &[f32], into: &mut [f32], n_units: u32) {
    if ABSOLUTE_POS < n_units as usize {
        into[ABSOLUTE_POS] = from[ABSOLUTE_POS];
    }
}

#[cube(launch_unchecked)]
fn copy_blocks(
    k_cache: &mut [f32],
    v_cache: &mut [f32],
    pairs: &[u32],
    n_units: u32,
    #[comptime] block_values: usize,
) {
    if ABSOLUTE_POS < n_units as usize {
        let pair = ABSOLUTE_POS / block_values * 2;
        let i = ABSOLUTE_POS % block_values;
        let from = pairs[pair] as usize * block_values + i;
        let to = pairs[pair + 1] as usize * block_values + i;
        k_cache[to] = k_cache[from];
        v_cache[to] = v_cache[from];
    }
}
