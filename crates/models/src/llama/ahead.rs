//! The step that is begun before the one before it has been read: while a GPU's result is on its way to the host, the GPU would have nothing to do.
//!
//! Where each row's next token goes is known before the token is, and the GPU has that itself. So the step is laid out and replayed at once, and
//! if the next call asks for just that step, it only waits. Else the step is forgotten: what it wrote lies behind the ends of its sequences, and is
//! written over by whatever step comes there.

use cinderlm_kernels::BegunRead;

use crate::{Draw, Drawn, Feed, SequenceId};

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
        let row_of = |(feed, draw): (&Feed<'_>, &Draw)| {
            let row = |row: &Row| row.sequence == feed.sequence;
            let index = self.rows.iter().position(row)?;
            let row = &self.rows[index];
            let is_it = row.token.is_some_and(|token| feed.tokens == [token])
                && row.position == len(feed.sequence)
                && row.draw == *draw;
            is_it.then_some(index)
        };
        let rows: Option<Vec<usize>> = feeds.iter().zip(draws).map(row_of).collect();
        Some((rows?, self.reading))
    }
}
