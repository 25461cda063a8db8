//! The shape of a Llama-family model, read from GGUF metadata.
//!
//! Keys and their defaults: the GGUF specification (ggml, `docs/gguf.md`) and llama.cpp's loader for the same architectures.

use cinderlm_kernels::RopeLayout;

use super::rope::{RopeConfig, RopeScaling};
use crate::ModelError;
use crate::metadata::ArchitectureKeys;

/// Bounds on what a file may ask for, well above any published model of the family. They keep every product of two sizes far
/// inside 64 bits and every table small before a single tensor is looked at.
pub(crate) mod limits {
    /// Layers.
    pub(crate) const LAYERS: usize = 1024;
    /// Hidden size, feed-forward size, and heads times head size.
    pub(crate) const WIDTH: usize = 1 << 18;
    /// Size of one head.
    pub(crate) const HEAD_DIM: usize = 1024;
    /// Token ids.
    pub(crate) const VOCAB: usize = 1 << 22;
    /// Context length in tokens; positions stay exact in single precision.
    pub(crate) const CONTEXT: usize = 1 << 24;
}

const NOT_NEGATIVE: &str = "0 or more";

fn not_negative(value: f32) -> bool {
    value >= 0.0
}

/// What sets the members of the family apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `llama`: Llama 1 to 3, TinyLlama, SmolLM, SmolLM2, Mistral. Query and key rows are stored for interleaved rotation.
    Llama,
    /// `qwen2`: Qwen 2 and 2.5. Biases on queries, keys and values; rotation by halves.
    Qwen2,
    /// `qwen3`: Qwen 3, dense. A norm over each query and key head; rotation by halves.
    Qwen3,
}

impl Architecture {
    /// By the value of `general.architecture`.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedArchitecture`].
    pub fn from_name(name: &str) -> Result<Self, ModelError> {
        let known = [Self::Llama, Self::Qwen2, Self::Qwen3];
        let found = known
            .into_iter()
            .find(|architecture| architecture.name() == name);
        found.ok_or_else(|| ModelError::UnsupportedArchitecture {
            architecture: name.to_owned(),
        })
    }

    /// The value of `general.architecture`, which also prefixes the metadata keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    fn rope_layout(self) -> RopeLayout {
        match self {
            Self::Llama => RopeLayout::Interleaved,
            Self::Qwen2 | Self::Qwen3 => RopeLayout::Halves,
        }
    }

    /// Whether queries and keys are normalised head by head.
    pub(crate) fn has_head_norms(self) -> bool {
        self == Self::Qwen3
    }
}

/// Everything about a model but its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// The member of the family.
    pub architecture: Architecture,
    /// Decoder layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Inner width of the MLP.
    pub ffn_size: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// Token ids.
    pub vocab_size: usize,
    /// Most tokens of one sequence.
    pub context_length: usize,
    /// Added to the mean square in every norm.
    pub rms_epsilon: f32,
    /// Factor on the scores before softmax.
    pub attention_scale: f32,
    /// Rotary positions.
    pub rope: RopeConfig,
}

impl LlamaConfig {
    /// Reads and checks the metadata of `architecture`. `embedding_rows` is the number of rows of the token embedding, which
    /// fixes the vocabulary where no key does.
    ///
    /// # Errors
    /// [`ModelError::MissingMetadata`], [`ModelError::InvalidMetadata`] or [`ModelError::UnsupportedFeature`].
    pub(crate) fn from_metadata(
        architecture: Architecture,
        keys: &ArchitectureKeys<'_>,
        embedding_rows: u64,
    ) -> Result<Self, ModelError> {
        if let Some(n_experts) = keys.optional_count("expert_count", 0..=usize::MAX)?
            && n_experts > 0
        {
            return Err(keys.unsupported("expert_count", n_experts));
        }
        let n_layers = keys.count("block_count", 1..=limits::LAYERS)?;
        let hidden_size = keys.count("embedding_length", 1..=limits::WIDTH)?;
        let ffn_size = keys.count("feed_forward_length", 1..=limits::WIDTH)?;
        let context_length = keys.count("context_length", 1..=limits::CONTEXT)?;
        let n_heads = keys.count("attention.head_count", 1..=limits::WIDTH)?;
        let n_kv_heads = kv_heads(keys, n_heads)?;
        let head_dim = head_dim(keys, hidden_size, n_heads)?;
        let rms_epsilon = keys.float(
            "attention.layer_norm_rms_epsilon",
            "between 0 and 1",
            |epsilon| epsilon > 0.0 && epsilon < 1.0,
        )?;
        let attention_scale = keys
            .optional_float("attention.scale", NOT_NEGATIVE, not_negative)?
            .filter(|scale| *scale > 0.0)
            .unwrap_or((head_dim as f32).powf(-0.5));
        Ok(Self {
            architecture,
            n_layers,
            hidden_size,
            ffn_size,
            n_heads,
            n_kv_heads,
            head_dim,
            vocab_size: vocab_size(keys, embedding_rows)?,
            context_length,
            rms_epsilon,
            attention_scale,
            rope: rope(keys, architecture, head_dim, context_length)?,
        })
    }

    /// Width of all query heads together.
    pub fn query_size(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all key heads, or all value heads, together.
    pub fn kv_size(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }
}

fn kv_heads(keys: &ArchitectureKeys<'_>, n_heads: usize) -> Result<usize, ModelError> {
    let n_kv_heads = keys
        .optional_count("attention.head_count_kv", 1..=n_heads)?
        .unwrap_or(n_heads);
    if n_heads.is_multiple_of(n_kv_heads) {
        Ok(n_kv_heads)
    } else {
        Err(keys.invalid(
            "attention.head_count_kv",
            n_kv_heads,
            format!("a divisor of the head count {n_heads}"),
        ))
    }
}

fn head_dim(
    keys: &ArchitectureKeys<'_>,
    hidden_size: usize,
    n_heads: usize,
) -> Result<usize, ModelError> {
    let key_length = keys.optional_count("attention.key_length", 1..=limits::HEAD_DIM)?;
    let head_dim = match key_length {
        Some(head_dim) => head_dim,
        None if hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
        None => {
            return Err(keys.invalid(
                "attention.head_count",
                n_heads,
                format!("a divisor of the embedding length {hidden_size}"),
            ));
        }
    };
    if head_dim > limits::HEAD_DIM || n_heads * head_dim > limits::WIDTH {
        let expected = format!(
            "heads of at most {} elements, {} together",
            limits::HEAD_DIM,
            limits::WIDTH
        );
        return Err(keys.invalid("attention.head_count", n_heads, expected));
    }
    match keys.optional_count("attention.value_length", 1..=limits::HEAD_DIM)? {
        Some(value_length) if value_length != head_dim => {
            Err(keys.unsupported("attention.value_length", value_length))
        }
        _ => Ok(head_dim),
    }
}

fn vocab_size(keys: &ArchitectureKeys<'_>, embedding_rows: u64) -> Result<usize, ModelError> {
    let rows = usize::try_from(embedding_rows).unwrap_or(usize::MAX);
    let stated = keys.optional_count("vocab_size", 1..=limits::VOCAB)?;
    let vocab_size = stated.unwrap_or(rows);
    if vocab_size != rows || !(1..=limits::VOCAB).contains(&rows) {
        let expected = format!("the embedding's {rows} rows, from 1 to {}", limits::VOCAB);
        return Err(keys.invalid("vocab_size", vocab_size, expected));
    }
    Ok(vocab_size)
}

fn rope(
    keys: &ArchitectureKeys<'_>,
    architecture: Architecture,
    head_dim: usize,
    context_length: usize,
) -> Result<RopeConfig, ModelError> {
    let n_rotary = keys
        .optional_count("rope.dimension_count", 2..=head_dim)?
        .unwrap_or(head_dim);
    if !n_rotary.is_multiple_of(2) {
        return Err(keys.invalid("rope.dimension_count", n_rotary, "an even number"));
    }
    let base = keys.optional_float("rope.freq_base", "above 1", |base| base > 1.0)?;
    let magnitude = |key| {
        let value = keys.optional_float(key, "above 0", |value| value > 0.0)?;
        Ok::<_, ModelError>(value.unwrap_or(1.0))
    };
    Ok(RopeConfig {
        layout: architecture.rope_layout(),
        n_rotary,
        base: base.unwrap_or(10000.0),
        scaling: rope_scaling(keys, context_length)?,
        magnitude: magnitude("rope.scaling.attn_factor")?
            * magnitude("rope.scaling.yarn_attn_factor")?,
    })
}

fn rope_scaling(
    keys: &ArchitectureKeys<'_>,
    context_length: usize,
) -> Result<RopeScaling, ModelError> {
    let float = |key, default| {
        let value = keys.optional_float(key, NOT_NEGATIVE, not_negative)?;
        Ok::<_, ModelError>(value.unwrap_or(default))
    };
    // Files from before the scaling keys have `rope.scale_linear`. A factor of 0 means none.
    let factor = match float("rope.scaling.factor", float("rope.scale_linear", 1.0)?)? {
        0.0 => 1.0,
        factor => factor,
    };
    match keys
        .optional_string("rope.scaling.type")?
        .unwrap_or("linear")
    {
        "none" => Ok(RopeScaling::None),
        "linear" if factor == 1.0 => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor }),
        "yarn" => {
            let original_context = keys
                .optional_count("rope.scaling.original_context_length", 1..=limits::CONTEXT)?
                .unwrap_or(context_length);
            Ok(RopeScaling::Yarn {
                factor,
                original_context,
                extrapolation: float("rope.scaling.yarn_ext_factor", 1.0)?,
                beta_fast: float("rope.scaling.yarn_beta_fast", 32.0)?,
                beta_slow: float("rope.scaling.yarn_beta_slow", 1.0)?,
            })
        }
        other => Err(keys.unsupported("rope.scaling.type", other)),
    }
}
