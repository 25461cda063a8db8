//! Token kinds and the bytes that tokens stand for.

use std::collections::HashMap;

use crate::{TokenizerError, VocabularyConfig};

/// GGUF's token types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenKind {
    fn from_ggml(id: u32, value: i32) -> Result<Self, TokenizerError> {
        match value {
            0 | 1 => Ok(Self::Normal),
            2 => Ok(Self::Unknown),
            3 => Ok(Self::Control),
            4 => Ok(Self::UserDefined),
            5 => Ok(Self::Unused),
            6 => Ok(Self::Byte),
            _ => Err(TokenizerError::UnknownTokenType { id, value }),
        }
    }

    /// Whether the token stands for no text of its own.
    pub(crate) fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// Every token's kind, one for each of `config.tokens`. A file without types gets normal tokens, and byte tokens where a
/// SentencePiece vocabulary writes them.
pub(crate) fn token_kinds(
    config: &VocabularyConfig,
    has_byte_tokens: bool,
) -> Result<Vec<TokenKind>, TokenizerError> {
    let n_tokens = config.tokens.len();
    let Some(types) = &config.token_types else {
        let kind = |text: &String| match byte_of(text) {
            Some(_) if has_byte_tokens => TokenKind::Byte,
            _ => TokenKind::Normal,
        };
        return Ok(config.tokens.iter().map(kind).collect());
    };
    if types.len() != n_tokens {
        return Err(TokenizerError::LengthMismatch {
            list: "token_type",
            actual: types.len(),
            expected: n_tokens,
        });
    }
    let kinds = (0u32..)
        .zip(types)
        .map(|(id, &value)| TokenKind::from_ggml(id, value));
    kinds.collect()
}

/// The ids by text. Empty texts are placeholders in some files and can be looked up by nobody.
pub(crate) fn ids_by_text(tokens: &[String]) -> Result<HashMap<&str, u32>, TokenizerError> {
    let mut ids = HashMap::with_capacity(tokens.len());
    for (second, text) in (0u32..).zip(tokens) {
        if text.is_empty() {
            continue;
        }
        if let Some(first) = ids.insert(text.as_str(), second) {
            return Err(TokenizerError::DuplicateToken {
                first,
                second,
                text: text.clone(),
            });
        }
    }
    Ok(ids)
}

/// The byte that `<0xNN>` names.
pub(crate) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// What each token is and which bytes it stands for, end to end in one buffer.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    kinds: Vec<TokenKind>,
}

impl Vocabulary {
    /// `write` appends the bytes of a token, given its id, text and kind.
    pub(crate) fn new(
        tokens: &[String],
        kinds: Vec<TokenKind>,
        write: impl Fn(u32, &str, TokenKind, &mut Vec<u8>) -> Result<(), TokenizerError>,
    ) -> Result<Self, TokenizerError> {
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(tokens.len());
        for (id, (text, &kind)) in (0u32..).zip(tokens.iter().zip(&kinds)) {
            write(id, text, kind, &mut bytes)?;
            let end =
                u32::try_from(bytes.len()).map_err(|_| TokenizerError::VocabularyTooLarge {
                    n_tokens: tokens.len(),
                })?;
            ends.push(end);
        }
        Ok(Self { bytes, ends, kinds })
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    pub(crate) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let index = id as usize;
        let end = *self.ends.get(index)?;
        let start = match index.checked_sub(1) {
            Some(previous) => *self.ends.get(previous)?,
            None => 0,
        };
        self.bytes.get(start as usize..end as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::byte_of;

    #[test]
    fn only_two_hex_digits_name_a_byte() {
        for (text, expect) in [
            ("<0x00>", Some(0)),
            ("<0xfF>", Some(255)),
            ("<0x0A>", Some(10)),
            ("<0x+1>", None),
            ("<0x100>", None),
            ("<0x1>", None),
            ("<0x>", None),
            ("0x0A", None),
        ] {
            assert_eq!(byte_of(text), expect, "{text}");
        }
    }
}
