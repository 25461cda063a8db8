//! Text to token ids and back, from the vocabulary that a GGUF file carries.
//!
//! Two kinds of vocabulary are covered, named as in `tokenizer.ggml.model`:
//!
//! - `gpt2`: byte-level byte-pair encoding. Text is cut into words by a pattern that the file names in
//!   `tokenizer.ggml.pre`, then ranked merges join each word's bytes.
//! - `llama`: SentencePiece byte-pair encoding. Spaces become `▁`, and the neighbours whose union has the highest score are joined
//!   first; characters outside the vocabulary fall back to their bytes.
//!
//! # Why not a library
//!
//! Of the published crates, `tokenizers` and `kitoken` read their own file formats and know nothing of GGUF's metadata, and
//! `shimmytok` reads GGUF but only by parsing a whole file itself. The smaller two build on `fancy-regex`, which alone costs 278 KB of
//! compressed wasm. Once the patterns are data, what is left is a merge loop, so that is what this crate owns; the patterns run on
//! `regex-automata` with only the Unicode tables they need, and the whole crate takes 182 KB.
//!
//! # Sources
//!
//! The metadata keys are those of the GGUF specification. Pattern names, and the rules for special tokens, byte fallback and the
//! space prefix, follow llama.cpp's `src/llama-vocab.cpp`; exactness is tested against `tokenizers` and `sentencepiece`.

mod byte_level;
mod config;
mod decode_stream;
mod error;
mod merge;
mod pretokenize;
mod roles;
mod sentencepiece;
mod special;
mod tokenizer;
mod vocabulary;

pub use config::VocabularyConfig;
pub use decode_stream::DecodeStream;
pub use error::TokenizerError;
pub use roles::FillInTheMiddle;
pub use special::SpecialTokens;
pub use tokenizer::Tokenizer;
