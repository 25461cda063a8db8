//! Every way in which a vocabulary can be wrong has its error, and none panics.

use cinderlm_tokenizer::{
    FillInTheMiddle, SpecialTokens, Tokenizer, TokenizerError, VocabularyConfig,
};

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn byte_level() -> VocabularyConfig {
    VocabularyConfig {
        model: "gpt2".to_owned(),
        pre: Some("gpt-2".to_owned()),
        tokens: owned(&["a", "b", "ab", "<eos>"]),
        token_types: Some(vec![1, 1, 1, 3]),
        merges: Some(owned(&["a b"])),
        eos_id: Some(3),
        ..VocabularyConfig::default()
    }
}

fn sentencepiece() -> VocabularyConfig {
    VocabularyConfig {
        model: "llama".to_owned(),
        tokens: owned(&["<unk>", "<s>", "</s>", "▁", "a", "▁a"]),
        scores: Some(vec![0.0, 0.0, 0.0, -2.0, -3.0, -1.0]),
        token_types: Some(vec![2, 3, 3, 1, 1, 1]),
        ..VocabularyConfig::default()
    }
}

fn check(
    mut config: VocabularyConfig,
    spoil: impl FnOnce(&mut VocabularyConfig),
    expect: TokenizerError,
) {
    spoil(&mut config);
    assert_eq!(Tokenizer::new(config).err(), Some(expect));
}

#[test]
fn sound_vocabularies_are_taken() {
    let tokenizer = Tokenizer::new(byte_level()).unwrap();
    assert_eq!(
        tokenizer.encode("abba<eos>", SpecialTokens::Parse),
        [2, 1, 0, 3]
    );
    assert_eq!(tokenizer.document_start(), Some(3));
    let tokenizer = Tokenizer::new(sentencepiece()).unwrap();
    assert_eq!(
        tokenizer.encode_prompt("a aé", SpecialTokens::Parse),
        [1, 5, 5, 0]
    );
}

#[test]
fn what_the_model_needs_must_be_there() {
    use TokenizerError as E;
    let missing = |model, list| E::MissingList { model, list };
    check(byte_level(), |c| c.merges = None, missing("gpt2", "merges"));
    check(
        sentencepiece(),
        |c| c.scores = None,
        missing("llama", "scores"),
    );
    check(byte_level(), |c| c.add_bos = Some(true), E::MissingBos);
    check(
        byte_level(),
        |c| c.pre = Some("llama-bpe".to_owned()),
        E::MissingBos,
    );
    check(byte_level(), |c| c.tokens.clear(), E::EmptyVocabulary);
    let model = "t5".to_owned();
    check(
        byte_level(),
        |c| c.model = "t5".to_owned(),
        E::UnsupportedModel { model },
    );
    let pre = "klingon".to_owned();
    check(
        byte_level(),
        |c| c.pre = Some("klingon".to_owned()),
        E::UnknownPreTokenizer { pre },
    );
}

#[test]
fn lists_must_have_one_entry_a_token() {
    let mismatch = |list, actual, expected| TokenizerError::LengthMismatch {
        list,
        actual,
        expected,
    };
    check(
        byte_level(),
        |c| c.token_types = Some(vec![1; 3]),
        mismatch("token_type", 3, 4),
    );
    check(
        byte_level(),
        |c| c.token_types = Some(vec![1; 5]),
        mismatch("token_type", 5, 4),
    );
    check(
        sentencepiece(),
        |c| c.scores = Some(vec![]),
        mismatch("scores", 0, 6),
    );
    check(
        sentencepiece(),
        |c| c.scores = Some(vec![0.0; 7]),
        mismatch("scores", 7, 6),
    );
}

#[test]
fn tokens_must_be_sound() {
    use TokenizerError as E;
    let duplicate = E::DuplicateToken {
        first: 0,
        second: 4,
        text: "a".to_owned(),
    };
    let repeat_a = |c: &mut VocabularyConfig| {
        c.tokens.push("a".to_owned());
        c.token_types = None;
    };
    check(byte_level(), repeat_a, duplicate);
    for value in [-1, 7, i32::MAX] {
        let unknown = E::UnknownTokenType { id: 0, value };
        check(
            byte_level(),
            |c| c.token_types = Some(vec![value; 4]),
            unknown,
        );
    }
    let malformed = E::MalformedByteToken {
        id: 4,
        text: "a".to_owned(),
    };
    check(
        sentencepiece(),
        |c| c.token_types = Some(vec![2, 3, 3, 1, 6, 1]),
        malformed,
    );
    check(
        sentencepiece(),
        |c| c.scores = Some(vec![f32::NAN; 6]),
        E::ScoreNotANumber { id: 0 },
    );
}

#[test]
fn merges_must_join_tokens_into_tokens() {
    use TokenizerError as E;
    for merge in ["", " ", "ab", "a b b", "a  b", " a b", "a "] {
        let expect = E::MalformedMerge {
            index: 0,
            merge: merge.to_owned(),
        };
        check(byte_level(), |c| c.merges = Some(owned(&[merge])), expect);
    }
    for (merge, text) in [("a c", "c"), ("c a", "c"), ("b a", "ba")] {
        let expect = E::MergeOfUnknownToken {
            index: 1,
            text: text.to_owned(),
        };
        check(
            byte_level(),
            |c| c.merges = Some(owned(&["a b", merge])),
            expect,
        );
    }
}

#[test]
fn special_ids_must_be_in_range() {
    type Set = fn(&mut VocabularyConfig, u32);
    let fields: [(&'static str, Set); 8] = [
        ("bos_token_id", |c, id| c.bos_id = Some(id)),
        ("eos_token_id", |c, id| c.eos_id = Some(id)),
        ("eot_token_id", |c, id| c.eot_id = Some(id)),
        ("eom_token_id", |c, id| c.eom_id = Some(id)),
        ("unknown_token_id", |c, id| c.unk_id = Some(id)),
        ("fim_pre_token_id", |c, id| c.fim_prefix_id = Some(id)),
        ("fim_suf_token_id", |c, id| c.fim_suffix_id = Some(id)),
        ("fim_mid_token_id", |c, id| c.fim_middle_id = Some(id)),
    ];
    for (key, set) in fields {
        for id in [4, u32::MAX] {
            let expect = TokenizerError::TokenIdOutOfRange {
                key,
                id,
                n_tokens: 4,
            };
            check(byte_level(), |c| set(c, id), expect);
        }
    }
}

#[test]
fn fill_in_the_middle_tokens_are_found_by_text() {
    let mut config = byte_level();
    config.tokens.extend(owned(&[
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "<|fim_middle|>",
    ]));
    config.token_types = Some(vec![1, 1, 1, 3, 3, 3, 4]);
    let tokenizer = Tokenizer::new(config.clone()).unwrap();
    let expect = FillInTheMiddle {
        prefix: 4,
        suffix: 5,
        middle: 6,
    };
    assert_eq!(tokenizer.fim(), Some(expect));
    assert!(
        tokenizer.is_special(6),
        "a user-defined token with a role is a control token"
    );
    config.token_types = Some(vec![1, 1, 1, 3, 3, 3, 1]);
    assert_eq!(Tokenizer::new(config).unwrap().fim(), None);
}

#[test]
fn a_word_that_reads_like_an_end_token_does_not_end_a_generation() {
    let mut config = byte_level();
    config.tokens.push("</s>".to_owned());
    for (token_type, expect) in [(1, false), (3, true), (4, true)] {
        config.token_types = Some(vec![1, 1, 1, 3, token_type]);
        let tokenizer = Tokenizer::new(config.clone()).unwrap();
        assert_eq!(
            tokenizer.is_end_of_generation(4),
            expect,
            "type {token_type}"
        );
        assert_eq!(tokenizer.is_special(4), expect, "type {token_type}");
    }
}
