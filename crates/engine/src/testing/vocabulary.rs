//! A vocabulary small enough to know by heart.

use cinderlm_tokenizer::{SpecialTokens, Tokenizer, TokenizerError, VocabularyConfig};

/// Control tokens, from id 256 on.
const CONTROL: [&str; 7] = [
    "<|start|>",
    "<|end|>",
    "<|turn|>",
    "<|note|>",
    "<|prefix|>",
    "<|suffix|>",
    "<|middle|>",
];
/// Tokens of several bytes, from id 263 on. No merge leads to them, so that only a model can write them: text is encoded as bytes.
const WORDS: [&[u8]; 9] = [
    b"hello",
    b" world",
    b" upon",
    b" a",
    b" time",
    b"ab",
    b"abc",
    b"\n\n",
    b"\xe2\x82",
];
const NORMAL: i32 = 1;
const CONTROL_TYPE: i32 = 3;

/// 272 tokens: each byte is the token of that id, then come seven control tokens and nine tokens of several bytes.
///
/// `<|start|>` (256) starts documents but is not put before prompts; `<|end|>` (257) and `<|turn|>` (258) end generation; `<|note|>`
/// (259) means nothing; the last three mark a gap, in a vocabulary that can fill one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TinyVocabulary {
    /// Whether the vocabulary names its fill-in-the-middle tokens.
    pub can_fill_in: bool,
}

impl TinyVocabulary {
    /// Number of tokens.
    pub const N_TOKENS: usize = 256 + CONTROL.len() + WORDS.len();
    /// Starts a document.
    pub const START: u32 = 256;
    /// Ends a document.
    pub const END: u32 = 257;

    /// Its tokenizer.
    ///
    /// # Errors
    /// None, unless the tokenizer refuses what it should take.
    pub fn tokenizer(self) -> Result<Tokenizer, TokenizerError> {
        let bytes = (0..=u8::MAX).map(|byte| alphabet(&[byte]));
        let control = CONTROL.map(str::to_owned);
        let words = WORDS.map(alphabet);
        let n_words = WORDS.len();
        let types = [
            (256, NORMAL),
            (CONTROL.len(), CONTROL_TYPE),
            (n_words, NORMAL),
        ];
        let types = types.map(|(n, kind)| std::iter::repeat_n(kind, n));
        Tokenizer::new(VocabularyConfig {
            model: "gpt2".to_owned(),
            pre: Some("gpt-2".to_owned()),
            tokens: bytes.chain(control).chain(words).collect(),
            token_types: Some(types.into_iter().flatten().collect()),
            merges: Some(Vec::new()),
            bos_id: Some(Self::START),
            eos_id: Some(Self::END),
            eot_id: Some(258),
            fim_prefix_id: self.can_fill_in.then_some(260),
            fim_suffix_id: self.can_fill_in.then_some(261),
            fim_middle_id: self.can_fill_in.then_some(262),
            add_bos: Some(false),
            ..VocabularyConfig::default()
        })
    }

    /// The token of this name, written as in a response's `logprobs`: its text, or `bytes:\xe2\x82`.
    pub fn token(name: &str) -> Option<u32> {
        let bytes = match name.strip_prefix("bytes:") {
            Some(digits) => digits
                .split("\\x")
                .skip(1)
                .map(|byte| u8::from_str_radix(byte, 16))
                .collect::<Result<Vec<u8>, _>>()
                .ok()?,
            None => name.as_bytes().to_vec(),
        };
        if let [byte] = bytes.as_slice() {
            return Some(u32::from(*byte));
        }
        let texts = CONTROL.iter().map(|text| text.as_bytes());
        let mut texts = (256..).zip(texts.chain(WORDS));
        texts.find(|(_, text)| *text == bytes).map(|(id, _)| id)
    }

    /// The ids of a text, control tokens recognised.
    pub fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        tokenizer.encode_prompt(text, SpecialTokens::Parse)
    }
}

/// Bytes in the alphabet of byte-level vocabularies: printable ones as they are, the others as the characters from U+0100 on.
fn alphabet(bytes: &[u8]) -> String {
    let is_printable = |byte: &u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let character = |&byte: &u8| {
        if is_printable(&byte) {
            return char::from(byte);
        }
        let n_shifted_before = (0..byte).filter(|before| !is_printable(before)).count();
        u32::try_from(0x100 + n_shifted_before)
            .ok()
            .and_then(char::from_u32)
            .unwrap_or(char::REPLACEMENT_CHARACTER)
    };
    bytes.iter().map(character).collect()
}
