//! The operations on burn's CPU backend: lends tensors' buffers to the kernels on slices.

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{Flex, FlexTensor, Layout};
use cinderlm_weights::PackedLayout;

use crate::cpu::{self, AttentionConfig, RopeConfig, RopePairs, StepRows};
use crate::{
    AttentionParams, HeadNormParams, LanguageOps, LinearOperands, LinearParams, Profile,
    RopeLayout, RopeParams,
};

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

    fn packed_linear(
        operands: LinearOperands<Self>,
        layout: PackedLayout,
        params: LinearParams,
        _profile: Profile,
    ) -> FlexTensor {
        let LinearOperands {
            x,
            words,
            norm,
            bias,
            residual,
            into,
        } = operands;
        let x = whole(x);
        let n_rows = dims(&x)[0];
        let normed = norm.get().map(|weight| {
            let mut y = vec![0.0; x.storage::<f32>().len()];
            cpu::rms_norm(x.storage(), whole(weight).storage(), params.epsilon, &mut y);
            y
        });
        let x = normed.as_deref().unwrap_or_else(|| x.storage());
        let bias = bias.get().map(whole);
        let w = cpu::Matrix {
            layout: &layout,
            words: words.storage(),
            has_normal_scales: params.has_normal_scales,
        };
        let product = |y: &mut [f32]| {
            let bias = bias.as_ref().map(FlexTensor::storage);
            let linear = if params.is_gated {
                cpu::gated_linear
            } else {
                cpu::linear
            };
            cpu::with_scratch(|scratch| linear(x, w, bias, scratch, y));
        };
        let shape = [n_rows, params.width];
        let mut result = into.get().unwrap_or_else(|| result(shape, |_| ()));
        let y = in_place(&mut result);
        if params.is_gated || params.width == layout.n_rows {
            product(y);
        } else {
            let mut columns = vec![0.0; n_rows * layout.n_rows];
            product(&mut columns);
            let rows = y.chunks_exact_mut(params.width);
            for (y, columns) in rows.zip(columns.chunks_exact(layout.n_rows)) {
                y[params.column..][..layout.n_rows].copy_from_slice(columns);
            }
        }
        if let Some(residual) = residual.get() {
            let residual = whole(residual);
            for (y, residual) in y.iter_mut().zip(residual.storage::<f32>()) {
                *y += residual;
            }
        }
        result
    }

    fn norm_head_rows(
        x: FlexTensor,
        weight: FlexTensor,
        kv_weight: FlexTensor,
        params: HeadNormParams,
    ) -> FlexTensor {
        let (mut x, weight, kv_weight) = (whole(x), whole(weight), whole(kv_weight));
        let (width, head_dim) = (dims(&x)[1], weight.storage::<f32>().len());
        let mut head = vec![0.0; head_dim];
        for row in x.storage_mut::<f32>().chunks_exact_mut(width) {
            let heads = row
                .chunks_exact_mut(head_dim)
                .take(params.n_heads + params.n_kv_heads);
            for (i, x) in heads.enumerate() {
                let weight = if i < params.n_heads {
                    &weight
                } else {
                    &kv_weight
                };
                cpu::rms_norm(x, weight.storage(), params.epsilon, &mut head);
                x.copy_from_slice(&head);
            }
        }
        x
    }

    fn rope_append_rows(
        qkv: FlexTensor,
        inv_freq: FlexTensor,
        mut k_cache: FlexTensor,
        mut v_cache: FlexTensor,
        step: FlexTensor,
        params: RopeParams,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (qkv, inv_freq) = (whole(qkv), whole(inv_freq));
        let [n_rows, width] = dims(&qkv);
        let step = StepRows::new(step.storage(), n_rows);
        let pairs = match params.layout {
            RopeLayout::Interleaved => RopePairs::Interleaved,
            RopeLayout::Halves => RopePairs::Halves,
        };
        let (q_width, kv_width) = (
            params.n_heads * params.head_dim,
            params.n_kv_heads * params.head_dim,
        );
        let columns = |start: usize, n: usize| -> Vec<f32> {
            let mut columns = Vec::with_capacity(n_rows * n);
            for row in qkv.storage::<f32>().chunks_exact(width) {
                columns.extend_from_slice(&row[start..start + n]);
            }
            columns
        };
        let k = columns(q_width, kv_width);
        let v = columns(q_width + kv_width, kv_width);
        let mut q = columns(0, q_width);
        cpu::rope_append(
            &mut q,
            &k,
            &v,
            inv_freq.storage(),
            in_place(&mut k_cache),
            in_place(&mut v_cache),
            &step,
            RopeConfig {
                pairs,
                scale: params.scale,
                head_dim: params.head_dim,
                block_tokens: params.block_tokens,
            },
        );
        (from_values(q, [n_rows, q_width]), k_cache, v_cache)
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
            n_chunks: _,
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

    fn silu_gated(x: FlexTensor) -> FlexTensor {
        let x = whole(x);
        let [n_rows, width] = dims(&x);
        let x = x.storage::<f32>().chunks_exact(width);
        result([n_rows, width / 2], |y| {
            for (x, y) in x.zip(y.chunks_exact_mut(width / 2)) {
                let (gate, up) = x.split_at(width / 2);
                cpu::swiglu(gate, up, y);
            }
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

/// The buffer of a tensor that is written in place, which must have no other owner: a copy made quietly would leave it as it was.
fn in_place(tensor: &mut FlexTensor) -> &mut [f32] {
    tensor
        .try_storage_mut()
        .expect("one kernel at a time owns what it writes in place")
}

fn dims(tensor: &FlexTensor) -> [usize; 2] {
    let shape = tensor.layout().shape();
    [shape[0], shape[1]]
}

/// A tensor whose elements `fill` writes.
fn result(shape: [usize; 2], fill: impl FnOnce(&mut [f32])) -> FlexTensor {
    let mut values = vec![0.0; shape[0] * shape[1]];
    fill(&mut values);
    from_values(values, shape)
}

fn from_values(values: Vec<f32>, shape: [usize; 2]) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(Shape::new(shape)),
        DType::F32,
    )
}
