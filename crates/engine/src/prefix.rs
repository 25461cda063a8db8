//! Sequences that outlive their requests, for prompts that begin as they do.

use std::collections::VecDeque;
use std::rc::Rc;

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

/// Those who may learn of each other: a prompt's time tells whether another like it was read before.
pub(crate) type Scope = Rc<str>;

#[derive(Debug)]
struct Kept {
    id: SequenceId,
    scope: Scope,
    tokens: Vec<u32>,
}

/// Sequences and their tokens, least recently used first, up to a number of tokens in all.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    kept: VecDeque<Kept>,
    max_tokens: usize,
    /// Tokens that memory is taken for at a time.
    granularity: usize,
    stats: PrefixStats,
}

impl PrefixCache {
    pub(crate) fn new(max_tokens: usize, granularity: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            max_tokens,
            granularity: granularity.max(1),
            stats: PrefixStats::default(),
        }
    }

    pub(crate) fn stats(&self) -> PrefixStats {
        self.stats
    }

    /// The sequence of this scope that shares the longest beginning with a prompt, and how many tokens that is. The prompt's last token is
    /// not counted: it must be fed for what follows it.
    pub(crate) fn find(&mut self, scope: &Scope, prompt: &[u32]) -> Option<(SequenceId, usize)> {
        let most = prompt.len().saturating_sub(1);
        let shared = |kept: &Kept| match kept.scope == *scope {
            true => n_shared(&kept.tokens, prompt).min(most),
            false => 0,
        };
        let (index, n) = (self.kept.iter().map(shared).enumerate()).max_by_key(|(_, n)| *n)?;
        if n < MIN_SHARED {
            return None;
        }
        let found = self.kept.remove(index)?;
        let id = found.id;
        self.kept.push_back(found);
        Some((id, n))
    }

    /// Counts a prompt that was found.
    pub(crate) fn count_hit(&mut self, n_saved: usize) {
        self.stats.n_hits += 1;
        self.stats.n_saved_tokens += n_saved as u64;
    }

    /// Keeps a sequence that its request has no more use for, where there is room for `n_free` tokens in all. Returns those that are to be
    /// closed in its place, or itself.
    pub(crate) fn keep(
        &mut self,
        id: SequenceId,
        scope: Scope,
        tokens: Vec<u32>,
        n_free: usize,
    ) -> Vec<SequenceId> {
        let max_tokens = self.max_tokens.min(n_free);
        let is_known = |kept: &Kept| kept.scope == scope && kept.tokens.starts_with(&tokens);
        if tokens.len() < MIN_SHARED
            || self.n_held(&tokens) > max_tokens
            || self.kept.iter().any(is_known)
        {
            return vec![id];
        }
        // What the new one begins with, it stands for.
        let mut closed =
            self.remove(|kept| kept.scope == scope && tokens.starts_with(&kept.tokens));
        self.stats.n_kept_tokens += tokens.len();
        self.kept.push_back(Kept { id, scope, tokens });
        closed.extend(self.shrink(max_tokens));
        closed
    }

    /// Gives up the least recently used down to `n_tokens` in all; they are to be closed.
    pub(crate) fn shrink(&mut self, n_tokens: usize) -> Vec<SequenceId> {
        let mut closed = Vec::new();
        let n_held = |cache: &Self| -> usize {
            let held = cache.kept.iter().map(|kept| cache.n_held(&kept.tokens));
            held.sum()
        };
        while n_held(self) > n_tokens || self.kept.len() > MAX_KEPT {
            let oldest = self.kept.front().map(|kept| kept.id);
            closed.extend(self.remove(|kept| Some(kept.id) == oldest));
        }
        closed
    }

    /// Gives up every sequence; they are to be closed.
    pub(crate) fn clear(&mut self) -> Vec<SequenceId> {
        self.shrink(0)
    }

    /// The tokens that a sequence's memory has room for.
    fn n_held(&self, tokens: &[u32]) -> usize {
        tokens.len().next_multiple_of(self.granularity)
    }

    fn remove(&mut self, is_gone: impl Fn(&Kept) -> bool) -> Vec<SequenceId> {
        let mut gone = Vec::new();
        self.kept.retain(|kept| {
            let is_gone = is_gone(kept);
            if is_gone {
                gone.push(kept.id);
                self.stats.n_kept_tokens -= kept.tokens.len();
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

    const ROOM: usize = 10_000;

    fn tokens(range: std::ops::Range<u32>) -> Vec<u32> {
        range.collect()
    }

    fn scope(name: &str) -> Scope {
        name.into()
    }

    fn keep(cache: &mut PrefixCache, id: u64, tokens: Vec<u32>) -> Vec<SequenceId> {
        cache.keep(SequenceId(id), scope(""), tokens, ROOM)
    }

    #[test]
    fn the_longest_beginning_is_found_and_the_last_token_left() {
        let mut cache = PrefixCache::new(1000, 1);
        assert!(keep(&mut cache, 1, tokens(0..40)).is_empty());
        let other = [tokens(0..20), tokens(50..90)].concat();
        assert!(keep(&mut cache, 2, other).is_empty());
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
            assert_eq!(cache.find(&scope(""), &prompt), expected, "{prompt:?}");
        }
    }

    #[test]
    fn what_is_least_recently_used_goes_first() {
        let mut cache = PrefixCache::new(100, 1);
        for (id, start) in [(1, 0), (2, 100), (3, 200)] {
            assert!(keep(&mut cache, id, tokens(start..start + 30)).is_empty());
        }
        assert!(cache.find(&scope(""), &tokens(0..40)).is_some());
        assert_eq!(
            keep(&mut cache, 4, tokens(300..330)),
            [SequenceId(2)],
            "the others were used later"
        );
        assert_eq!(cache.stats().n_kept_tokens, 90);
        assert_eq!(cache.shrink(60), [SequenceId(3)]);
        assert_eq!(cache.clear().len(), 2);
        assert_eq!(cache.stats().n_kept_tokens, 0);
    }

    #[test]
    fn one_sequence_stands_for_its_beginnings() {
        let mut cache = PrefixCache::new(100, 1);
        assert!(keep(&mut cache, 1, tokens(0..30)).is_empty());
        assert_eq!(keep(&mut cache, 2, tokens(0..50)), [SequenceId(1)]);
        assert_eq!(keep(&mut cache, 3, tokens(0..40)), [SequenceId(3)]);
        assert_eq!(keep(&mut cache, 4, tokens(0..8)), [SequenceId(4)]);
        assert_eq!(keep(&mut cache, 5, tokens(0..101)), [SequenceId(5)]);
        assert_eq!(cache.stats().n_kept_tokens, 50);
    }

    #[test]
    fn one_scope_does_not_learn_of_another() {
        let mut cache = PrefixCache::new(1000, 1);
        let (own, other) = (scope("own"), scope("other"));
        for (id, scope) in [(1, &own), (2, &other)] {
            let gone = cache.keep(SequenceId(id), Rc::clone(scope), tokens(0..30), ROOM);
            assert!(gone.is_empty(), "the same tokens are kept for each");
        }
        assert_eq!(cache.find(&own, &tokens(0..40)), Some((SequenceId(1), 30)));
        assert_eq!(
            cache.find(&other, &tokens(0..40)),
            Some((SequenceId(2), 30))
        );
        assert_eq!(cache.find(&scope("third"), &tokens(0..40)), None);
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let mut cache = PrefixCache::new(0, 1);
        assert_eq!(keep(&mut cache, 1, tokens(0..30)), [SequenceId(1)]);
        assert_eq!(cache.find(&scope(""), &tokens(0..30)), None);
        let mut cache = PrefixCache::new(100, 1);
        assert!(keep(&mut cache, 1, tokens(0..30)).is_empty());
        let later = cache.keep(SequenceId(2), scope(""), tokens(50..80), 40);
        assert_eq!(later, [SequenceId(1)], "others need the rest of the room");
    }

    #[test]
    fn memory_counts_by_the_piece() {
        let mut cache = PrefixCache::new(128, 64);
        assert!(keep(&mut cache, 1, tokens(0..20)).is_empty());
        assert!(keep(&mut cache, 2, tokens(100..164)).is_empty());
        assert_eq!(keep(&mut cache, 3, tokens(200..220)), [SequenceId(1)]);
        assert_eq!(keep(&mut cache, 4, tokens(300..429)), [SequenceId(4)]);
        assert_eq!(cache.stats().n_kept_tokens, 84);
    }
}
