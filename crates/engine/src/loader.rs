//! From a model file's metadata to what the engine needs beside the model.

use cinderlm_protocol::CompletionError;
use cinderlm_tokenizer::{Tokenizer, VocabularyConfig};
use cinderlm_weights::gguf::{Metadata, MetadataError};
use sha2::{Digest as _, Sha256};

use crate::failure::{metadata_failure, tokenizer_failure};

/// The vocabulary of a GGUF file, as the keys `tokenizer.ggml.*` of the format's specification describe it.
///
/// # Errors
/// The keys of the model's kind or its tokens are missing, or a key has a value of another type.
///
/// Takes the lists of texts out of `metadata`: they are megabytes, and nobody else needs them.
pub fn vocabulary_config(metadata: &mut Metadata) -> Result<VocabularyConfig, MetadataError> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let model = metadata.string(&key("model"))?.to_owned();
    let tokens = metadata.take_string_array(&key("tokens"))?;
    let tokens = tokens.ok_or_else(|| MetadataError::Missing { key: key("tokens") })?;
    let merges = metadata.take_string_array(&key("merges"))?;
    let metadata = &*metadata;
    let id = |name: &str| metadata.find::<u32>(&key(name));
    let either = |name: &str, former: &str| Ok(id(name)?.or(id(former)?));
    let flag = |name: &str| metadata.find::<bool>(&key(name));
    let pre: Option<&str> = metadata.find(&key("pre"))?;
    Ok(VocabularyConfig {
        model,
        pre: pre.map(str::to_owned),
        tokens,
        scores: metadata.find(&key("scores"))?,
        token_types: metadata.find(&key("token_type"))?,
        merges,
        bos_id: id("bos_token_id")?,
        eos_id: id("eos_token_id")?,
        eot_id: id("eot_token_id")?,
        eom_id: id("eom_token_id")?,
        unk_id: id("unknown_token_id")?,
        fim_prefix_id: either("fim_pre_token_id", "prefix_token_id")?,
        fim_suffix_id: either("fim_suf_token_id", "suffix_token_id")?,
        fim_middle_id: either("fim_mid_token_id", "middle_token_id")?,
        add_bos: flag("add_bos_token")?,
        add_space_prefix: flag("add_space_prefix")?,
    })
}

/// The tokenizer of a GGUF file.
///
/// # Errors
/// `corrupt_model` for a vocabulary that contradicts itself, `unsupported_model` for a kind that is not implemented.
///
/// The vocabulary is taken out of `metadata`, so that what comes next can have its room.
pub fn load_tokenizer(metadata: &mut Metadata) -> Result<Tokenizer, CompletionError> {
    let config = vocabulary_config(metadata).map_err(metadata_failure)?;
    metadata.forget("tokenizer.");
    Tokenizer::new(config).map_err(tokenizer_failure)
}

/// A short name for everything that may change results for the same seed: the model file, the runtime's version, the backend, the
/// adapter, the build, the kernel profile. It changes when any of `parts` does, their order and the cuts between them included.
pub fn system_fingerprint<S: AsRef<str>>(parts: &[S]) -> String {
    const N_BYTES: usize = 6;
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let digits = digest
        .iter()
        .take(N_BYTES)
        .map(|byte| format!("{byte:02x}"));
    format!("fp_{}", digits.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cinderlm_protocol::ErrorCode;
    use cinderlm_weights::gguf::{Array, Scalar, ScalarKind, Value};

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    fn texts(texts: &[&str]) -> Value {
        Value::Array(Array::Strings(
            texts.iter().map(|text| (*text).to_owned()).collect(),
        ))
    }

    fn metadata(entries: &[(&str, Value)]) -> Metadata {
        let mut metadata = Metadata::default();
        for (name, value) in entries {
            metadata.insert(format!("tokenizer.ggml.{name}"), value.clone());
        }
        metadata
    }

    #[test]
    fn every_key_has_its_field() {
        let int = |value| Value::Scalar(Scalar::Int(value));
        let flag = |value| Value::Scalar(Scalar::Bool(value));
        let floats = |values: &[f32]| {
            let bytes = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            Value::Array(Array::Scalars {
                kind: ScalarKind::F32,
                bytes,
            })
        };
        let ints = |values: &[i32]| {
            let bytes = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            Value::Array(Array::Scalars {
                kind: ScalarKind::I32,
                bytes,
            })
        };
        let found = vocabulary_config(&mut metadata(&[
            ("model", text("gpt2")),
            ("pre", text("smollm")),
            ("tokens", texts(&["a", "b", "ab"])),
            ("scores", floats(&[0.5, 1.0, 2.0])),
            ("token_type", ints(&[1, 1, 3])),
            ("merges", texts(&["a b"])),
            ("bos_token_id", int(1)),
            ("eos_token_id", int(2)),
            ("eot_token_id", int(3)),
            ("eom_token_id", int(4)),
            ("unknown_token_id", int(5)),
            ("fim_pre_token_id", int(6)),
            ("suffix_token_id", int(7)),
            ("fim_mid_token_id", int(8)),
            ("middle_token_id", int(9)),
            ("add_bos_token", flag(false)),
            ("add_space_prefix", flag(true)),
        ]));
        let expect = VocabularyConfig {
            model: "gpt2".to_owned(),
            pre: Some("smollm".to_owned()),
            tokens: ["a", "b", "ab"].map(str::to_owned).to_vec(),
            scores: Some(vec![0.5, 1.0, 2.0]),
            token_types: Some(vec![1, 1, 3]),
            merges: Some(vec!["a b".to_owned()]),
            bos_id: Some(1),
            eos_id: Some(2),
            eot_id: Some(3),
            eom_id: Some(4),
            unk_id: Some(5),
            fim_prefix_id: Some(6),
            fim_suffix_id: Some(7),
            fim_middle_id: Some(8),
            add_bos: Some(false),
            add_space_prefix: Some(true),
        };
        assert_eq!(found, Ok(expect));
    }

    #[test]
    fn unusable_vocabularies_have_the_codes_of_the_contract() {
        let check = |entries: &[(&str, Value)], code: ErrorCode, part: &str| {
            let error = load_tokenizer(&mut metadata(entries)).expect_err("it is unusable");
            assert_eq!(error.code, code, "{error}");
            assert!(
                error.message.contains(part),
                "{part:?} is missing from: {error}"
            );
        };
        check(&[], ErrorCode::CorruptModel, "tokenizer.ggml.model");
        check(
            &[("model", text("gpt2"))],
            ErrorCode::CorruptModel,
            "tokenizer.ggml.tokens",
        );
        check(
            &[("model", text("gpt2")), ("tokens", text("a"))],
            ErrorCode::CorruptModel,
            "tokenizer.ggml.tokens",
        );
        check(
            &[("model", text("rwkv")), ("tokens", texts(&["a"]))],
            ErrorCode::UnsupportedModel,
            "rwkv",
        );
    }

    #[test]
    fn fingerprints_tell_parts_apart() {
        let fingerprint = system_fingerprint(&["model", "cpu"]);
        assert_eq!(fingerprint.len(), "fp_".len() + 12);
        assert_eq!(fingerprint, system_fingerprint(&["model", "cpu"]));
        for other in [&["model", "webgpu"], &["cpu", "model"], &["modelc", "pu"]] {
            assert_ne!(fingerprint, system_fingerprint(other));
        }
    }
}
