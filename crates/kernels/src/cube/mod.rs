//! The operations on WebGPU: `#[cube]` kernels, compiled to the adapter's language at run time.
//!
//! A kernel is compiled once per set of its `#[comptime]` parameters, so those are formats, head sizes and the [`Profile`]: never the size of
//! a table, of the context only whether it is so long that attention cuts it, and of the number of rows in a step only its power of two
//! below a full tile. Bounds come from the launchers, which is why kernels are launched without cubecl's own bounds checks; browsers add
//! theirs anyway.
//!
//! At most seven buffers are bound at a time: with cubecl's own one for scalars that makes the eight that every WebGPU adapter allows.

mod attention;
mod attention_serial;
pub(crate) mod draw;
mod embed;
mod head_norm;
mod kv_copy;
mod linear;
mod linear_serial;
mod rope_append;
mod swiglu;
pub(crate) mod take_tokens;
mod trigonometry;
mod unpack;

use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cinderlm_weights::PackedLayout;
use cubecl::prelude::*;

use crate::{
    AttentionParams, HeadNormParams, LanguageOps, LinearOperands, LinearParams, Profile, RopeParams,
};

impl LanguageOps for CubeBackend {
    fn embed_tokens(
        words: CubeTensor,
        step: CubeTensor,
        n_rows: usize,
        layout: PackedLayout,
    ) -> CubeTensor {
        embed::launch(words, step, n_rows, layout)
    }

    fn packed_linear(
        operands: LinearOperands<Self>,
        layout: PackedLayout,
        params: LinearParams,
        profile: Profile,
    ) -> CubeTensor {
        linear::launch(operands, layout, params, profile)
    }

    fn norm_head_rows(
        x: CubeTensor,
        weight: CubeTensor,
        kv_weight: CubeTensor,
        params: HeadNormParams,
    ) -> CubeTensor {
        let x = into_contiguous(x);
        // Heads are normed in place, so others must not see the buffer.
        let x = if x.can_mut() { x } else { x.copy() };
        head_norm::launch(
            &x,
            into_contiguous(weight),
            into_contiguous(kv_weight),
            params,
        );
        x
    }

    fn rope_append_rows(
        qkv: CubeTensor,
        inv_freq: CubeTensor,
        k_cache: CubeTensor,
        v_cache: CubeTensor,
        step: CubeTensor,
        params: RopeParams,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let q = rope_append::launch(
            into_contiguous(qkv),
            into_contiguous(inv_freq),
            &k_cache,
            &v_cache,
            step,
            params,
        );
        (q, k_cache, v_cache)
    }

    fn paged_attention(
        q: CubeTensor,
        k_cache: CubeTensor,
        v_cache: CubeTensor,
        step: CubeTensor,
        params: AttentionParams,
        profile: Profile,
    ) -> CubeTensor {
        attention::launch(into_contiguous(q), k_cache, v_cache, step, params, profile)
    }

    fn silu_gated(x: CubeTensor) -> CubeTensor {
        swiglu::launch(into_contiguous(x))
    }

    fn copy_into_front(from: CubeTensor, into: CubeTensor) -> CubeTensor {
        kv_copy::launch_front(from, &into);
        into
    }

    fn copy_cache_blocks(
        k_cache: CubeTensor,
        v_cache: CubeTensor,
        pairs: CubeTensor,
        block_values: usize,
    ) -> (CubeTensor, CubeTensor) {
        kv_copy::launch_blocks(&k_cache, &v_cache, pairs, block_values);
        (k_cache, v_cache)
    }
}

/// The most workgroups that WebGPU promises along one dimension of a grid.
const MAX_GRID: usize = 65535;

/// Invocations of a workgroup where the work needs no particular number.
const PLAIN_UNITS: usize = 64;

/// Spreads `n` workgroups over two dimensions of a grid, for kernels that number them by [`grid_index`]. There may be more of them
/// than `n`.
fn spread(n: usize) -> (u32, u32) {
    let depth = n.div_ceil(MAX_GRID);
    (n.div_ceil(depth) as u32, depth as u32)
}

/// A one-dimensional grid of at least `n_units` invocations in groups of [`PLAIN_UNITS`], for kernels that number them by
/// `ABSOLUTE_POS`.
fn plain_grid(n_units: usize) -> (CubeCount, CubeDim) {
    let (x, y) = spread(n_units.div_ceil(PLAIN_UNITS));
    (
        CubeCount::Static(x, y, 1),
        CubeDim::new_1d(PLAIN_UNITS as u32),
    )
}

/// The number of a workgroup along the dimensions y and z of a grid, which [`spread`] made.
#[cube]
fn grid_index() -> usize {
    (CUBE_POS_Z * CUBE_COUNT_Y + CUBE_POS_Y) as usize
}

/// This invocation's number among `lanes` along one dimension of its workgroup. With one lane it is a constant, so that compilers
/// see that all invocations of the workgroup read the same addresses, and load once where they would gather.
#[cube]
fn lane_of(unit_pos: u32, #[comptime] lanes: usize) -> usize {
    if comptime!(lanes == 1) {
        0usize.runtime()
    } else {
        unit_pos as usize
    }
}

/// An f32 tensor for results, on the device of `like`.
fn output(shape: [usize; 2], like: &CubeTensor) -> CubeTensor {
    output_of(DType::F32, shape, like)
}

/// A tensor of a type of 4 bytes for results, on the device of `like`.
fn output_of(dtype: DType, shape: [usize; 2], like: &CubeTensor) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    let handle = client.empty(shape[0] * shape[1] * 4);
    CubeTensor::new_contiguous(client, device, Shape::new(shape), handle, dtype)
}
