//! The step that is begun before the one before it has been read: while a GPU's result is on its way to the host, the GPU would have nothing to do.
//!
//! Where each row's next token goes is known before the token is, and the GPU has that itself. So the step is laid out and replayed at once, and
//! if the next call asks for just that step, it begins with the one after and waits. Else the step is forgotten: what it wrote lies behind the ends of its sequences, and is
//! written over by whatever step comes there.

use cinderlm_kernels::BegunRead;

use crate::{Draw, Drawn, Feed, LogitsFor, SequenceId};

/// A step that nobody has asked for yet.
#[derive(Debug)]
pub(super) struct Ahead {
    rows: Vec<Row>,
    reading: BegunRead,
}

/// One row of it.
#[derive(Debug)]
struct Row {
    sequence: SequenceId,
    draw: Draw,
    /// Tokens of the sequence before the row's.
    position: usize,
    /// The row's own, once the step before has been read.
    token: Option<u32>,
}

impl Ahead {
    /// A step whose rows follow `sequences`, of `lens` tokens with the one that is under way; `reading` is that of its result.
    pub(super) fn new(
        sequences: &[SequenceId],
        lens: &[usize],
        draws: &[Draw],
        reading: BegunRead,
    ) -> Self {
        let rows = sequences.iter().zip(lens).zip(draws);
        let rows = rows.map(|((&sequence, &position), draw)| Row {
            sequence,
            draw: draw.clone(),
            position,
            token: None,
        });
        Self {
            rows: rows.collect(),
            reading,
        }
    }

    /// Tells what was drawn for the rows in the step before.
    pub(super) fn follow(&mut self, drawn: &[Drawn]) {
        for (row, drawn) in self.rows.iter_mut().zip(drawn) {
            row.token = drawn.token;
        }
    }

    /// The row of each feed and the reading of the result, if these feeds are the whole step. `len` gives a sequence's tokens.
    pub(super) fn serve(
        self,
        feeds: &[Feed<'_>],
        draws: &[Draw],
        len: impl Fn(SequenceId) -> usize,
    ) -> Option<(Vec<usize>, BegunRead)> {
        if feeds.len() != self.rows.len() || draws.len() != feeds.len() {
            return None;
        }
        let mut is_served = vec![false; self.rows.len()];
        let row_of = |(feed, draw): (&Feed<'_>, &Draw)| {
            let row = |row: &Row| row.sequence == feed.sequence;
            let index = self.rows.iter().position(row)?;
            let row = &self.rows[index];
            let is_it = row.token.is_some_and(|token| feed.tokens == [token])
                && feed.logits == LogitsFor::Last
                && row.position == len(feed.sequence)
                && row.draw == *draw
                && !std::mem::replace(&mut is_served[index], true);
            is_it.then_some(index)
        };
        let rows: Option<Vec<usize>> = feeds.iter().zip(draws).map(row_of).collect();
        Some((rows?, self.reading))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, DeviceKind, Tensor};
    use cinderlm_kernels::begin_read;

    use super::*;

    const A: SequenceId = SequenceId(3);
    const B: SequenceId = SequenceId(5);

    fn draw(temperature: f32) -> Draw {
        Draw {
            temperature,
            ..Draw::default()
        }
    }

    fn drawn(token: u32) -> Drawn {
        Drawn {
            token: Some(token),
            logit: 0.0,
            largest: 0.0,
            sum: 0.0,
            top: Vec::new(),
        }
    }

    /// The rows of a step of A and B, of 10 and 20 tokens, for which 7 and 8 were drawn.
    fn rows(feeds: &[(SequenceId, &[u32], LogitsFor)], draws: &[Draw]) -> Option<Vec<usize>> {
        let device = Device::wgpu(DeviceKind::DefaultDevice);
        let reading = begin_read(&Tensor::<2>::zeros([2, 4], &device)).expect("a GPU");
        let mut ahead = Ahead::new(&[A, B], &[10, 20], &[draw(0.0), draw(0.5)], reading);
        ahead.follow(&[drawn(7), drawn(8)]);
        let feed = |&(sequence, tokens, logits)| Feed {
            sequence,
            tokens,
            logits,
        };
        let feeds: Vec<Feed<'_>> = feeds.iter().map(feed).collect();
        let len = |sequence| if sequence == A { 10 } else { 20 };
        ahead.serve(&feeds, draws, len).map(|(rows, _)| rows)
    }

    #[test]
    fn a_step_serves_for_its_own_feeds_alone_in_any_order() {
        use LogitsFor::{All, Last};

        let (of_a, of_b) = ((A, &[7][..], Last), (B, &[8][..], Last));
        let [a, b] = [0.0, 0.5].map(draw);
        let both = [a.clone(), b.clone()];
        assert_eq!(rows(&[of_a, of_b], &both), Some(vec![0, 1]));
        assert_eq!(
            rows(&[of_b, of_a], &[b.clone(), a.clone()]),
            Some(vec![1, 0])
        );

        assert_eq!(rows(&[of_b, of_a], &both), None, "draws in another order");
        assert_eq!(rows(&[of_a], std::slice::from_ref(&a)), None, "one of two");
        assert_eq!(
            rows(&[of_a, of_a], &[a.clone(), a.clone()]),
            None,
            "one twice"
        );
        assert_eq!(rows(&[of_a, (B, &[9], Last)], &both), None, "another token");
        assert_eq!(
            rows(&[of_a, (B, &[8, 8], Last)], &both),
            None,
            "more tokens"
        );
        assert_eq!(rows(&[of_a, (B, &[8], All)], &both), None, "all rows");
        assert_eq!(rows(&[of_a, (SequenceId(4), &[8], Last)], &both), None);
    }
}
