//! Byte-level byte-pair encoding, `gpt2` in GGUF.
//!
//! Token texts write each byte as one printable character: the alphabet of GPT-2's `bytes_to_unicode`. Merging works on token ids,
//! so that alphabet matters only while a vocabulary is loaded.

use std::collections::HashMap;

use crate::merge::{Merge, Merger, Piece};
use crate::pretokenize::{Family, PreTokenizer};
use crate::vocabulary::TokenKind;
use crate::{TokenizerError, VocabularyConfig};

/// Bytes that are not printable, in order, are the characters from U+0100 on.
const FIRST_SHIFTED: u32 = 0x100;

fn is_printable(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// The alphabet's character for every byte.
fn byte_chars() -> impl Iterator<Item = (u8, char)> {
    let mut shifted = (FIRST_SHIFTED..).filter_map(char::from_u32);
    (0..=u8::MAX).filter_map(move |byte| {
        let character = if is_printable(byte) {
            char::from(byte)
        } else {
            shifted.next()?
        };
        Some((byte, character))
    })
}

/// Decodes token texts.
#[derive(Debug)]
pub(crate) struct ByteAlphabet {
    bytes: HashMap<char, u8>,
}

impl ByteAlphabet {
    pub(crate) fn new() -> Self {
        Self {
            bytes: byte_chars()
                .map(|(byte, character)| (character, byte))
                .collect(),
        }
    }

    /// Appends the bytes that a token stands for. Control and user-defined tokens are written as they read, and so are characters
    /// outside the alphabet.
    pub(crate) fn write(&self, text: &str, kind: TokenKind, bytes: &mut Vec<u8>) {
        if kind != TokenKind::Normal && kind != TokenKind::Unused {
            bytes.extend_from_slice(text.as_bytes());
            return;
        }
        for character in text.chars() {
            match self.bytes.get(&character) {
                Some(&byte) => bytes.push(byte),
                None => {
                    let mut utf8 = [0; 4];
                    bytes.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes());
                }
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct ByteLevel {
    pre_tokenizer: PreTokenizer,
    byte_ids: Vec<Option<u32>>,
    merges: HashMap<(u32, u32), Merge>,
    /// Words that are taken whole; empty unless the family does so.
    whole_words: HashMap<Box<[u8]>, u32>,
}

impl ByteLevel {
    pub(crate) fn new(
        config: &VocabularyConfig,
        family: &Family,
        ids: &HashMap<&str, u32>,
        kinds: &[TokenKind],
    ) -> Result<Self, TokenizerError> {
        let merges = config.merges.as_ref().ok_or(TokenizerError::MissingList {
            model: "gpt2",
            list: "merges",
        })?;
        let byte_ids = byte_chars().map(|(_, character)| {
            let mut utf8 = [0; 4];
            ids.get(&*character.encode_utf8(&mut utf8)).copied()
        });
        let mut whole_words = HashMap::new();
        if family.keeps_whole_words {
            let alphabet = ByteAlphabet::new();
            for (id, (text, &kind)) in (0u32..).zip(config.tokens.iter().zip(kinds)) {
                if kind == TokenKind::Normal {
                    let mut bytes = Vec::with_capacity(text.len());
                    alphabet.write(text, kind, &mut bytes);
                    whole_words.insert(bytes.into_boxed_slice(), id);
                }
            }
        }
        Ok(Self {
            pre_tokenizer: PreTokenizer::new(family),
            byte_ids: byte_ids.collect(),
            merges: read_merges(merges, ids)?,
            whole_words,
        })
    }

    /// Appends the ids of a text without special tokens. A byte that the vocabulary lacks gives no id, as in other implementations.
    pub(crate) fn encode(&self, text: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        let bytes = text.as_bytes();
        for word in self.pre_tokenizer.words(text) {
            if let Some(&id) = self.whole_words.get(&bytes[word.clone()]) {
                ids.push(id);
                continue;
            }
            let pieces = word.map(|start| Piece {
                start,
                end: start + 1,
                id: self.byte_ids[usize::from(bytes[start])],
            });
            merger.merge(
                pieces,
                |left, right| self.merges.get(&(left.id?, right.id?)).copied(),
                |piece| ids.extend(piece.id),
            );
        }
    }
}

/// The merges by pair of ids. Where a pair comes twice, the first counts.
fn read_merges(
    merges: &[String],
    ids: &HashMap<&str, u32>,
) -> Result<HashMap<(u32, u32), Merge>, TokenizerError> {
    let mut by_pair = HashMap::with_capacity(merges.len());
    for (index, (order, merge)) in (0u32..).zip(merges).enumerate() {
        let (left, right) = merge
            .split_once(' ')
            .filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '))
            .ok_or_else(|| TokenizerError::MalformedMerge {
                index,
                merge: merge.clone(),
            })?;
        let id_of = |text: &str| {
            ids.get(text)
                .copied()
                .ok_or_else(|| TokenizerError::MergeOfUnknownToken {
                    index,
                    text: text.to_owned(),
                })
        };
        let pair = (id_of(left)?, id_of(right)?);
        let id = id_of(&[left, right].concat())?;
        by_pair.entry(pair).or_insert(Merge { order, id });
    }
    Ok(by_pair)
}

#[cfg(test)]
mod tests {
    use super::{ByteAlphabet, byte_chars};
    use crate::vocabulary::TokenKind;

    #[test]
    fn the_alphabet_has_a_character_for_every_byte() {
        assert_eq!(byte_chars().count(), 256);
        assert_eq!(ByteAlphabet::new().bytes.len(), 256);
        for (byte, expect) in [
            (b' ', 'Ġ'),
            (b'\n', 'Ċ'),
            (b'A', 'A'),
            (0xad, 'Ń'),
            (0xff, 'ÿ'),
        ] {
            assert!(byte_chars().any(|pair| pair == (byte, expect)), "{expect}");
        }
    }

    #[test]
    fn normal_tokens_are_decoded_and_others_are_not() {
        let check = |text, kind, expect: &[u8]| {
            let mut bytes = Vec::new();
            ByteAlphabet::new().write(text, kind, &mut bytes);
            assert_eq!(bytes, expect, "{text}");
        };
        check("ĠâĤ¬", TokenKind::Normal, " €".as_bytes());
        check("€", TokenKind::Normal, "€".as_bytes());
        check("Ġ", TokenKind::UserDefined, "Ġ".as_bytes());
    }
}
