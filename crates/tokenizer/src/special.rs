//! Finding tokens that text spells out.

use std::collections::BTreeMap;

use crate::vocabulary::{TokenKind, Vocabulary};

/// What to make of text that spells a control token, such as `<|im_end|>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// It becomes that token.
    Parse,
    /// It is text like any other. Only user-defined tokens, which are part of the text, are still recognised.
    AsText,
}

/// A stretch of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment<'t> {
    Text(&'t str),
    Token(u32),
}

/// Recognises control, unknown and user-defined tokens: at the leftmost place where any begins, the longest wins.
#[derive(Debug)]
pub(crate) struct SpecialMatcher {
    /// By first byte, longest first.
    ids: BTreeMap<u8, Vec<u32>>,
}

impl SpecialMatcher {
    pub(crate) fn new(vocabulary: &Vocabulary) -> Self {
        let mut ids: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
        for id in (0u32..).take(vocabulary.len()) {
            let is_spelled = vocabulary
                .kind(id)
                .is_some_and(|kind| kind.is_special() || kind == TokenKind::UserDefined);
            let first = vocabulary.bytes(id).and_then(<[u8]>::first);
            if let (true, Some(&first)) = (is_spelled, first) {
                ids.entry(first).or_default().push(id);
            }
        }
        for ids in ids.values_mut() {
            ids.sort_by_key(|&id| std::cmp::Reverse(vocabulary.bytes(id).map_or(0, <[u8]>::len)));
        }
        Self { ids }
    }

    pub(crate) fn split<'t>(
        &self,
        vocabulary: &Vocabulary,
        text: &'t str,
        special: SpecialTokens,
    ) -> Vec<Segment<'t>> {
        let mut segments = Vec::new();
        let mut text_start = 0;
        let mut at = 0;
        while at < text.len() {
            let Some((id, n_bytes)) = self.longest_at(vocabulary, &text.as_bytes()[at..], special)
            else {
                at += 1;
                continue;
            };
            if text_start < at {
                segments.push(Segment::Text(&text[text_start..at]));
            }
            segments.push(Segment::Token(id));
            at += n_bytes;
            text_start = at;
        }
        if text_start < text.len() {
            segments.push(Segment::Text(&text[text_start..]));
        }
        segments
    }

    /// The longest token that `bytes` begin with, and its length. Tokens are whole characters, so a match ends at one.
    fn longest_at(
        &self,
        vocabulary: &Vocabulary,
        bytes: &[u8],
        special: SpecialTokens,
    ) -> Option<(u32, usize)> {
        let ids = self.ids.get(bytes.first()?)?;
        ids.iter().find_map(|&id| {
            let token = vocabulary.bytes(id)?;
            let is_wanted = special == SpecialTokens::Parse
                || vocabulary.kind(id) == Some(TokenKind::UserDefined);
            (is_wanted && bytes.starts_with(token)).then_some((id, token.len()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Segment, SpecialMatcher, SpecialTokens};
    use crate::vocabulary::{TokenKind, Vocabulary};

    #[test]
    fn the_longest_token_at_the_leftmost_place_wins() {
        let tokens = ["<a>", "<a><b>", "b><c", "  ", "x"].map(str::to_owned);
        let kinds = vec![
            TokenKind::Control,
            TokenKind::Control,
            TokenKind::Unknown,
            TokenKind::UserDefined,
            TokenKind::Normal,
        ];
        let vocabulary = Vocabulary::new(&tokens, kinds, |_, text, _, bytes| {
            bytes.extend_from_slice(text.as_bytes());
            Ok(())
        })
        .expect("the vocabulary is valid");
        let matcher = SpecialMatcher::new(&vocabulary);
        let check = |text: &str, special, expect: &[Segment<'_>]| {
            assert_eq!(matcher.split(&vocabulary, text, special), expect, "{text}");
        };
        use Segment::{Text, Token};
        use SpecialTokens::{AsText, Parse};
        check("", Parse, &[]);
        check("é<a", Parse, &[Text("é<a")]);
        check("<a><b><c>", Parse, &[Token(1), Text("<c>")]);
        check("<a>b><c>", Parse, &[Token(0), Token(2), Text(">")]);
        check("x   é", Parse, &[Text("x"), Token(3), Text(" é")]);
        check("<a>  ", AsText, &[Text("<a>"), Token(3)]);
    }
}
