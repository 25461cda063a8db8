//! The operations of a forward step on tensors, and the backend extension behind them.
//!
//! Each is one dispatch on a GPU. Nothing here reads a buffer back or waits.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{Int, Tensor};
use cinderlm_weights::PackedLayout;

use crate::cache::{Buffers, KvCache};
use crate::{PackedMatrix, Profile, Step};

/// Which elements of a head turn together under rotary embeddings.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RopeLayout {
    /// `2 i` with `2 i + 1`: the order in which GGUF files of the Llama architecture keep their weights.
    Interleaved,
    /// `i` with `i + rotary / 2`: as in GPT-NeoX and Qwen.
    Halves,
}

/// What [`rope_append`] needs besides its tensors.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RopeParams {
    /// Which elements turn together.
    pub layout: RopeLayout,
    /// Factor on sine and cosine: YaRN's attention factor, 1 elsewhere.
    pub scale: f32,
    /// Values of a head.
    pub head_dim: usize,
}

/// What [`attention`] needs besides its tensors.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AttentionParams {
    /// Query heads.
    pub n_heads: usize,
    /// Key-value heads; each serves `n_heads / n_kv_heads` query heads in a row.
    pub n_kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Tokens in a block of the cache.
    pub block_tokens: usize,
    /// Factor on scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

/// The operations that this crate adds to burn's backends. Callers use the functions on tensors of the same names.
#[backend_extension(Cube: cfg(feature = "webgpu"), Flex: cfg(feature = "cpu"))]
pub trait LanguageOps: Backend {
    /// See [`embed`].
    fn embed_tokens(
        words: IntTensor<Self>,
        step: IntTensor<Self>,
        n_rows: usize,
        layout: PackedLayout,
    ) -> FloatTensor<Self>;

    /// See [`rms_norm`].
    fn rms_norm_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
        profile: Profile,
    ) -> FloatTensor<Self>;

    /// See [`linear`].
    fn packed_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        layout: PackedLayout,
        profile: Profile,
    ) -> FloatTensor<Self>;

    /// See [`linear`].
    fn packed_linear_bias(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        bias: FloatTensor<Self>,
        layout: PackedLayout,
        profile: Profile,
    ) -> FloatTensor<Self>;

    /// See [`rope_append`]. Takes the cache's tensors and gives the same buffers back, written in place.
    #[allow(
        clippy::too_many_arguments,
        reason = "one dispatch has this many buffers; the macro takes tensors as plain arguments only"
    )]
    fn rope_append_rows(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        inv_freq: FloatTensor<Self>,
        k_cache: FloatTensor<Self>,
        v_cache: FloatTensor<Self>,
        step: IntTensor<Self>,
        params: RopeParams,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// See [`attention`].
    fn paged_attention(
        q: FloatTensor<Self>,
        k_cache: FloatTensor<Self>,
        v_cache: FloatTensor<Self>,
        step: IntTensor<Self>,
        params: AttentionParams,
        profile: Profile,
    ) -> FloatTensor<Self>;

    /// See [`swiglu`].
    fn silu_gated(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Writes `from`, `[n]`, over the first `n` values of `into`, in place, and gives `into` back.
    fn copy_into_front(from: FloatTensor<Self>, into: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`KvCache::copy_blocks`]. `pairs` holds `from, to` words; a block has `block_values` values.
    fn copy_cache_blocks(
        k_cache: FloatTensor<Self>,
        v_cache: FloatTensor<Self>,
        pairs: IntTensor<Self>,
        block_values: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// The embedding of each row's token: `y[i] = table[token[i]]`.
///
/// # Shapes
/// `table` `[vocabulary, width]`; result `[rows, width]`.
pub fn embed(table: &PackedMatrix, step: &Step, _profile: Profile) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::embed_tokens(
        table.words.clone().into_dispatch(),
        step.data.clone().into_dispatch(),
        step.n_rows,
        table.layout,
    ))
}

/// Root-mean-square norm of each row: `y = x / sqrt(mean(x^2) + epsilon) * weight` (Zhang and Sennrich, arXiv:1910.07467).
///
/// # Shapes
/// `x` and result `[rows, width]`, `weight` `[width]`.
///
/// # Panics
/// Shapes that do not fit.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f32, profile: Profile) -> Tensor<2> {
    assert_eq!(x.dims()[1], weight.dims()[0], "one weight per column");
    Tensor::from_dispatch(Dispatch::rms_norm_rows(
        x.into_dispatch(),
        weight.into_dispatch(),
        epsilon,
        profile,
    ))
}

/// Product with packed weights: `y = x w^T + bias`.
///
/// On the CPU, activations are rounded to 16 bits per block of 32 when the weights are quantised; everywhere else products are f32.
/// The order of additions depends on the shape of `w` and the profile, not on the number of rows.
///
/// # Shapes
/// `x` `[rows, n_cols]`, `w` `[n_rows, n_cols]`, `bias` `[n_rows]`; result `[rows, n_rows]`.
///
/// # Panics
/// Shapes that do not fit.
pub fn linear(
    x: Tensor<2>,
    w: &PackedMatrix,
    bias: Option<Tensor<1>>,
    profile: Profile,
) -> Tensor<2> {
    assert_eq!(
        x.dims()[1],
        w.n_cols(),
        "one activation per column of the weights"
    );
    let (x, words) = (x.into_dispatch(), w.words.clone().into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => {
            assert_eq!(bias.dims()[0], w.n_rows(), "one bias per output");
            Dispatch::packed_linear_bias(x, words, bias.into_dispatch(), w.layout, profile)
        }
        None => Dispatch::packed_linear(x, words, w.layout, profile),
    })
}

/// Turns queries and keys by their row's position (Su et al., arXiv:2104.09864), writes each row's key and value to its slot of the
/// cache, in place, and returns the turned queries.
///
/// Pair `i` of each head turns by `position * inv_freq[i]`, sine and cosine multiplied by `scale`; elements past the
/// `2 * inv_freq.len()` rotary ones pass through. `q` is overwritten when nothing else refers to it.
///
/// # Shapes
/// `q` and result `[rows, n_heads * head_dim]`; `k` and `v` `[rows, n_kv_heads * head_dim]`; `inv_freq` `[at most head_dim / 2]`.
///
/// # Panics
/// Shapes that do not fit, or a cache without blocks.
#[allow(
    clippy::too_many_arguments,
    reason = "the operands of one fused dispatch"
)]
pub fn rope_append(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    inv_freq: Tensor<1>,
    cache: &mut KvCache,
    step: &Step,
    layout: RopeLayout,
    scale: f32,
    _profile: Profile,
) -> Tensor<2> {
    let (n_rows, head_dim, width) = (step.n_rows, cache.layout().head_dim, cache.layout().width());
    assert!(
        q.dims()[0] == n_rows && q.dims()[1].is_multiple_of(head_dim),
        "queries {:?}",
        q.dims()
    );
    assert!(
        k.dims() == [n_rows, width] && v.dims() == [n_rows, width],
        "keys {:?}, values {:?}",
        k.dims(),
        v.dims()
    );
    assert!(
        2 * inv_freq.dims()[0] <= head_dim,
        "{} frequencies in heads of {head_dim}",
        inv_freq.dims()[0]
    );
    let Buffers {
        k: k_cache,
        v: v_cache,
    } = cache.take_buffers();
    let (q, k_cache, v_cache) = Dispatch::rope_append_rows(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        inv_freq.into_dispatch(),
        k_cache.into_dispatch(),
        v_cache.into_dispatch(),
        step.data.clone().into_dispatch(),
        RopeParams {
            layout,
            scale,
            head_dim,
        },
    );
    cache.put_buffers(Buffers {
        k: Tensor::from_dispatch(k_cache),
        v: Tensor::from_dispatch(v_cache),
    });
    Tensor::from_dispatch(q)
}

/// Causal attention over the cache: each row attends to positions `0..=position` of its sequence, found through its block table.
///
/// `y = softmax(scale * q k^T) v` per head, with the running softmax of Milakov and Gimelshein (arXiv:1805.02867), so no scores are
/// stored and the context length is part of no shape.
///
/// # Shapes
/// `q` and result `[rows, n_heads * head_dim]`.
///
/// # Panics
/// Shapes that do not fit, `n_heads` no multiple of the key-value heads, or a cache without blocks.
pub fn attention(
    q: Tensor<2>,
    cache: &KvCache,
    step: &Step,
    n_heads: usize,
    scale: f32,
    profile: Profile,
) -> Tensor<2> {
    let layout = *cache.layout();
    assert_eq!(
        q.dims(),
        [step.n_rows, n_heads * layout.head_dim],
        "queries"
    );
    assert!(
        n_heads.is_multiple_of(layout.n_kv_heads),
        "{n_heads} heads over {} key-value heads",
        layout.n_kv_heads
    );
    let Buffers { k, v } = cache.buffers();
    let params = AttentionParams {
        n_heads,
        n_kv_heads: layout.n_kv_heads,
        head_dim: layout.head_dim,
        block_tokens: layout.block_tokens,
        scale,
    };
    Tensor::from_dispatch(Dispatch::paged_attention(
        q.into_dispatch(),
        k.clone().into_dispatch(),
        v.clone().into_dispatch(),
        step.data.clone().into_dispatch(),
        params,
        profile,
    ))
}

/// The gate of SwiGLU (Shazeer, arXiv:2002.05202): `y = silu(gate) * up`, `silu(x) = x / (1 + exp(-x))`.
///
/// # Shapes
/// All `[rows, width]`.
///
/// # Panics
/// Shapes that differ.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    assert_eq!(gate.dims(), up.dims(), "gate and up");
    Tensor::from_dispatch(Dispatch::silu_gated(
        gate.into_dispatch(),
        up.into_dispatch(),
    ))
}

/// Overwrites the front of `into` with `from`, in place.
pub(crate) fn copy_into(from: Tensor<1>, into: Tensor<1>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::copy_into_front(
        from.into_dispatch(),
        into.into_dispatch(),
    ))
}

/// Copies blocks within both buffers of a cache, in place.
pub(crate) fn copy_blocks(buffers: Buffers, pairs: Tensor<1, Int>, block_values: usize) -> Buffers {
    let (k, v) = Dispatch::copy_cache_blocks(
        buffers.k.into_dispatch(),
        buffers.v.into_dispatch(),
        pairs.into_dispatch(),
        block_values,
    );
    Buffers {
        k: Tensor::from_dispatch(k),
        v: Tensor::from_dispatch(v),
    }
}
