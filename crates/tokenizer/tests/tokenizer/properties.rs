//! What holds for any text and any ids.

use std::sync::LazyLock;

use crate::support::{ByteLevel, SentencePiece};
use cinderlm_tokenizer::{DecodeStream, SpecialTokens, Tokenizer};
use proptest::prelude::*;

static BYTE_LEVEL: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let golden = ByteLevel::read();
    let pres = [
        "default",
        "gpt-2",
        "smollm",
        "llama-bpe",
        "qwen35",
        "gpt-4o",
        "deepseek-v3",
    ];
    let tokenizers =
        pres.map(|pre| Tokenizer::new(golden.config(pre)).expect("the fixture is valid"));
    tokenizers.into()
});

static SENTENCE_PIECE: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let names = [
        "tokenizer/sentencepiece.json",
        "tokenizer/sentencepiece_user_defined.json",
    ];
    let tokenizers = names.map(|name| {
        Tokenizer::new(SentencePiece::read(name).config()).expect("the fixture is valid")
    });
    tokenizers.into()
});

/// Any characters, with those that patterns and special tokens turn on more often than chance would have them.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        "[ \t\r\n\u{3000}]{1,4}",
        "[a-zA-Z'0-9 ]{1,12}",
        "[\u{300}-\u{30f}é你한🦀]{1,3}",
        Just("<s>".to_owned()),
        Just("<tool>".to_owned()),
    ];
    let pieces = prop::collection::vec(piece, 0..6);
    pieces.prop_map(|pieces| pieces.concat().replace('▁', "_"))
}

/// Pushes the ids one by one.
fn stream(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut stream = DecodeStream::new(skip_special);
    let mut text: String = ids.iter().map(|&id| stream.push(tokenizer, id)).collect();
    text += &stream.finish();
    text
}

proptest! {
    #[test]
    fn any_text_comes_back(text in text()) {
        for tokenizer in BYTE_LEVEL.iter() {
            let ids = tokenizer.encode(&text, SpecialTokens::Parse);
            prop_assert_eq!(tokenizer.decode(&ids, false), text.as_str());
            prop_assert_eq!(stream(tokenizer, &ids, false), text.as_str());
        }
        for tokenizer in SENTENCE_PIECE.iter() {
            let ids = tokenizer.encode_prompt(&text, SpecialTokens::AsText);
            prop_assert_eq!(tokenizer.decode_prompt(&ids, true), text.as_str());
        }
    }

    #[test]
    fn streams_equal_the_whole_for_any_ids(
        ids in prop::collection::vec(0u32..720, 0..40),
        skip_special: bool,
    ) {
        for tokenizer in BYTE_LEVEL.iter().take(1).chain(SENTENCE_PIECE.iter()) {
            let whole = tokenizer.decode(&ids, skip_special);
            prop_assert_eq!(stream(tokenizer, &ids, skip_special), whole);
        }
    }

    #[test]
    fn streams_equal_the_whole_for_any_chunks(
        bytes in prop::collection::vec(
            prop_oneof![any::<u8>(), Just(0xe2), Just(0x82), Just(0xac), Just(0xf0), Just(0x9f)],
            0..40,
        ),
        chunk_bytes in 1usize..6,
    ) {
        let mut stream = DecodeStream::new(false);
        let mut text: String = bytes.chunks(chunk_bytes).map(|chunk| stream.push_bytes(chunk)).collect();
        text += &stream.finish();
        prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn a_long_word_takes_no_quadratic_time() {
    let word = "abcde".repeat(100_000);
    for tokenizer in [&BYTE_LEVEL[1], &SENTENCE_PIECE[0]] {
        let ids = tokenizer.encode(&word, SpecialTokens::Parse);
        assert_eq!(tokenizer.decode_prompt(&ids, false), word);
    }
}
