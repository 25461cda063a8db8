//! Reading the golden files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cinderlm_tokenizer::VocabularyConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn read_golden<T: DeserializeOwned>(name: &str) -> T {
    let path = workspace().join("tests/golden").join(name);
    let json = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{} is unreadable: {error}", path.display()));
    serde_json::from_str(&json)
        .unwrap_or_else(|error| panic!("{} is malformed: {error}", path.display()))
}

/// `tokenizer/byte_level.json`, from tests/models/make_tokenizers.py.
#[derive(Deserialize)]
pub(crate) struct ByteLevel {
    pub(crate) tokens: Vec<String>,
    pub(crate) merges: Vec<String>,
    pub(crate) rows: Vec<ByteLevelRow>,
}

#[derive(Deserialize)]
pub(crate) struct ByteLevelRow {
    pub(crate) text: String,
    /// By name of the pattern.
    pub(crate) ids: BTreeMap<String, Vec<u32>>,
}

impl ByteLevel {
    pub(crate) fn read() -> Self {
        read_golden("tokenizer/byte_level.json")
    }

    pub(crate) fn config(&self, pre: &str) -> VocabularyConfig {
        VocabularyConfig {
            model: "gpt2".to_owned(),
            pre: Some(pre.to_owned()),
            tokens: self.tokens.clone(),
            merges: Some(self.merges.clone()),
            add_bos: Some(false),
            ..VocabularyConfig::default()
        }
    }
}

/// `tokenizer/sentencepiece*.json`, from tests/models/make_tokenizers.py.
#[derive(Deserialize)]
pub(crate) struct SentencePiece {
    pub(crate) tokens: Vec<String>,
    pub(crate) scores: Vec<f32>,
    pub(crate) token_types: Vec<i32>,
    pub(crate) add_space_prefix: bool,
    pub(crate) rows: Vec<SentencePieceRow>,
}

#[derive(Deserialize)]
pub(crate) struct SentencePieceRow {
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
}

impl SentencePiece {
    pub(crate) fn read(name: &str) -> Self {
        read_golden(name)
    }

    pub(crate) fn config(&self) -> VocabularyConfig {
        VocabularyConfig {
            model: "llama".to_owned(),
            tokens: self.tokens.clone(),
            scores: Some(self.scores.clone()),
            token_types: Some(self.token_types.clone()),
            add_space_prefix: Some(self.add_space_prefix),
            ..VocabularyConfig::default()
        }
    }
}
