/// A vocabulary as plain data: the `tokenizer.ggml.*` metadata of a GGUF file, field by field.
///
/// Nothing here is trusted: [`Tokenizer::new`](crate::Tokenizer::new) checks every length and every id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VocabularyConfig {
    /// `model`: `gpt2` or `llama`.
    pub model: String,
    /// `pre`: the name of the pattern that cuts text into words. Read for `gpt2` only; absent means `default`.
    pub pre: Option<String>,
    /// `tokens`: the text of each token, in the order of ids.
    pub tokens: Vec<String>,
    /// `scores`: one for each token. Needed by `llama`.
    pub scores: Option<Vec<f32>>,
    /// `token_type`: one for each token. 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; 0 counts as normal.
    pub token_types: Option<Vec<i32>>,
    /// `merges`: pairs of token texts with one space between, the first merged first. Needed by `gpt2`.
    pub merges: Option<Vec<String>>,
    /// `bos_token_id`: starts a document. `llama` falls back to 1.
    pub bos_id: Option<u32>,
    /// `eos_token_id`: ends a document. `llama` falls back to 2.
    pub eos_id: Option<u32>,
    /// `eot_token_id`: ends a turn.
    pub eot_id: Option<u32>,
    /// `eom_token_id`: ends a message.
    pub eom_id: Option<u32>,
    /// `unknown_token_id`: stands for what the vocabulary cannot write. `llama` falls back to 0.
    pub unk_id: Option<u32>,
    /// `fim_pre_token_id` (formerly `prefix_token_id`): comes before the text that precedes a gap.
    pub fim_prefix_id: Option<u32>,
    /// `fim_suf_token_id` (formerly `suffix_token_id`): comes before the text that follows a gap.
    pub fim_suffix_id: Option<u32>,
    /// `fim_mid_token_id` (formerly `middle_token_id`): asks for the text of the gap.
    pub fim_middle_id: Option<u32>,
    /// `add_bos_token`. Absent: yes for `llama` and for the patterns of the Llama 3 and Tekken families, no otherwise.
    pub add_bos: Option<bool>,
    /// `add_space_prefix`: whether text gets a space in front. Read for `llama` only; absent means yes.
    pub add_space_prefix: Option<bool>,
}
