//! The one table that maps the tensor names of GGUF files to modules.
//!
//! | name                              | module                        | shape                    |          |
//! |-----------------------------------|-------------------------------|--------------------------|----------|
//! | `token_embd.weight`               | `Llama::embedding`            | `[vocab, hidden]`        | required |
//! | `output_norm.weight`              | `Llama::norm`                 | `[hidden]`               | required |
//! | `output.weight`                   | `Llama::output`               | `[vocab, hidden]`        | without it the embedding serves |
//! | `rope_freqs.weight`               | divisors of the rope          | `[rotary / 2]`           | optional |
//! | `blk.N.attn_norm.weight`          | `DecoderLayer::attention_norm`| `[hidden]`               | required |
//! | `blk.N.attn_q.weight`, `.bias`    | `Attention::query`            | `[query, hidden]`        | bias optional |
//! | `blk.N.attn_k.weight`, `.bias`    | `Attention::key`              | `[kv, hidden]`           | bias optional |
//! | `blk.N.attn_v.weight`, `.bias`    | `Attention::value`            | `[kv, hidden]`           | bias optional |
//! | `blk.N.attn_q_norm.weight`        | `Attention::query_norm`       | `[head]`                 | qwen3: required |
//! | `blk.N.attn_k_norm.weight`        | `Attention::key_norm`         | `[head]`                 | qwen3: required |
//! | `blk.N.attn_output.weight`, `.bias` | `Attention::output`         | `[hidden, query]`        | bias optional |
//! | `blk.N.ffn_norm.weight`           | `DecoderLayer::mlp_norm`      | `[hidden]`               | required |
//! | `blk.N.ffn_gate.weight`, `.bias`  | `SwiGluMlp::gate`             | `[ffn, hidden]`          | bias optional |
//! | `blk.N.ffn_up.weight`, `.bias`    | `SwiGluMlp::up`               | `[ffn, hidden]`          | bias optional |
//! | `blk.N.ffn_down.weight`, `.bias`  | `SwiGluMlp::down`             | `[hidden, ffn]`          | bias optional |
//!
//! Shapes are `[rows, columns]` with columns contiguous; a file lists them the other way round. The names are those of ggml's
//! `constants.py`.

use super::config::LlamaConfig;

/// A tensor of the whole model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum GlobalPart {
    Embedding,
    Norm,
    Output,
    RopeDivisors,
}

/// A norm of one layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum NormPart {
    Attention,
    Query,
    Key,
    Mlp,
}

/// A projection of one layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum LinearPart {
    Query,
    Key,
    Value,
    AttentionOutput,
    Gate,
    Up,
    Down,
}

/// A tensor's place in the model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Place {
    Global(GlobalPart),
    Norm(usize, NormPart),
    Weight(usize, LinearPart),
    Bias(usize, LinearPart),
}

/// What a tensor becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TensorShape {
    /// Stays packed on the device.
    Matrix { n_rows: usize, n_cols: usize },
    /// Becomes single-precision floats.
    Vector { len: usize },
}

impl TensorShape {
    /// As `[rows, columns]` or `[len]`.
    pub(crate) fn dims(self) -> Vec<u64> {
        match self {
            Self::Matrix { n_rows, n_cols } => vec![n_rows as u64, n_cols as u64],
            Self::Vector { len } => vec![len as u64],
        }
    }
}

impl GlobalPart {
    const ALL: [Self; 4] = [
        Self::Embedding,
        Self::Norm,
        Self::Output,
        Self::RopeDivisors,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Embedding => "token_embd.weight",
            Self::Norm => "output_norm.weight",
            Self::Output => "output.weight",
            Self::RopeDivisors => "rope_freqs.weight",
        }
    }
}

impl NormPart {
    const ALL: [Self; 4] = [Self::Attention, Self::Query, Self::Key, Self::Mlp];

    const fn stem(self) -> &'static str {
        match self {
            Self::Attention => "attn_norm",
            Self::Query => "attn_q_norm",
            Self::Key => "attn_k_norm",
            Self::Mlp => "ffn_norm",
        }
    }
}

impl LinearPart {
    pub(super) const ALL: [Self; 7] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::AttentionOutput,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    const fn stem(self) -> &'static str {
        match self {
            Self::Query => "attn_q",
            Self::Key => "attn_k",
            Self::Value => "attn_v",
            Self::AttentionOutput => "attn_output",
            Self::Gate => "ffn_gate",
            Self::Up => "ffn_up",
            Self::Down => "ffn_down",
        }
    }

    /// Outputs and inputs.
    fn size(self, config: &LlamaConfig) -> (usize, usize) {
        let (hidden, ffn) = (config.hidden_size, config.ffn_size);
        match self {
            Self::Query => (config.query_size(), hidden),
            Self::Key | Self::Value => (config.kv_size(), hidden),
            Self::AttentionOutput => (hidden, config.query_size()),
            Self::Gate | Self::Up => (ffn, hidden),
            Self::Down => (hidden, ffn),
        }
    }
}

impl Place {
    /// The place of the tensor called `name`, if the family has one. Whether the model has such a layer is not asked.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        if let Some(part) = GlobalPart::ALL.into_iter().find(|part| part.name() == name) {
            return Some(Self::Global(part));
        }
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let (stem, suffix) = rest.rsplit_once('.')?;
        let index = layer.parse().ok()?;
        let linear = LinearPart::ALL.into_iter().find(|part| part.stem() == stem);
        let norm = NormPart::ALL.into_iter().find(|part| part.stem() == stem);
        let place = match (suffix, linear, norm) {
            ("weight", Some(part), _) => Self::Weight(index, part),
            ("weight", None, Some(part)) => Self::Norm(index, part),
            ("bias", Some(part), _) => Self::Bias(index, part),
            _ => return None,
        };
        // `blk.01` or `blk.+1` would be a second name for `blk.1`.
        (place.name() == name).then_some(place)
    }

    /// The layer that it belongs to, if it is of one.
    pub(crate) fn layer(self) -> Option<usize> {
        match self {
            Self::Global(_) => None,
            Self::Norm(layer, _) | Self::Weight(layer, _) | Self::Bias(layer, _) => Some(layer),
        }
    }

    /// Its name in a file.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Global(part) => part.name().to_owned(),
            Self::Norm(layer, part) => format!("blk.{layer}.{}.weight", part.stem()),
            Self::Weight(layer, part) => format!("blk.{layer}.{}.weight", part.stem()),
            Self::Bias(layer, part) => format!("blk.{layer}.{}.bias", part.stem()),
        }
    }

    /// The shape that `config` gives it; `None` if a model of this configuration has no such place.
    pub(crate) fn shape(self, config: &LlamaConfig) -> Option<TensorShape> {
        let matrix = |n_rows, n_cols| Some(TensorShape::Matrix { n_rows, n_cols });
        let vector = |len| Some(TensorShape::Vector { len });
        let hidden = config.hidden_size;
        match self {
            Self::Global(GlobalPart::Embedding | GlobalPart::Output) => {
                matrix(config.vocab_size, hidden)
            }
            Self::Global(GlobalPart::Norm) => vector(hidden),
            Self::Global(GlobalPart::RopeDivisors) => vector(config.rope.n_rotary / 2),
            Self::Norm(layer, _) | Self::Weight(layer, _) | Self::Bias(layer, _)
                if layer >= config.n_layers =>
            {
                None
            }
            Self::Norm(_, NormPart::Attention | NormPart::Mlp) => vector(hidden),
            Self::Norm(_, NormPart::Query | NormPart::Key) => config
                .architecture
                .has_head_norms()
                .then_some(TensorShape::Vector {
                    len: config.head_dim,
                }),
            Self::Weight(_, part) => {
                let (n_rows, n_cols) = part.size(config);
                matrix(n_rows, n_cols)
            }
            Self::Bias(_, part) => vector(part.size(config).0),
        }
    }

    /// Every place that a model of this configuration cannot do without.
    pub(crate) fn required(config: &LlamaConfig) -> Vec<Self> {
        let mut places = vec![
            Self::Global(GlobalPart::Embedding),
            Self::Global(GlobalPart::Norm),
        ];
        for layer in 0..config.n_layers {
            let norms = NormPart::ALL.map(|part| Self::Norm(layer, part));
            let weights = LinearPart::ALL.map(|part| Self::Weight(layer, part));
            let of_layer = norms.into_iter().chain(weights);
            places.extend(of_layer.filter(|place| place.shape(config).is_some()));
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let globals = GlobalPart::ALL.map(Place::Global);
        let norms = NormPart::ALL.map(|part| Place::Norm(3, part));
        let weights = LinearPart::ALL.map(|part| Place::Weight(0, part));
        let biases = LinearPart::ALL.map(|part| Place::Bias(12, part));
        let places = globals
            .into_iter()
            .chain(norms)
            .chain(weights)
            .chain(biases);
        for place in places {
            assert_eq!(Place::from_name(&place.name()), Some(place));
        }
        assert_eq!(
            Place::from_name("blk.3.attn_q_norm.weight"),
            Some(Place::Norm(3, NormPart::Query))
        );
    }

    #[test]
    fn other_names_have_no_place() {
        for name in [
            "",
            "output",
            "output.bias",
            "blk.0.attn_norm.bias",
            "blk.0.attn_q",
            "blk.0.ffn_gate_exps.weight",
            "blk.-1.attn_q.weight",
            "blk.+1.attn_q.weight",
            "blk.01.attn_q.weight",
            "blk.99999999999999999999999.attn_q.weight",
            "blk.x.attn_q.weight",
        ] {
            assert_eq!(Place::from_name(name), None, "{name}");
        }
    }
}
