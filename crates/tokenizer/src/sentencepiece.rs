//! SentencePiece byte-pair encoding, `llama` in GGUF.
//!
//! There is no list of merges: two neighbours join where their union is a token, and the highest score goes first.

use std::collections::HashMap;

use crate::merge::{Merge, Merger, Piece};
use crate::vocabulary::{TokenKind, byte_of};
use crate::{TokenizerError, VocabularyConfig};

/// How token texts write a space: U+2581.
const SPACE: &str = "▁";

/// Appends the bytes that a token stands for.
pub(crate) fn write_token(
    id: u32,
    text: &str,
    kind: TokenKind,
    bytes: &mut Vec<u8>,
) -> Result<(), TokenizerError> {
    match kind {
        TokenKind::Byte => {
            let byte = byte_of(text).ok_or_else(|| TokenizerError::MalformedByteToken {
                id,
                text: text.to_owned(),
            })?;
            bytes.push(byte);
        }
        TokenKind::Control | TokenKind::Unknown => bytes.extend_from_slice(text.as_bytes()),
        TokenKind::Normal | TokenKind::UserDefined | TokenKind::Unused => {
            bytes.extend_from_slice(text.replace(SPACE, " ").as_bytes());
        }
    }
    Ok(())
}

#[derive(Debug)]
pub(crate) struct SentencePiece {
    merges: HashMap<Box<str>, Merge>,
    max_token_bytes: usize,
    byte_ids: Vec<Option<u32>>,
    unk_id: Option<u32>,
}

impl SentencePiece {
    pub(crate) fn new(
        config: &VocabularyConfig,
        kinds: &[TokenKind],
        unk_id: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        let scores = config.scores.as_ref().ok_or(TokenizerError::MissingList {
            model: "llama",
            list: "scores",
        })?;
        let mut merges = HashMap::with_capacity(config.tokens.len());
        let mut byte_ids = vec![None; 256];
        for (id, ((text, &kind), &score)) in
            (0u32..).zip(config.tokens.iter().zip(kinds).zip(scores))
        {
            if score.is_nan() {
                return Err(TokenizerError::ScoreNotANumber { id });
            }
            match kind {
                TokenKind::Normal | TokenKind::UserDefined | TokenKind::Unused => {
                    let order = order_of(score);
                    merges.insert(text.clone().into_boxed_str(), Merge { order, id });
                }
                TokenKind::Byte => {
                    if let Some(byte) = byte_of(text) {
                        byte_ids[usize::from(byte)] = Some(id);
                    }
                }
                TokenKind::Control | TokenKind::Unknown => {}
            }
        }
        Ok(Self {
            max_token_bytes: merges.keys().map(|text| text.len()).max().unwrap_or(0),
            merges,
            byte_ids,
            unk_id,
        })
    }

    /// Appends the ids of a text without special tokens, with a space in front if `space_prefix`.
    pub(crate) fn encode(
        &self,
        text: &str,
        space_prefix: bool,
        merger: &mut Merger,
        ids: &mut Vec<u32>,
    ) {
        let mut escaped = String::with_capacity(text.len() + SPACE.len());
        if space_prefix {
            escaped.push_str(SPACE);
        }
        escaped.push_str(&text.replace(' ', SPACE));
        let token = |start: usize, end: usize| {
            let is_possible = end - start <= self.max_token_bytes;
            is_possible.then(|| self.merges.get(&escaped[start..end]).copied())?
        };
        let pieces = escaped.char_indices().map(|(start, character)| {
            let end = start + character.len_utf8();
            let id = token(start, end).map(|merge| merge.id);
            Piece { start, end, id }
        });
        merger.merge(
            pieces,
            |left, right| token(left.start, right.end),
            |piece| match piece.id {
                Some(id) => ids.push(id),
                None => self.fall_back(&escaped.as_bytes()[piece.start..piece.end], ids),
            },
        );
    }

    /// A character that is no token becomes its bytes, or one unknown token where the vocabulary has no bytes.
    fn fall_back(&self, bytes: &[u8], ids: &mut Vec<u32>) {
        let byte_ids = bytes.iter().map(|&byte| self.byte_ids[usize::from(byte)]);
        match byte_ids.collect::<Option<Vec<u32>>>() {
            Some(byte_ids) => ids.extend(byte_ids),
            None => ids.extend(self.unk_id),
        }
    }
}

/// Maps a score to a number that is lower the higher the score is, with the bits of a float read as an ordered integer.
fn order_of(score: f32) -> u32 {
    // Adding zero turns the negative zero into the positive one: they are equal as scores.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 0 {
        bits | 0x8000_0000
    } else {
        !bits
    };
    !ascending
}

#[cfg(test)]
mod tests {
    use super::order_of;

    #[test]
    fn higher_scores_come_first() {
        let descending = [
            f32::INFINITY,
            7.5,
            1e-30,
            0.0,
            -1e-30,
            -1.0,
            -259.0,
            f32::NEG_INFINITY,
        ];
        for pair in descending.windows(2) {
            assert!(order_of(pair[0]) < order_of(pair[1]), "{pair:?}");
        }
        assert_eq!(order_of(0.0), order_of(-0.0));
    }
}
