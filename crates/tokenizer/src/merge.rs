//! The merge loop that both kinds of vocabulary share: join the best pair of neighbours until no pair is left.
//!
//! A priority queue holds candidate pairs and links hold the neighbours, so n pieces take O(n log n). A candidate whose pieces have
//! changed since it was queued is recognised by their ends and dropped.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A run of the text, in bytes, and its token where it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) id: Option<u32>,
}

/// What joining two pieces gives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Merge {
    /// Lower comes first; among equals the leftmost pair does.
    pub(crate) order: u32,
    pub(crate) id: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    order: u32,
    left: usize,
    right: usize,
    right_end: usize,
    id: u32,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: Option<usize>,
    next: Option<usize>,
}

/// Buffers for [`merge`](Self::merge), kept between words.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    pieces: Vec<Piece>,
    links: Vec<Link>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Joins neighbours among `pieces`, which follow each other without gaps, and passes what is left to `emit` in order.
    /// `find` says what two pieces give together, if anything.
    pub(crate) fn merge(
        &mut self,
        pieces: impl IntoIterator<Item = Piece>,
        find: impl Fn(&Piece, &Piece) -> Option<Merge>,
        mut emit: impl FnMut(&Piece),
    ) {
        self.start(pieces);
        for right in 1..self.pieces.len() {
            self.offer(right - 1, right, &find);
        }
        while let Some(Reverse(candidate)) = self.queue.pop() {
            if self.is_current(&candidate) {
                self.join(&candidate, &find);
            }
        }
        let mut at = (!self.pieces.is_empty()).then_some(0);
        while let Some(index) = at {
            emit(&self.pieces[index]);
            at = self.links[index].next;
        }
    }

    fn start(&mut self, pieces: impl IntoIterator<Item = Piece>) {
        self.queue.clear();
        self.pieces.clear();
        self.pieces.extend(pieces);
        let n_pieces = self.pieces.len();
        self.links.clear();
        self.links.extend((0..n_pieces).map(|index| Link {
            previous: index.checked_sub(1),
            next: (index + 1 < n_pieces).then_some(index + 1),
        }));
    }

    fn offer(&mut self, left: usize, right: usize, find: impl Fn(&Piece, &Piece) -> Option<Merge>) {
        let right_piece = self.pieces[right];
        if let Some(Merge { order, id }) = find(&self.pieces[left], &right_piece) {
            self.queue.push(Reverse(Candidate {
                order,
                left,
                right,
                right_end: right_piece.end,
                id,
            }));
        }
    }

    /// A piece that was joined away loses its links, so it is nobody's left side any more.
    fn is_current(&self, candidate: &Candidate) -> bool {
        self.links[candidate.left].next == Some(candidate.right)
            && self.pieces[candidate.right].end == candidate.right_end
    }

    fn join(
        &mut self,
        &Candidate {
            left,
            right,
            right_end,
            id,
            ..
        }: &Candidate,
        find: impl Fn(&Piece, &Piece) -> Option<Merge>,
    ) {
        self.pieces[left].end = right_end;
        self.pieces[left].id = Some(id);
        let next = self.links[right].next;
        self.links[left].next = next;
        self.links[right] = Link {
            previous: None,
            next: None,
        };
        if let Some(next) = next {
            self.links[next].previous = Some(left);
            self.offer(left, next, &find);
        }
        if let Some(previous) = self.links[left].previous {
            self.offer(previous, left, &find);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Merge, Merger, Piece};

    /// Merges a text's bytes with rules `(left, right, order)`; tokens are the spans themselves.
    fn check(text: &str, rules: &[(&str, &str, u32)], expect: &[&str]) {
        let pieces = (0..text.len()).map(|start| Piece {
            start,
            end: start + 1,
            id: None,
        });
        let mut joined = Vec::new();
        Merger::default().merge(
            pieces,
            |left, right| {
                let pair = (&text[left.start..left.end], &text[right.start..right.end]);
                let rule = rules.iter().find(|rule| (rule.0, rule.1) == pair)?;
                Some(Merge {
                    order: rule.2,
                    id: 0,
                })
            },
            |piece| joined.push(&text[piece.start..piece.end]),
        );
        assert_eq!(joined, expect, "{text}");
    }

    #[test]
    fn the_best_pair_is_joined_first_and_the_leftmost_among_equals() {
        let rules = [
            ("b", "c", 0),
            ("a", "b", 1),
            ("a", "bc", 2),
            ("a", "a", 3),
            ("aa", "aa", 4),
        ];
        check("", &rules, &[]);
        check("x", &rules, &["x"]);
        check("abc", &rules, &["abc"]);
        check("abx", &rules, &["ab", "x"]);
        check("aaa", &rules, &["aa", "a"]);
        check("aaaaa", &rules, &["aaaa", "a"]);
        check("abcabc", &rules, &["abc", "abc"]);
    }

    #[test]
    fn a_candidate_whose_right_side_grew_is_dropped() {
        // ("a", "b") is queued first but "b" is already "bc" when its turn comes.
        check("abc", &[("b", "c", 0), ("a", "b", 1)], &["a", "bc"]);
    }
}
