//! Operations on slices, with the weights and numbers that each has for good: what is left of an operation once tensors are out of the way.

use std::cell::RefCell;

use burn_flex::FlexTensor;
use cinderlm_weights::PackedLayout;

use crate::cpu::{self, AttentionConfig, RopeConfig, RopePairs, StepRows};
use crate::{AttentionParams, HeadNormParams, LinearParams, RopeLayout, RopeParams};

/// Room that calls reuse. Like that of the kernels it grows to the largest step seen.
#[derive(Default)]
struct Room {
    /// Activations after their norm.
    normed: Vec<f32>,
    /// Products that go between others.
    columns: Vec<f32>,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::default();
}

/// See [`crate::embed`].
#[derive(Debug)]
pub(super) struct Embed {
    pub(super) words: FlexTensor,
    pub(super) layout: PackedLayout,
}

impl Embed {
    pub(super) fn run(&self, step: &StepRows<'_>, y: &mut [f32]) {
        cpu::with_scratch(|scratch| {
            cpu::embed(&self.layout, self.words.storage(), step, scratch, y)
        });
    }
}

/// See [`crate::fused_linear`].
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) words: FlexTensor,
    pub(super) layout: PackedLayout,
    pub(super) params: LinearParams,
    pub(super) norm: Option<FlexTensor>,
    pub(super) bias: Option<FlexTensor>,
}

impl Linear {
    /// Writes the columns of `y`, rows of `params.width` values, that the outputs go to.
    pub(super) fn run(&self, x: &[f32], residual: Option<&[f32]>, y: &mut [f32]) {
        let LinearParams {
            epsilon,
            is_gated,
            width,
            column,
            has_normal_scales,
        } = self.params;
        let w = cpu::Matrix {
            layout: &self.layout,
            words: self.words.storage(),
            has_normal_scales,
        };
        let (n_rows, n_outputs) = (x.len() / self.layout.n_cols, self.layout.n_rows);
        let bias = self.bias.as_ref().map(FlexTensor::storage);
        let linear = |x: &[f32], y: &mut [f32]| {
            let linear = match is_gated {
                true => cpu::gated_linear,
                false => cpu::linear,
            };
            cpu::with_scratch(|scratch| linear(x, w, bias, scratch, y));
        };
        ROOM.with_borrow_mut(|Room { normed, columns }| {
            let x = match &self.norm {
                Some(weight) => {
                    normed.resize(x.len(), 0.0);
                    cpu::rms_norm(x, weight.storage(), epsilon, normed);
                    normed
                }
                None => x,
            };
            if is_gated || width == n_outputs {
                return linear(x, y);
            }
            columns.resize(n_rows * n_outputs, 0.0);
            linear(x, columns);
            let rows = y.chunks_exact_mut(width);
            for (y, columns) in rows.zip(columns.chunks_exact(n_outputs)) {
                y[column..][..n_outputs].copy_from_slice(columns);
            }
        });
        for (y, residual) in y.iter_mut().zip(residual.unwrap_or_default()) {
            *y += residual;
        }
    }
}

/// See [`crate::norm_heads`].
#[derive(Debug)]
pub(super) struct NormHeads {
    pub(super) weight: FlexTensor,
    pub(super) kv_weight: FlexTensor,
    pub(super) params: HeadNormParams,
}

impl NormHeads {
    /// Of rows of `width` values, in place.
    pub(super) fn run(&self, width: usize, x: &mut [f32]) {
        let HeadNormParams {
            n_heads,
            n_kv_heads,
            epsilon,
        } = self.params;
        let (weight, kv_weight) = (self.weight.storage(), self.kv_weight.storage());
        let head_dim = weight.len();
        ROOM.with_borrow_mut(|Room { normed, .. }| {
            normed.resize(head_dim, 0.0);
            for row in x.chunks_exact_mut(width) {
                let heads = row.chunks_exact_mut(head_dim).take(n_heads + n_kv_heads);
                for (i, x) in heads.enumerate() {
                    let weight = if i < n_heads { weight } else { kv_weight };
                    cpu::rms_norm(x, weight, epsilon, normed);
                    x.copy_from_slice(normed);
                }
            }
        });
    }
}

/// See [`crate::rope_append`].
#[derive(Debug)]
pub(super) struct RopeAppend {
    pub(super) inv_freq: FlexTensor,
    pub(super) params: RopeParams,
}

impl RopeAppend {
    pub(super) fn run(
        &self,
        qkv: &[f32],
        k_cache: &mut [f32],
        v_cache: &mut [f32],
        step: &StepRows<'_>,
        q: &mut [f32],
    ) {
        let config = RopeConfig {
            pairs: match self.params.layout {
                RopeLayout::Interleaved => RopePairs::Interleaved,
                RopeLayout::Halves => RopePairs::Halves,
            },
            scale: self.params.scale,
            head_dim: self.params.head_dim,
            n_kv_heads: self.params.n_kv_heads,
            block_tokens: self.params.block_tokens,
        };
        let inv_freq = self.inv_freq.storage();
        cpu::with_scratch(|scratch| {
            cpu::rope_append(qkv, inv_freq, k_cache, v_cache, step, config, scratch, q);
        });
    }
}

/// See [`crate::attention`].
pub(super) fn attend(
    params: AttentionParams,
    q: &[f32],
    k_cache: &[f32],
    v_cache: &[f32],
    step: &StepRows<'_>,
    y: &mut [f32],
) {
    let config = AttentionConfig {
        n_heads: params.n_heads,
        n_kv_heads: params.n_kv_heads,
        head_dim: params.head_dim,
        block_tokens: params.block_tokens,
        scale: params.scale,
    };
    cpu::with_scratch(|scratch| cpu::attention(q, k_cache, v_cache, step, config, scratch, y));
}

/// See [`crate::swiglu`]; to rows of `width` values.
pub(super) fn gate(width: usize, x: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)) {
        let (gate, up) = x.split_at(width);
        cpu::swiglu(gate, up, y);
    }
}
