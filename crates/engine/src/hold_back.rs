//! Between the decoder and the consumer: text that may still become a stop waits here, and with it what belongs to its tokens.

use std::collections::VecDeque;

use crate::stop::StopMatcher;

/// Text that is now settled, and the entries of its tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Release<E> {
    pub(crate) text: String,
    pub(crate) entries: Vec<E>,
    /// A stop was found: nothing comes after this.
    pub(crate) stopped: bool,
}

/// Holds back the text that may become a stop, and one entry of type `E` for each token until all of its text is out.
#[derive(Debug)]
pub(crate) struct HoldBack<E> {
    matcher: StopMatcher,
    text: String,
    n_released_bytes: usize,
    entries: VecDeque<Held<E>>,
}

#[derive(Debug)]
struct Held<E> {
    /// Bytes of text before the token.
    start: usize,
    /// Bytes of text that must be out for the token to be whole. One more than there are yet if it ends inside a character,
    /// since that character comes out in one piece or not at all.
    end: usize,
    entry: E,
}

impl<E> HoldBack<E> {
    pub(crate) fn new(matcher: StopMatcher) -> Self {
        Self {
            matcher,
            text: String::new(),
            n_released_bytes: 0,
            entries: VecDeque::new(),
        }
    }

    /// Takes what one token added: `text` in whole characters, its entry if entries are wanted, and whether the token ends inside
    /// a character that a later one completes.
    pub(crate) fn push(
        &mut self,
        text: &str,
        entry: Option<E>,
        is_mid_character: bool,
    ) -> Release<E> {
        let start = self.n_bytes();
        self.text.push_str(text);
        let end = self.n_bytes() + usize::from(is_mid_character);
        self.entries
            .extend(entry.map(|entry| Held { start, end, entry }));
        if let Some(found) = self.matcher.push(text) {
            return self.cut(found.start);
        }
        self.release(self.n_bytes() - self.matcher.held_back_bytes())
    }

    /// Ends the text with `tail`, what the decoder still held. A tail that completes a stop stops too; otherwise all that was
    /// held back is released.
    pub(crate) fn finish(&mut self, tail: &str) -> Release<E> {
        self.text.push_str(tail);
        if let Some(found) = self.matcher.push(tail) {
            return self.cut(found.start);
        }
        let mut release = self.release(self.n_bytes());
        release
            .entries
            .extend(self.entries.drain(..).map(|held| held.entry));
        release
    }

    /// Bytes of text taken so far.
    fn n_bytes(&self) -> usize {
        self.n_released_bytes + self.text.len()
    }

    fn release(&mut self, n_bytes: usize) -> Release<E> {
        let text = self.text.drain(..n_bytes - self.n_released_bytes).collect();
        self.n_released_bytes = n_bytes;
        let n_whole = self
            .entries
            .iter()
            .take_while(|held| held.end <= n_bytes)
            .count();
        let entries = self.entries.drain(..n_whole).map(|held| held.entry);
        Release {
            text,
            entries: entries.collect(),
            stopped: false,
        }
    }

    /// Ends the text at `n_bytes`: tokens wholly after it are gone, one that it cuts stays.
    fn cut(&mut self, n_bytes: usize) -> Release<E> {
        let mut release = self.release(n_bytes);
        let cut = self.entries.drain(..).filter(|held| held.start < n_bytes);
        release.entries.extend(cut.map(|held| held.entry));
        release.stopped = true;
        release
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes tokens (text, ends inside a character) and lists what each push released; entries are the tokens' numbers.
    fn releases(stops: &[&str], tokens: &[(&str, bool)], tail: &str) -> Vec<(String, Vec<usize>)> {
        let mut hold_back = HoldBack::new(StopMatcher::new(stops));
        let mut out = Vec::new();
        for (i, (text, is_mid_character)) in tokens.iter().enumerate() {
            let release = hold_back.push(text, Some(i), *is_mid_character);
            out.push((release.text, release.entries));
            if release.stopped {
                return out;
            }
        }
        let release = hold_back.finish(tail);
        out.push((release.text, release.entries));
        out
    }

    fn check(stops: &[&str], tokens: &[(&str, bool)], tail: &str, expect: &[(&str, &[usize])]) {
        let expect: Vec<_> = expect
            .iter()
            .map(|(text, entries)| ((*text).to_owned(), entries.to_vec()))
            .collect();
        assert_eq!(
            releases(stops, tokens, tail),
            expect,
            "{tokens:?} with {stops:?}"
        );
    }

    #[test]
    fn text_without_stops_passes_at_once() {
        check(
            &[],
            &[("one", false), (" two", false)],
            "",
            &[("one", &[0]), (" two", &[1]), ("", &[])],
        );
    }

    #[test]
    fn entries_wait_for_their_text() {
        check(
            &["END"],
            &[("a E", false), ("N", false), ("x", false)],
            "",
            &[("a ", &[]), ("", &[]), ("ENx", &[0, 1, 2]), ("", &[])],
        );
    }

    #[test]
    fn a_held_stop_that_never_comes_is_released_at_the_end() {
        check(&["END"], &[("aEN", false)], "", &[("a", &[]), ("EN", &[0])]);
    }

    #[test]
    fn removed_tokens_are_dropped_and_a_cut_one_is_kept() {
        check(
            &["END"],
            &[
                ("one", false),
                (" E", false),
                ("N", false),
                ("D more", false),
            ],
            "",
            &[("one", &[0]), (" ", &[]), ("", &[]), ("", &[1])],
        );
        check(
            &["END"],
            &[("one", false), ("END", false)],
            "",
            &[("one", &[0]), ("", &[])],
        );
    }

    #[test]
    fn the_bytes_of_one_character_come_out_together() {
        check(
            &[],
            &[("a", true), ("", true), ("€", false)],
            "",
            &[("a", &[]), ("", &[]), ("€", &[0, 1, 2]), ("", &[])],
        );
        check(
            &[],
            &[("a", true)],
            "\u{fffd}",
            &[("a", &[]), ("\u{fffd}", &[0])],
        );
    }

    #[test]
    fn a_stop_takes_all_the_bytes_of_its_characters() {
        check(
            &["€"],
            &[("a", false), ("", true), ("", true), ("€", false)],
            "",
            &[("a", &[0]), ("", &[]), ("", &[]), ("", &[])],
        );
    }

    #[test]
    fn tokens_without_text_keep_their_place() {
        check(
            &["xy"],
            &[
                ("a", false),
                ("", false),
                ("x", false),
                ("", false),
                ("y", false),
            ],
            "",
            &[("a", &[0]), ("", &[1]), ("", &[]), ("", &[]), ("", &[])],
        );
    }

    #[test]
    fn the_tail_can_complete_a_stop() {
        check(
            &["a\u{fffd}"],
            &[("a", true)],
            "\u{fffd}",
            &[("", &[]), ("", &[])],
        );
    }
}
