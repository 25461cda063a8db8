//! Exactness against `tokenizers` and `sentencepiece`, on tiny vocabularies trained by tests/models/make_tokenizers.py.

use std::collections::BTreeMap;

use crate::support::{ByteLevel, SentencePiece};
use cinderlm_tokenizer::{SpecialTokens, Tokenizer};

#[test]
fn byte_level_ids_are_the_reference_ids() {
    let golden = ByteLevel::read();
    let mut tokenizers = BTreeMap::new();
    let mut n_checked = 0;
    for row in &golden.rows {
        for (pre, expect) in &row.ids {
            let tokenizer = tokenizers
                .entry(pre)
                .or_insert_with(|| Tokenizer::new(golden.config(pre)).unwrap());
            let ids = tokenizer.encode(&row.text, SpecialTokens::AsText);
            assert_eq!(&ids, expect, "{pre}: {:?}", row.text);
            assert_eq!(tokenizer.decode(&ids, true), row.text, "{pre}");
            n_checked += 1;
        }
    }
    assert!(n_checked > 1000, "only {n_checked} rows");
}

#[test]
fn sentencepiece_ids_are_the_reference_ids() {
    for name in [
        "tokenizer/sentencepiece.json",
        "tokenizer/sentencepiece_user_defined.json",
    ] {
        let golden = SentencePiece::read(name);
        assert!(golden.rows.len() > 50, "{name}");
        let tokenizer = Tokenizer::new(golden.config()).unwrap();
        for row in &golden.rows {
            let ids = tokenizer.encode(&row.text, SpecialTokens::AsText);
            assert_eq!(ids, row.ids, "{name}: {:?}", row.text);
            // U+2581 is how SentencePiece writes a space, so it comes back as one.
            let expect = row.text.replace('▁', " ");
            assert_eq!(tokenizer.decode_prompt(&ids, true), expect, "{name}");
        }
    }
}

#[test]
fn sentencepiece_prompts_start_with_bos_once() {
    let golden = SentencePiece::read("tokenizer/sentencepiece.json");
    let tokenizer = Tokenizer::new(golden.config()).unwrap();
    let (bos, eos) = (1, 2);
    assert_eq!(tokenizer.document_start(), Some(bos));
    assert!(tokenizer.is_end_of_generation(eos));
    let the = tokenizer.encode("the", SpecialTokens::Parse);
    let with_bos = [&[bos], the.as_slice()].concat();
    assert_eq!(tokenizer.encode_prompt("", SpecialTokens::Parse), [bos]);
    for text in ["the", "<s>the"] {
        let ids = tokenizer.encode_prompt(text, SpecialTokens::Parse);
        assert_eq!(ids, with_bos, "{text}");
        assert_eq!(tokenizer.decode_prompt(&ids, false), "the");
    }
    assert_eq!(tokenizer.decode(&with_bos, false), "<s> the");
    assert_eq!(tokenizer.decode(&with_bos, true), " the");
}
