//! The operations on burn's CPU backend: lends tensors' buffers to the kernels on slices.

mod calls;
mod tape;

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{Flex, FlexTensor, Layout};
use cinderlm_weights::PackedLayout;

pub(crate) use tape::Tape;

use crate::cpu::StepRows;
use crate::{
    AttentionParams, HeadNormParams, LanguageOps, LinearOperands, LinearParams, Profile, RopeParams,
};
use calls::{Embed, Linear, NormHeads, RopeAppend, attend, gate};
use tape::{Op, note, release, slot};

impl LanguageOps for Flex {
    fn embed_tokens(
        words: FlexTensor,
        step: FlexTensor,
        n_rows: usize,
        layout: PackedLayout,
    ) -> FlexTensor {
        let call = Embed { words, layout };
        let rows = StepRows::new(step.storage(), n_rows);
        let y = result([n_rows, layout.n_cols], |y| call.run(&rows, y));
        note(|notes| {
            notes.constants([&call.words])?;
            let is_known = notes.is_step(&step);
            is_known.then(|| (Op::Embed(call), notes.new_slot(&y)))
        });
        y
    }

    fn packed_linear(
        operands: LinearOperands<Self>,
        layout: PackedLayout,
        params: LinearParams,
        _profile: Profile,
    ) -> FlexTensor {
        let (x, residual) = (whole(operands.x), operands.residual.get().map(whole));
        let call = Linear {
            words: operands.words,
            layout,
            params,
            norm: operands.norm.get().map(whole),
            bias: operands.bias.get().map(whole),
        };
        let into = operands.into.get();
        let before = into.as_ref().map(release);
        let mut y = into.unwrap_or_else(|| result([dims(&x)[0], params.width], |_| ()));
        let added = residual.as_ref().map(FlexTensor::storage);
        call.run(x.storage(), added, in_place(&mut y));
        note(|notes| {
            let weights = [Some(&call.words), call.norm.as_ref(), call.bias.as_ref()];
            notes.constants(weights.into_iter().flatten())?;
            let op = Op::Linear {
                call,
                x: notes.slot(&x)?,
                residual: match &residual {
                    Some(residual) => Some(notes.slot(residual)?),
                    None => None,
                },
            };
            let y = match before {
                Some(before) => notes.same_slot(before?, &y),
                None => notes.new_slot(&y),
            };
            Some((op, y))
        });
        y
    }

    fn norm_head_rows(
        x: FlexTensor,
        weight: FlexTensor,
        kv_weight: FlexTensor,
        params: HeadNormParams,
    ) -> FlexTensor {
        let call = NormHeads {
            weight: whole(weight),
            kv_weight: whole(kv_weight),
            params,
        };
        let mut y = whole(x);
        let ([_, width], before) = (dims(&y), slot(&y));
        // A copy if anything else refers to it.
        call.run(width, y.storage_mut());
        note(|notes| {
            notes.constants([&call.weight, &call.kv_weight])?;
            Some((Op::NormHeads { call, x: before? }, notes.new_slot(&y)))
        });
        y
    }

    fn rope_append_rows(
        qkv: FlexTensor,
        inv_freq: FlexTensor,
        mut k_cache: FlexTensor,
        mut v_cache: FlexTensor,
        step: FlexTensor,
        params: RopeParams,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let qkv = whole(qkv);
        let n_rows = dims(&qkv)[0];
        let call = RopeAppend {
            inv_freq: whole(inv_freq),
            params,
        };
        let rows = StepRows::new(step.storage(), n_rows);
        let q = result([n_rows, params.n_heads * params.head_dim], |q| {
            let (k_cache, v_cache) = (in_place(&mut k_cache), in_place(&mut v_cache));
            call.run(qkv.storage(), k_cache, v_cache, &rows, q);
        });
        note(|notes| {
            notes.constants([&call.inv_freq])?;
            let op = Op::RopeAppend {
                call,
                qkv: notes.slot(&qkv)?,
                cache: notes.cache(&k_cache, &step)?,
            };
            Some((op, notes.new_slot(&q)))
        });
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
        let rows = StepRows::new(step.storage(), dims(&q)[0]);
        let (k, v) = (k_cache.storage(), v_cache.storage());
        let y = result(dims(&q), |y| attend(params, q.storage(), k, v, &rows, y));
        note(|notes| {
            let op = Op::Attention {
                params,
                q: notes.slot(&q)?,
                cache: notes.cache(&k_cache, &step)?,
            };
            Some((op, notes.new_slot(&y)))
        });
        y
    }

    fn silu_gated(x: FlexTensor) -> FlexTensor {
        let x = whole(x);
        let [n_rows, width] = dims(&x);
        let y = result([n_rows, width / 2], |y| gate(width / 2, x.storage(), y));
        note(|notes| {
            let x = notes.slot(&x)?;
            Some((Op::Gate { x }, notes.new_slot(&y)))
        });
        y
    }

    fn copy_into_front(from: FlexTensor, mut into: FlexTensor) -> FlexTensor {
        let from = from.storage::<f32>();
        in_place(&mut into)[..from.len()].copy_from_slice(from);
        note(|_| None);
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
        note(|_| None);
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
