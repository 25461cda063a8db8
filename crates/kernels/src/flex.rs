//! The operations on burn's CPU backend: lends tensors' buffers to the kernels on slices.

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{Flex, FlexTensor, Layout};
use cinderlm_weights::PackedLayout;

use crate::cpu::{self, AttentionConfig, RopeConfig, RopePairs, StepRows};
use crate::{AttentionParams, LanguageOps, Profile, RopeLayout, RopeParams};

impl LanguageOps for Flex {
    fn embed_tokens(
        words: FlexTensor,
        step: FlexTensor,
        n_rows: usize,
        layout: PackedLayout,
    ) -> FlexTensor {
        let step = StepRows::new(step.storage(), n_rows);
        result([n_rows, layout.n_cols], |y| {
            cpu::with_scratch(|scratch| cpu::embed(&layout, words.storage(), &step, scratch, y));
        })
    }

    fn rms_norm_rows(
        x: FlexTensor,
        weight: FlexTensor,
        epsilon: f32,
        _profile: Profile,
    ) -> FlexTensor {
        let (x, weight) = (whole(x), whole(weight));
        result(dims(&x), |y| {
            cpu::rms_norm(x.storage(), weight.storage(), epsilon, y)
        })
    }

    fn packed_linear(
        x: FlexTensor,
        words: FlexTensor,
        layout: PackedLayout,
        _profile: Profile,
    ) -> FlexTensor {
        linear(x, &words, None, &layout)
    }

    fn packed_linear_bias(
        x: FlexTensor,
        words: FlexTensor,
        bias: FlexTensor,
        layout: PackedLayout,
        _profile: Profile,
    ) -> FlexTensor {
        linear(x, &words, Some(whole(bias)), &layout)
    }

    fn rope_append_rows(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        inv_freq: FlexTensor,
        mut k_cache: FlexTensor,
        mut v_cache: FlexTensor,
        step: FlexTensor,
        params: RopeParams,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (mut q, k, v, inv_freq) = (whole(q), whole(k), whole(v), whole(inv_freq));
        let step = StepRows::new(step.storage(), dims(&q)[0]);
        let pairs = match params.layout {
            RopeLayout::Interleaved => RopePairs::Interleaved,
            RopeLayout::Halves => RopePairs::Halves,
        };
        cpu::rope_append(
            q.storage_mut(),
            k.storage(),
            v.storage(),
            inv_freq.storage(),
            in_place(&mut k_cache),
            in_place(&mut v_cache),
            &step,
            RopeConfig {
                pairs,
                scale: params.scale,
                head_dim: params.head_dim,
            },
        );
        (q, k_cache, v_cache)
    }

    fn paged_attention(
        q: FlexTensor,
        k_cache: FlexTensor,
        v_cache: FlexTensor,
        step: FlexTensor,
        params: AttentionParams,
        _profile: Profile,
    ) -> FlexTensor {
        let q = whole(q);
        let step = StepRows::new(step.storage(), dims(&q)[0]);
        let AttentionParams {
            n_heads,
            n_kv_heads,
            head_dim,
            block_tokens,
            scale,
        } = params;
        let config = AttentionConfig {
            n_heads,
            n_kv_heads,
            head_dim,
            block_tokens,
            scale,
        };
        result(dims(&q), |y| {
            cpu::with_scratch(|scratch| {
                cpu::attention(
                    q.storage(),
                    k_cache.storage(),
                    v_cache.storage(),
                    &step,
                    config,
                    scratch,
                    y,
                )
            });
        })
    }

    fn silu_gated(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let (gate, up) = (whole(gate), whole(up));
        result(dims(&gate), |y| {
            cpu::swiglu(gate.storage(), up.storage(), y)
        })
    }

    fn copy_into_front(from: FlexTensor, mut into: FlexTensor) -> FlexTensor {
        let from = from.storage::<f32>();
        in_place(&mut into)[..from.len()].copy_from_slice(from);
        into
    }

    fn copy_cache_blocks(
        mut k_cache: FlexTensor,
        mut v_cache: FlexTensor,
        pairs: FlexTensor,
        block_values: usize,
    ) -> (FlexTensor, FlexTensor) {
        let (pairs, _) = pairs.storage::<u32>().as_chunks::<2>();
        for cache in [&mut k_cache, &mut v_cache] {
            let cache = in_place(cache);
            for &[from, to] in pairs {
                let (from, to) = (from as usize * block_values, to as usize * block_values);
                cache.copy_within(from..from + block_values, to);
            }
        }
        (k_cache, v_cache)
    }
}

fn linear(
    x: FlexTensor,
    words: &FlexTensor,
    bias: Option<FlexTensor>,
    layout: &PackedLayout,
) -> FlexTensor {
    let x = whole(x);
    let bias = bias.as_ref().map(FlexTensor::storage);
    result([dims(&x)[0], layout.n_rows], |y| {
        cpu::with_scratch(|scratch| {
            cpu::linear(x.storage(), layout, words.storage(), bias, scratch, y)
        });
    })
}

/// The tensor with a buffer that holds its elements in order and nothing else; copies only what does not have one.
fn whole(tensor: FlexTensor) -> FlexTensor {
    let covers = tensor.is_contiguous()
        && tensor.layout().start_offset() == 0
        && tensor.storage::<f32>().len() == tensor.layout().num_elements();
    if covers {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// The buffer of a cache tensor, which must have no other owner: a copy made quietly would leave the cache as it was.
fn in_place(cache: &mut FlexTensor) -> &mut [f32] {
    cache
        .try_storage_mut()
        .expect("a cache lends its tensors to one kernel at a time")
}

fn dims(tensor: &FlexTensor) -> [usize; 2] {
    let shape = tensor.layout().shape();
    [shape[0], shape[1]]
}

/// A tensor whose elements `fill` writes.
fn result(shape: [usize; 2], fill: impl FnOnce(&mut [f32])) -> FlexTensor {
    let mut values = vec![0.0; shape[0] * shape[1]];
    fill(&mut values);
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(Shape::new(shape)),
        DType::F32,
    )
}
