use thiserror::Error;

/// What makes a vocabulary unusable.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The kind of vocabulary is none that this crate reads.
    #[error("tokenizer model `{model}` is not supported; `gpt2` and `llama` are")]
    UnsupportedModel {
        /// The name in the file.
        model: String,
    },
    /// The word pattern is not known, and guessing one would give wrong ids.
    #[error("pre-tokenizer `{pre}` is not supported")]
    UnknownPreTokenizer {
        /// The name in the file.
        pre: String,
    },
    /// There are no tokens.
    #[error("the vocabulary is empty")]
    EmptyVocabulary,
    /// The token texts do not fit 32-bit offsets.
    #[error("the vocabulary has {n_tokens} tokens whose texts are too long to index")]
    VocabularyTooLarge {
        /// How many tokens there are.
        n_tokens: usize,
    },
    /// A list that runs beside the tokens has another length.
    #[error("{list} has {actual} entries for {expected} tokens")]
    LengthMismatch {
        /// The metadata list.
        list: &'static str,
        /// Its length.
        actual: usize,
        /// The number of tokens.
        expected: usize,
    },
    /// A list that the model cannot do without is absent.
    #[error("a `{model}` vocabulary needs {list}")]
    MissingList {
        /// The kind of vocabulary.
        model: &'static str,
        /// The metadata list.
        list: &'static str,
    },
    /// Two ids have the same text.
    #[error("tokens {first} and {second} are both {text:?}")]
    DuplicateToken {
        /// The lower id.
        first: u32,
        /// The higher id.
        second: u32,
        /// The text.
        text: String,
    },
    /// A token type outside 0..=6.
    #[error("token {id} has the unknown type {value}")]
    UnknownTokenType {
        /// The token.
        id: u32,
        /// The type in the file.
        value: i32,
    },
    /// A byte token whose text is not `<0xNN>`.
    #[error("byte token {id} is {text:?}, not <0xNN>")]
    MalformedByteToken {
        /// The token.
        id: u32,
        /// Its text.
        text: String,
    },
    /// A score that cannot be ordered.
    #[error("the score of token {id} is not a number")]
    ScoreNotANumber {
        /// The token.
        id: u32,
    },
    /// A merge that is not two texts with a space between.
    #[error("merge {index} is {merge:?}, not two tokens with a space between")]
    MalformedMerge {
        /// Its place in the list.
        index: usize,
        /// Its text.
        merge: String,
    },
    /// A merge that takes or makes a text that is no token.
    #[error("merge {index} names {text:?}, which is no token")]
    MergeOfUnknownToken {
        /// Its place in the list.
        index: usize,
        /// The text.
        text: String,
    },
    /// A special token's id is not below the number of tokens.
    #[error("{key} is {id}, but there are {n_tokens} tokens")]
    TokenIdOutOfRange {
        /// The metadata key.
        key: &'static str,
        /// The id in the file.
        id: u32,
        /// The number of tokens.
        n_tokens: usize,
    },
    /// Prompts must start with a token that is not named.
    #[error("add_bos_token holds, but bos_token_id is absent")]
    MissingBos,
}
