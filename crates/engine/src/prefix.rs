//! Sequences that outlive their requests, for prompts that begin as they do.

use std::collections::VecDeque;

use cinderlm_models::SequenceId;

/// Tokens that a prompt must share with a sequence: fewer are read as fast as they are found and copied.
const MIN_SHARED: usize = 16;
/// Sequences that are kept at most.
const MAX_KEPT: usize = 16;

/// What the kept sequences have been good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixStats {
    /// Prompts that began as a kept sequence does.
    pub n_hits: u64,
    /// Tokens of theirs that did not have to be read.
    pub n_saved_tokens: u64,
    /// Tokens of the sequences that are kept now.
    pub n_kept_tokens: usize,
}

/// Sequences and their tokens, least recently used first, up to a number of tokens in all.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    kept: VecDeque<(SequenceId, Vec<u32>)>,
    max_tokens: usize,
    stats: PrefixStats,
}

impl PrefixCache {
    pub(crate) fn new(max_tokens: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            max_tokens,
            stats: PrefixStats::default(),
        }
    }

    pub(crate) fn stats(&self) -> PrefixStats {
        self.stats
    }

    /// The sequence that shares the longest beginning with a prompt, and how many tokens that is. The prompt's last token is not counted:
    /// it must be fed for what follows it.
    pub(crate) fn find(&mut self, prompt: &[u32]) -> Option<(SequenceId, usize)> {
        let most = prompt.len().saturating_sub(1);
        let shared = |(_, tokens): &(SequenceId, Vec<u32>)| n_shared(tokens, prompt).min(most);
        let (index, n) = (self.kept.iter().map(shared).enumerate()).max_by_key(|(_, n)| *n)?;
        if n < MIN_SHARED {
            return None;
        }
        let found = self.kept.remove(index)?;
        let id = found.0;
        self.kept.push_back(found);
        Some((id, n))
    }

    /// Counts a prompt that was found.
    pub(crate) fn count_hit(&mut self, n_saved: usize) {
        self.stats.n_hits += 1;
        self.stats.n_saved_tokens += n_saved as u64;
    }

    /// Keeps a sequence that its request has no more use for. Returns those that are to be closed in its place, or itself.
    pub(crate) fn keep(&mut self, id: SequenceId, tokens: Vec<u32>) -> Vec<SequenceId> {
        let is_known = |(_, kept): &(SequenceId, Vec<u32>)| kept.starts_with(&tokens);
        if tokens.len() < MIN_SHARED
            || tokens.len() > self.max_tokens
            || self.kept.iter().any(is_known)
        {
            return vec![id];
        }
        // What the new one begins with, it stands for.
        let mut closed = self.remove(|_, kept| tokens.starts_with(kept));
        self.stats.n_kept_tokens += tokens.len();
        self.kept.push_back((id, tokens));
        while self.stats.n_kept_tokens > self.max_tokens || self.kept.len() > MAX_KEPT {
            let oldest = self.kept.front().map(|(id, _)| *id);
            closed.extend(self.remove(|id, _| Some(id) == oldest));
        }
        closed
    }

    /// Gives up every sequence; they are to be closed.
    pub(crate) fn clear(&mut self) -> Vec<SequenceId> {
        self.remove(|_, _| true)
    }

    fn remove(&mut self, is_gone: impl Fn(SequenceId, &[u32]) -> bool) -> Vec<SequenceId> {
        let mut gone = Vec::new();
        self.kept.retain(|(id, tokens)| {
            let is_gone = is_gone(*id, tokens);
            if is_gone {
                gone.push(*id);
                self.stats.n_kept_tokens -= tokens.len();
            }
            !is_gone
        });
        gone
    }
}

fn n_shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(range: std::ops::Range<u32>) -> Vec<u32> {
        range.collect()
    }

    #[test]
    fn the_longest_beginning_is_found_and_the_last_token_left() {
        let mut cache = PrefixCache::new(1000);
        assert!(cache.keep(SequenceId(1), tokens(0..40)).is_empty());
        let other = [tokens(0..20), tokens(50..90)].concat();
        assert!(cache.keep(SequenceId(2), other).is_empty());
        for (prompt, expected) in [
            (tokens(0..60), Some((SequenceId(1), 40))),
            (tokens(0..40), Some((SequenceId(1), 39))),
            (
                [tokens(0..20), tokens(50..60)].concat(),
                Some((SequenceId(2), 29)),
            ),
            (tokens(0..17), Some((SequenceId(2), 16))),
            (tokens(0..16), None),
            (tokens(1..60), None),
            (Vec::new(), None),
        ] {
            assert_eq!(cache.find(&prompt), expected, "{prompt:?}");
        }
    }

    #[test]
    fn what_is_least_recently_used_goes_first() {
        let mut cache = PrefixCache::new(100);
        for (id, start) in [(1, 0), (2, 100), (3, 200)] {
            assert!(
                cache
                    .keep(SequenceId(id), tokens(start..start + 30))
                    .is_empty()
            );
        }
        assert!(cache.find(&tokens(0..40)).is_some());
        assert_eq!(cache.keep(SequenceId(4), tokens(300..330)), [SequenceId(2)]);
        assert_eq!(cache.stats().n_kept_tokens, 90);
        assert_eq!(cache.clear().len(), 3);
        assert_eq!(cache.stats().n_kept_tokens, 0);
    }

    #[test]
    fn one_sequence_stands_for_its_beginnings() {
        let mut cache = PrefixCache::new(100);
        assert!(cache.keep(SequenceId(1), tokens(0..30)).is_empty());
        assert_eq!(cache.keep(SequenceId(2), tokens(0..50)), [SequenceId(1)]);
        assert_eq!(cache.keep(SequenceId(3), tokens(0..40)), [SequenceId(3)]);
        assert_eq!(cache.keep(SequenceId(4), tokens(0..8)), [SequenceId(4)]);
        assert_eq!(cache.keep(SequenceId(5), tokens(0..101)), [SequenceId(5)]);
        assert_eq!(cache.stats().n_kept_tokens, 50);
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let mut cache = PrefixCache::new(0);
        assert_eq!(cache.keep(SequenceId(1), tokens(0..30)), [SequenceId(1)]);
        assert_eq!(cache.find(&tokens(0..30)), None);
    }
}
