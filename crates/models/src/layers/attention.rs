//! Causal self-attention with grouped queries (Ainslie et al. 2023) over paged keys and values.

use burn::module::Module;
use burn::tensor::Tensor;
use cinderlm_kernels::{HeadNormParams, KvCache, attention, norm_heads, rope_append};

use super::{Linear, Pass, Projections, RmsNorm};

/// Configuration of [`Attention`].
#[derive(Clone, Copy, Debug)]
pub struct AttentionConfig {
    /// Query heads. Key-value heads are those of the cache.
    pub n_heads: usize,
    /// Factor on the scores before softmax.
    pub scale: f32,
}

/// Norms of single heads, where the architecture has them.
#[derive(Module, Debug)]
pub struct HeadNorms {
    /// Of each query head.
    pub query: RmsNorm,
    /// Of each key head.
    pub key: RmsNorm,
}

impl AttentionConfig {
    /// The layer with these weights: projections from hidden to query, key and value size, with the norm before them, and from query to
    /// hidden size.
    pub fn load(
        &self,
        projections: Projections,
        output: Linear,
        head_norms: Option<HeadNorms>,
    ) -> Attention {
        Attention {
            projections,
            output,
            head_norms,
            n_heads: self.n_heads,
            scale: self.scale,
        }
    }
}

/// Self-attention of one layer, with the norm before it.
#[derive(Module, Debug)]
pub struct Attention {
    projections: Projections,
    output: Linear,
    head_norms: Option<HeadNorms>,
    n_heads: usize,
    scale: f32,
}

impl Attention {
    /// Appends each row's key and value to the cache, attends to all positions of the row's sequence up to its own, and adds the result to
    /// `x`.
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
        let mut heads = self.projections.forward(x.clone(), profile);
        if let Some(HeadNorms { query, key }) = &self.head_norms {
            let params = HeadNormParams {
                n_heads: self.n_heads,
                n_kv_heads: cache.layout().n_kv_heads,
                epsilon: query.epsilon,
            };
            heads = norm_heads(heads, query.weight.clone(), key.weight.clone(), params);
        }
        let query = rope_append(
            heads,
            rope.inv_freq(),
            cache,
            step,
            rope.layout(),
            rope.magnitude(),
        );
        let mixed = attention(query, cache, step, self.n_heads, self.scale, profile);
        self.output.forward_onto(mixed, x, profile)
    }
}
