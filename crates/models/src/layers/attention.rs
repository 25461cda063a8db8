//! Causal self-attention with grouped queries (Ainslie et al. 2023) over paged keys and values.

use burn::module::Module;
use burn::tensor::Tensor;
use cinderlm_kernels::{KvCache, attention, rope_append};

use super::{Linear, Pass, RmsNorm};

/// Configuration of [`Attention`].
#[derive(Clone, Copy, Debug)]
pub struct AttentionConfig {
    /// Query heads. Key-value heads are those of the cache.
    pub n_heads: usize,
    /// Factor on the scores before softmax.
    pub scale: f32,
}

/// Weights of [`Attention`].
#[derive(Debug)]
pub struct AttentionWeights {
    /// From hidden to query size.
    pub query: Linear,
    /// From hidden to key-value size.
    pub key: Linear,
    /// From hidden to key-value size.
    pub value: Linear,
    /// From query to hidden size.
    pub output: Linear,
    /// Norm of each query head, where the architecture has one.
    pub query_norm: Option<RmsNorm>,
    /// Norm of each key head, where the architecture has one.
    pub key_norm: Option<RmsNorm>,
}

impl AttentionConfig {
    /// The layer with these weights.
    pub fn load(&self, weights: AttentionWeights) -> Attention {
        let AttentionWeights {
            query,
            key,
            value,
            output,
            query_norm,
            key_norm,
        } = weights;
        Attention {
            query,
            key,
            value,
            output,
            query_norm,
            key_norm,
            n_heads: self.n_heads,
            scale: self.scale,
        }
    }
}

/// Self-attention of one layer.
#[derive(Module, Debug)]
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    query_norm: Option<RmsNorm>,
    key_norm: Option<RmsNorm>,
    n_heads: usize,
    scale: f32,
}

impl Attention {
    /// Appends each row's key and value to the cache and attends to all positions of the row's sequence up to its own.
    ///
    /// # Shapes
    /// - x: `[rows, hidden]`
    /// - output: `[rows, hidden]`
    pub fn forward(&self, x: Tensor<2>, cache: &mut KvCache, pass: Pass<'_>) -> Tensor<2> {
        let Pass {
            step,
            rope,
            profile,
        } = pass;
        let normed = |norm: &Option<RmsNorm>, heads| match norm {
            Some(norm) => norm.forward_heads(heads, profile),
            None => heads,
        };
        let query = normed(&self.query_norm, self.query.forward(x.clone(), profile));
        let key = normed(&self.key_norm, self.key.forward(x.clone(), profile));
        let value = self.value.forward(x, profile);
        let query = rope_append(
            query,
            key,
            value,
            rope.inv_freq(),
            cache,
            step,
            rope.layout(),
            rope.magnitude(),
            profile,
        );
        let mixed = attention(query, cache, step, self.n_heads, self.scale, profile);
        self.output.forward(mixed, profile)
    }
}
