//! From a request's prompts to token ids.

use std::ops::Range;

use cinderlm_protocol::{CompletionError, CompletionRequest, PromptItem};
use cinderlm_tokenizer::{DecodeStream, SpecialTokens, Tokenizer};

use crate::logprobs::{token_text, utf16_length};

/// One prompt as the model will read it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PromptTokens {
    /// What is fed, at least one id.
    pub(crate) ids: Vec<u32>,
    /// What an echo shows.
    pub(crate) text: String,
    /// Which of the ids make up the text; the rest, such as a document start that was added, are none of it.
    text_ids: Range<usize>,
}

impl PromptTokens {
    /// Every prompt of a request whose ids are known to be in the vocabulary.
    ///
    /// # Errors
    /// `unsupported_parameter`: a `suffix` where the vocabulary cannot fill a gap, or no prompt where it has no document start.
    pub(crate) fn of_request(
        request: &CompletionRequest,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<Self>, CompletionError> {
        request
            .prompt
            .items()
            .map(|item| match &request.suffix {
                Some(suffix) => Self::around_gap(item, suffix, tokenizer),
                None => Self::new(item, tokenizer),
            })
            .collect()
    }

    fn new(item: PromptItem<'_>, tokenizer: &Tokenizer) -> Result<Self, CompletionError> {
        let (mut ids, text) = match item {
            PromptItem::DocumentStart => (Vec::new(), String::new()),
            PromptItem::Text(text) => {
                let ids = tokenizer.encode_prompt(text, SpecialTokens::Parse);
                (ids, text.to_owned())
            }
            PromptItem::Tokens(ids) => (ids.to_vec(), tokenizer.decode_prompt(ids, false)),
        };
        // A text too can come to nothing, if all of it is unknown to the vocabulary.
        if ids.is_empty() {
            let reason = "the model has no document start, so a prompt is needed";
            let start = tokenizer
                .document_start()
                .ok_or_else(|| CompletionError::unsupported_parameter("prompt", reason))?;
            ids.push(start);
        }
        let is_hidden =
            |id| tokenizer.is_special(id) && !text.starts_with(&token_text(tokenizer, id));
        let n_hidden = ids.first().map_or(0, |&id| usize::from(is_hidden(id)));
        Ok(Self {
            text_ids: n_hidden..ids.len(),
            ids,
            text,
        })
    }

    /// The prompt, then the suffix, each behind its mark, then the mark that asks for what goes between: the order in which Bavarian
    /// et al. (2022) train infilling and in which most models expect it.
    fn around_gap(
        item: PromptItem<'_>,
        suffix: &str,
        tokenizer: &Tokenizer,
    ) -> Result<Self, CompletionError> {
        let reason = "the model's vocabulary has no fill-in-the-middle tokens";
        let marks = tokenizer
            .fim()
            .ok_or_else(|| CompletionError::unsupported_parameter("suffix", reason))?;
        let (prompt_ids, text) = match item {
            PromptItem::DocumentStart => (Vec::new(), String::new()),
            PromptItem::Text(text) => {
                let ids = tokenizer.encode(text, SpecialTokens::Parse);
                (ids, text.to_owned())
            }
            PromptItem::Tokens(ids) => (ids.to_vec(), tokenizer.decode(ids, false)),
        };
        let mut ids = tokenizer.encode_prompt("", SpecialTokens::Parse);
        ids.push(marks.prefix);
        let text_ids = ids.len()..ids.len() + prompt_ids.len();
        ids.extend(prompt_ids);
        ids.push(marks.suffix);
        ids.extend(tokenizer.encode(suffix, SpecialTokens::Parse));
        ids.push(marks.middle);
        Ok(Self {
            ids,
            text,
            text_ids,
        })
    }

    /// For each id, how many UTF-16 code units of the text come before it.
    pub(crate) fn text_offsets(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let mut decoder = DecodeStream::new(false);
        let mut rest = self.text.as_str();
        let mut n_before = 0;
        let mut offsets = Vec::with_capacity(self.ids.len());
        for (i, &id) in self.ids.iter().enumerate() {
            if !self.text_ids.contains(&i) {
                offsets.push(n_before);
                continue;
            }
            let ruled_out = u32::from(decoder.is_ruled_out_by(tokenizer, id));
            let found = find_piece(rest, &decoder.push(tokenizer, id));
            offsets.push(n_before + utf16_length(&rest[..found.start]) + ruled_out);
            n_before += utf16_length(&rest[..found.end]);
            rest = &rest[found.end..];
        }
        offsets
    }
}

/// Where in the rest of a text the next token's text stands; an empty range at its beginning if it does not. SentencePiece puts
/// spaces into tokens that are not in the text, and what its vocabulary lacks stands in the text but in no token.
fn find_piece(rest: &str, piece: &str) -> Range<usize> {
    let piece = match piece.strip_prefix(' ') {
        Some(bare) if !rest.starts_with(piece) => bare,
        _ => piece,
    };
    let start = rest.find(piece);
    start.map_or(0..0, |start| start..start + piece.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cinderlm_tokenizer::VocabularyConfig;

    /// A SentencePiece vocabulary: a document start and a space are put before every prompt.
    fn sentencepiece() -> Tokenizer {
        let tokens = ["<unk>", "<s>", "</s>", "▁", "a", "é", "😀"];
        Tokenizer::new(VocabularyConfig {
            model: "llama".to_owned(),
            tokens: tokens.map(str::to_owned).to_vec(),
            scores: Some(vec![0.0; tokens.len()]),
            token_types: Some(vec![2, 3, 3, 1, 1, 1, 1]),
            ..VocabularyConfig::default()
        })
        .expect("the vocabulary is sound")
    }

    #[test]
    fn what_a_tokenizer_adds_is_no_part_of_the_text() {
        let tokenizer = sentencepiece();
        let check = |item: PromptItem<'_>, ids: &[u32], text: &str, offsets: &[u32]| {
            let prompt = PromptTokens::new(item, &tokenizer).expect("a document start is there");
            assert_eq!(prompt.ids, ids, "{item:?}");
            assert_eq!(prompt.text, text, "{item:?}");
            assert_eq!(prompt.text_offsets(&tokenizer), offsets, "{item:?}");
        };
        check(PromptItem::DocumentStart, &[1], "", &[0]);
        check(PromptItem::Text("aa"), &[1, 3, 4, 4], "aa", &[0, 0, 0, 1]);
        check(
            PromptItem::Text("😀é a"),
            &[1, 3, 6, 5, 3, 4],
            "😀é a",
            &[0, 0, 0, 2, 3, 4],
        );
        check(PromptItem::Tokens(&[1, 3, 4]), &[1, 3, 4], "a", &[0, 0, 0]);
        check(PromptItem::Tokens(&[4, 5]), &[4, 5], "aé", &[0, 1]);
        check(
            PromptItem::Text("a</s>a"),
            &[1, 3, 4, 2, 3, 4],
            "a</s>a",
            &[0, 0, 0, 1, 5, 5],
        );
        check(
            PromptItem::Text("a☃é"),
            &[1, 3, 4, 0, 5],
            "a☃é",
            &[0, 0, 0, 1, 2],
        );
    }
}
