//! What a loaded model tells about itself.

/// Facts about a loaded model, for people and for the engine's bookkeeping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// `general.architecture` of the file.
    pub architecture: String,
    /// `general.name` of the file.
    pub name: Option<String>,
    /// Decoder layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key-value heads.
    pub n_kv_heads: usize,
    /// Token ids.
    pub vocab_size: usize,
    /// Most tokens of one sequence, as loaded: the file's, or less where the caller asked for less.
    pub context_length: usize,
    /// The file's own context length.
    pub trained_context_length: usize,
    /// Values in all tensors.
    pub n_parameters: u64,
    /// Bytes that the weights take on the device.
    pub weight_bytes: u64,
    /// Bytes of keys and values per token of a sequence, over all layers.
    pub kv_bytes_per_token: u64,
}
