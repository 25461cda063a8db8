//! Finding stop strings in text that arrives in pieces.

/// Where a stop string was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StopMatch {
    /// Byte offset of the stop's first character in all the text pushed so far: what the text is cut to.
    pub(crate) start: usize,
}

/// Looks for stop strings in a text that grows piece by piece.
///
/// The result depends on the text alone, never on how it was cut into tokens: the stop that is *complete* first wins, and of
/// those complete at the same character the longest. Each stop advances by the failure function of Knuth, Morris and Pratt
/// (1977), so a byte costs constant time whatever the stops are, and the length of the text that may still become a stop is
/// known at every moment.
#[derive(Clone, Debug)]
pub(crate) struct StopMatcher {
    stops: Vec<Automaton>,
    n_bytes: usize,
}

impl StopMatcher {
    /// A matcher for `stops`; empty strings match nothing.
    pub(crate) fn new<S: AsRef<str>>(stops: &[S]) -> Self {
        let stops = stops
            .iter()
            .map(|stop| Automaton::new(stop.as_ref()))
            .collect();
        Self { stops, n_bytes: 0 }
    }

    /// Takes the next piece of text. After a match the rest of the piece is not looked at and the matcher is spent.
    pub(crate) fn push(&mut self, text: &str) -> Option<StopMatch> {
        for &byte in text.as_bytes() {
            self.n_bytes += 1;
            let longest = self
                .stops
                .iter_mut()
                .filter_map(|stop| stop.advance(byte))
                .max();
            if let Some(n_bytes) = longest {
                let start = self.n_bytes - n_bytes;
                return Some(StopMatch { start });
            }
        }
        None
    }

    /// How many bytes at the end of the text may still become a stop, and so must be held back. Always whole characters, as long
    /// as the text was pushed in whole characters.
    pub(crate) fn held_back_bytes(&self) -> usize {
        self.stops
            .iter()
            .map(|stop| stop.matched)
            .max()
            .unwrap_or(0)
    }
}

/// One stop string, and how much of it the end of the text matches.
#[derive(Clone, Debug)]
struct Automaton {
    pattern: Vec<u8>,
    /// `fallback[i]`: length of the longest proper prefix of the pattern that ends its first `i + 1` bytes.
    fallback: Vec<usize>,
    matched: usize,
}

impl Automaton {
    fn new(pattern: &str) -> Self {
        let pattern = pattern.as_bytes().to_vec();
        let mut fallback = vec![0; pattern.len()];
        let mut length = 0;
        for i in 1..pattern.len() {
            while length > 0 && pattern[i] != pattern[length] {
                length = fallback[length - 1];
            }
            length += usize::from(pattern[i] == pattern[length]);
            fallback[i] = length;
        }
        Self {
            pattern,
            fallback,
            matched: 0,
        }
    }

    /// Takes one byte; the pattern's length once it is complete.
    fn advance(&mut self, byte: u8) -> Option<usize> {
        while self.matched > 0 && self.pattern[self.matched] != byte {
            self.matched = self.fallback[self.matched - 1];
        }
        if self.pattern.get(self.matched) == Some(&byte) {
            self.matched += 1;
        }
        if self.matched < self.pattern.len() || self.matched == 0 {
            return None;
        }
        self.matched = self.fallback[self.matched - 1];
        Some(self.pattern.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The rule, written plainly: grow the text a character at a time until it ends with a stop, and cut the longest such stop.
    fn naive(text: &str, stops: &[String]) -> Option<usize> {
        let ends = text
            .char_indices()
            .map(|(start, character)| start + character.len_utf8());
        for end in ends {
            let so_far = &text[..end];
            let longest = stops
                .iter()
                .filter(|stop| so_far.ends_with(stop.as_str()))
                .map(String::len)
                .max();
            if let Some(n_bytes) = longest {
                return Some(end - n_bytes);
            }
        }
        None
    }

    /// The longest end of `text` that begins some stop.
    fn naive_held_back(text: &str, stops: &[String]) -> usize {
        text.char_indices()
            .map(|(start, _)| &text[start..])
            .find(|tail| stops.iter().any(|stop| stop.starts_with(tail)))
            .map_or(0, str::len)
    }

    fn check(pieces: &[&str], stops: &[&str], expect: Option<usize>) {
        let mut matcher = StopMatcher::new(stops);
        let found = pieces.iter().find_map(|piece| matcher.push(piece));
        assert_eq!(
            found.map(|found| found.start),
            expect,
            "{pieces:?} with {stops:?}"
        );
    }

    #[test]
    fn stops_are_found_across_pieces() {
        check(&["one two"], &["two"], Some(4));
        check(&["one t", "w", "o three"], &["two"], Some(4));
        check(&["one"], &["two"], None);
        check(&["one"], &[], None);
        check(&["a\n", "\nb"], &["\n\n"], Some(1));
        check(&["naï", "ve"], &["ïv"], Some(2));
        check(&["aaab"], &["aab"], Some(1));
        check(&["ab", "ab", "ac"], &["abac"], Some(2));
    }

    #[test]
    fn the_stop_that_is_complete_first_wins() {
        check(&["abcd"], &["bcd", "c"], Some(2));
        check(&["a", "b", "c", "d"], &["bcd", "c"], Some(2));
        check(&["abc"], &["c", "bc", "abc"], Some(0));
        check(&["xyz"], &["z", "y"], Some(1));
    }

    #[test]
    fn text_that_may_become_a_stop_is_held_back() {
        let mut matcher = StopMatcher::new(&["END", "\n\n\n"]);
        let held = ["text", " E", "N", "E", "x", "\n", "\n"].map(|piece| {
            assert_eq!(matcher.push(piece), None);
            matcher.held_back_bytes()
        });
        assert_eq!(held, [0, 1, 2, 1, 0, 1, 2]);
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_search_for_every_cut(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let mut matcher = StopMatcher::new(&stops);
            let mut text = String::new();
            for piece in &pieces {
                text.push_str(piece);
                let found = matcher.push(piece).map(|found| found.start);
                prop_assert_eq!(found, naive(&text, &stops));
                if found.is_some() {
                    return Ok(());
                }
                prop_assert_eq!(matcher.held_back_bytes(), naive_held_back(&text, &stops));
            }
        }
    }
}
