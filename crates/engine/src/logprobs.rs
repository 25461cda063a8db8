//! Log-probabilities in the shape that is reported.

use std::fmt::Write as _;

use cinderlm_protocol::{Logprobs, TopLogprobs};
use cinderlm_sampler::Reported;
use cinderlm_tokenizer::Tokenizer;

/// What is reported about one token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TokenEntry {
    text: String,
    /// `None` for a prompt's first token, which nothing predicts.
    logprob: Option<f64>,
    top: Option<TopLogprobs>,
    /// UTF-16 code units of the prompt and the text before the token.
    text_offset: u32,
}

impl TokenEntry {
    /// The entry of `token`, with what the model's own distribution says of it and of the `n_top` likeliest.
    pub(crate) fn new(
        tokenizer: &Tokenizer,
        token: u32,
        text_offset: u32,
        own: Option<Reported>,
        n_top: u8,
    ) -> Self {
        let logprob = own.as_ref().map(|own| own.logprob);
        let mut top = own.map_or_else(Vec::new, |own| own.top);
        if top.iter().all(|(likely, _)| *likely != token) {
            top.extend(logprob.map(|logprob| (token, logprob)));
        }
        let top = top
            .into_iter()
            .map(|(token, logprob)| (token_text(tokenizer, token), logprob));
        Self {
            text: token_text(tokenizer, token),
            logprob,
            top: (n_top > 0).then(|| TopLogprobs::new(top)),
            text_offset,
        }
    }

    /// The entry of a prompt's first token.
    pub(crate) fn unpredicted(tokenizer: &Tokenizer, token: u32) -> Self {
        Self {
            text: token_text(tokenizer, token),
            logprob: None,
            top: None,
            text_offset: 0,
        }
    }
}

/// The four lists of a response, from entries made with the same `n_top`.
pub(crate) fn to_logprobs(entries: Vec<TokenEntry>, n_top: u8) -> Logprobs {
    let mut logprobs = Logprobs::default();
    let mut top_logprobs = Vec::with_capacity(entries.len());
    for entry in entries {
        logprobs.tokens.push(entry.text);
        logprobs.token_logprobs.push(entry.logprob);
        logprobs.text_offset.push(entry.text_offset);
        top_logprobs.push(entry.top);
    }
    logprobs.top_logprobs = (n_top > 0).then_some(top_logprobs);
    logprobs
}

/// A token's own text, or `bytes:` and its bytes in hexadecimal if it is none.
pub(crate) fn token_text(tokenizer: &Tokenizer, token: u32) -> String {
    let bytes = tokenizer.token_bytes(token).unwrap_or_default();
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
            text
        }),
    }
}

/// The length of `text` as JavaScript counts it.
pub(crate) fn utf16_length(text: &str) -> u32 {
    u32::try_from(text.encode_utf16().count()).unwrap_or(u32::MAX)
}
