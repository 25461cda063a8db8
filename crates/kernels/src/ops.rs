//! The operations of a forward step on tensors, and the backend extension behind them.
//!
//! Each is one dispatch on a GPU. Nothing here reads a buffer back or waits.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, ExtensionType, backend_extension};
use burn::tensor::{Int, Tensor};
use cinderlm_weights::PackedLayout;
use cinderlm_weights::packed::TILE_ROWS;

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
    /// Query heads of a row.
    pub n_heads: usize,
    /// Key-value heads of a row.
    pub n_kv_heads: usize,
    /// Tokens in a block of the cache.
    pub block_tokens: usize,
}

/// A tensor that an operation may be given.
#[derive(Clone, Debug, ExtensionType)]
pub enum Operand<B: Backend> {
    /// It is not.
    Absent,
    /// It is.
    Given(FloatTensor<B>),
}

impl<B: Backend> Operand<B> {
    pub(crate) fn get(self) -> Option<FloatTensor<B>> {
        match self {
            Self::Absent => None,
            Self::Given(tensor) => Some(tensor),
        }
    }
}

impl<const D: usize> From<Option<Tensor<D>>> for Operand<Dispatch> {
    fn from(tensor: Option<Tensor<D>>) -> Self {
        tensor.map_or(Self::Absent, |tensor| Self::Given(tensor.into_dispatch()))
    }
}

/// The tensors of [`fused_linear`].
#[derive(Clone, Debug, ExtensionType)]
pub struct LinearOperands<B: Backend> {
    /// Activations.
    pub x: FloatTensor<B>,
    /// Packed weights.
    pub words: IntTensor<B>,
    /// Factors of the norm of the activations.
    #[extension_type]
    pub norm: Operand<B>,
    /// Added to the outputs.
    #[extension_type]
    pub bias: Operand<B>,
    /// Added to the result.
    #[extension_type]
    pub residual: Operand<B>,
    /// Where the result is written to, in place of a new tensor.
    #[extension_type]
    pub into: Operand<B>,
}

/// What [`fused_linear`] needs besides its tensors.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LinearParams {
    /// Added to the mean square of a norm.
    pub epsilon: f32,
    /// Whether the upper half of the outputs gates the lower.
    pub is_gated: bool,
    /// Columns of the result.
    pub width: usize,
    /// The column of the result that the first output goes to.
    pub column: usize,
    /// What is known of the weights, for the CPU.
    pub has_normal_scales: bool,
}

/// What [`norm_heads`] needs besides its tensors.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct HeadNormParams {
    /// Heads under the first weight.
    pub n_heads: usize,
    /// Heads after them under the second weight.
    pub n_kv_heads: usize,
    /// Added to the mean square.
    pub epsilon: f32,
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
    /// Chunks that a GPU cuts contexts into, as [`n_chunks`](crate::n_chunks) gives for the step.
    pub n_chunks: usize,
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

    /// See [`fused_linear`]. Writes its columns of `into` in place, where that is given.
    fn packed_linear(
        #[extension_type] operands: LinearOperands<Self>,
        layout: PackedLayout,
        params: LinearParams,
        profile: Profile,
    ) -> FloatTensor<Self>;

    /// See [`norm_heads`].
    fn norm_head_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        kv_weight: FloatTensor<Self>,
        params: HeadNormParams,
    ) -> FloatTensor<Self>;

    /// See [`rope_append`]. Takes the cache's tensors and gives the same buffers back, written in place.
    fn rope_append_rows(
        qkv: FloatTensor<Self>,
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
    fn silu_gated(x: FloatTensor<Self>) -> FloatTensor<Self>;

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

/// The root-mean-square norm that a product's activations go through first: `x / sqrt(mean(x^2) + epsilon) * weight` (Zhang and
/// Sennrich, arXiv:1910.07467).
#[derive(Clone, Debug)]
pub struct Norm {
    /// One factor per column, `[n_cols]`.
    pub weight: Tensor<1>,
    /// Added to the mean square.
    pub epsilon: f32,
}

/// What is done in the same dispatch as a product with packed weights.
#[derive(Clone, Debug, Default)]
pub struct Fused {
    /// Norm of the activations.
    pub norm: Option<Norm>,
    /// Added to each output, `[n_rows]`.
    pub bias: Option<Tensor<1>>,
    /// Added to the result, of whose shape it is.
    pub residual: Option<Tensor<2>>,
    /// Takes the outputs as two halves and gives `silu(first) * second`, [`swiglu`].
    pub is_gated: bool,
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
    let fused = Fused {
        bias,
        ..Fused::default()
    };
    fused_linear(x, w, fused, profile)
}

/// [`linear`] with what comes before and after it: `y = gated(norm(x) w^T + bias) + residual`.
///
/// # Shapes
/// `x` `[rows, n_cols]`, `w` `[n_rows, n_cols]`; result `[rows, n_rows]`, or half as many columns if it is gated.
///
/// # Panics
/// Shapes that do not fit. Halves that are no multiples of 32 cannot be gated.
pub fn fused_linear(x: Tensor<2>, w: &PackedMatrix, fused: Fused, profile: Profile) -> Tensor<2> {
    let width = if fused.is_gated {
        assert!(
            w.n_rows().is_multiple_of(2 * TILE_ROWS),
            "halves of {} outputs",
            w.n_rows()
        );
        w.n_rows() / 2
    } else {
        w.n_rows()
    };
    if let Some(residual) = &fused.residual {
        assert_eq!(residual.dims(), [x.dims()[0], width], "residual");
    }
    linear_into(x, w, fused, None, 0, width, profile)
}

/// The products of the same activations with several matrices, side by side: `y = [norm(x) w0^T + bias0, norm(x) w1^T + bias1, …]`. One
/// dispatch each.
///
/// # Shapes
/// `x` `[rows, n_cols]`, each `w` `[n_rows, n_cols]`; result `[rows, sum of n_rows]`.
///
/// # Panics
/// Shapes that do not fit, or no matrix.
pub fn linear_side_by_side<'a>(
    x: Tensor<2>,
    norm: Option<Norm>,
    parts: impl Iterator<Item = (&'a PackedMatrix, Option<Tensor<1>>)> + Clone,
    profile: Profile,
) -> Tensor<2> {
    let width = parts.clone().map(|(w, _)| w.n_rows()).sum();
    let mut column = 0;
    let mut into = None;
    for (w, bias) in parts {
        let fused = Fused {
            norm: norm.clone(),
            bias,
            ..Fused::default()
        };
        into = Some(linear_into(
            x.clone(),
            w,
            fused,
            into,
            column,
            width,
            profile,
        ));
        column += w.n_rows();
    }
    into.expect("a matrix")
}

/// Writes the columns from `column` on of `into`, or of a new tensor of `width` columns.
fn linear_into(
    x: Tensor<2>,
    w: &PackedMatrix,
    fused: Fused,
    into: Option<Tensor<2>>,
    column: usize,
    width: usize,
    profile: Profile,
) -> Tensor<2> {
    let Fused {
        norm,
        bias,
        residual,
        is_gated,
    } = fused;
    assert_eq!(
        x.dims()[1],
        w.n_cols(),
        "one activation per column of the weights"
    );
    if let Some(bias) = &bias {
        assert_eq!(bias.dims()[0], w.n_rows(), "one bias per output");
    }
    let epsilon = norm.as_ref().map_or(0.0, |norm| norm.epsilon);
    if let Some(norm) = &norm {
        assert_eq!(norm.weight.dims()[0], w.n_cols(), "one weight per column");
    }
    let operands = LinearOperands {
        x: x.into_dispatch(),
        words: w.words.clone().into_dispatch(),
        norm: norm.map(|norm| norm.weight).into(),
        bias: bias.into(),
        residual: residual.into(),
        into: into.into(),
    };
    Tensor::from_dispatch(Dispatch::packed_linear(
        operands,
        w.layout,
        LinearParams {
            epsilon,
            is_gated,
            width,
            column,
            has_normal_scales: w.has_normal_scales,
        },
        profile,
    ))
}

/// Norm of single heads (Qwen 3), in place when nothing else refers to `x`: of the first `n_heads` of each row under `weight`, of the
/// `n_kv_heads` after them under `kv_weight`. What else a row has stays.
///
/// # Shapes
/// `x` and result `[rows, width]`, `weight` and `kv_weight` `[head_dim]`.
///
/// # Panics
/// Shapes that do not fit.
pub fn norm_heads(
    x: Tensor<2>,
    weight: Tensor<1>,
    kv_weight: Tensor<1>,
    params: HeadNormParams,
) -> Tensor<2> {
    let head_dim = weight.dims()[0];
    assert_eq!(kv_weight.dims()[0], head_dim, "heads of one size");
    assert!(
        (params.n_heads + params.n_kv_heads) * head_dim <= x.dims()[1],
        "{params:?} of {head_dim} values in rows of {}",
        x.dims()[1]
    );
    Tensor::from_dispatch(Dispatch::norm_head_rows(
        x.into_dispatch(),
        weight.into_dispatch(),
        kv_weight.into_dispatch(),
        params,
    ))
}

/// Turns queries and keys by their row's position (Su et al., arXiv:2104.09864), writes each row's key and value to its slot of the
/// cache, in place, and returns the turned queries.
///
/// Pair `i` of each head turns by `position * inv_freq[i]`, sine and cosine multiplied by `scale`; elements past the
/// `2 * inv_freq.len()` rotary ones pass through.
///
/// # Shapes
/// `qkv` `[rows, (n_heads + 2 * n_kv_heads) * head_dim]`: queries, keys, values; `inv_freq` `[at most head_dim / 2]`; result
/// `[rows, n_heads * head_dim]`.
///
/// # Panics
/// Shapes that do not fit, or a cache without blocks.
pub fn rope_append(
    qkv: Tensor<2>,
    inv_freq: Tensor<1>,
    cache: &mut KvCache,
    step: &Step,
    layout: RopeLayout,
    scale: f32,
) -> Tensor<2> {
    let (head_dim, n_kv_heads) = (cache.layout().head_dim, cache.layout().n_kv_heads);
    let [n_rows, width] = qkv.dims();
    let q_width = width.checked_sub(2 * cache.layout().width());
    assert!(
        n_rows == step.n_rows && q_width.is_some_and(|width| width.is_multiple_of(head_dim)),
        "queries, keys and values {:?}",
        qkv.dims()
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
        qkv.into_dispatch(),
        inv_freq.into_dispatch(),
        k_cache.into_dispatch(),
        v_cache.into_dispatch(),
        step.data.clone().into_dispatch(),
        RopeParams {
            layout,
            scale,
            head_dim,
            n_heads: width / head_dim - 2 * n_kv_heads,
            n_kv_heads,
            block_tokens: cache.layout().block_tokens,
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
        n_chunks: step.n_chunks,
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

/// The gate of SwiGLU (Shazeer, arXiv:2002.05202): `y = silu(gate) * up`, `silu(x) = x / (1 + exp(-x))`, the gate being the first half
/// of each row.
///
/// # Shapes
/// `x` `[rows, 2 * width]`, result `[rows, width]`.
///
/// # Panics
/// Rows without halves.
pub fn swiglu(x: Tensor<2>) -> Tensor<2> {
    assert!(
        x.dims()[1].is_multiple_of(2),
        "gate and up in {:?}",
        x.dims()
    );
    Tensor::from_dispatch(Dispatch::silu_gated(x.into_dispatch()))
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
