//! The step's row table: which token, position and cache slot each row has.

/// Words per row at the head of a step.
const ROW_WORDS: usize = 4;

/// A step as its u32 words: row `i` is `[token, position, slot, table]` at word `4 * i`, and after the rows lie the block tables.
/// `table` is the word, counted from the start, where the list of block ids of that row's sequence begins.
#[derive(Clone, Copy, Debug)]
pub struct StepRows<'a> {
    words: &'a [u32],
    n_rows: usize,
}

/// One row of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepRow {
    /// Token id.
    pub(super) token: usize,
    /// Place in its sequence, from 0.
    pub(super) position: usize,
    /// Cache slot that the row's key and value are written to.
    pub(super) slot: usize,
    /// Word where the row's block table begins.
    table: usize,
}

impl<'a> StepRows<'a> {
    /// Reads `words` as a step of `n_rows` rows.
    ///
    /// # Panics
    /// `words` has no room for the rows.
    pub fn new(words: &'a [u32], n_rows: usize) -> Self {
        assert!(
            words.len() / ROW_WORDS >= n_rows,
            "{n_rows} rows in {} words",
            words.len()
        );
        Self { words, n_rows }
    }

    /// Rows in the step.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// The rows, in order.
    pub(super) fn rows(self) -> impl ExactSizeIterator<Item = StepRow> + 'a {
        (0..self.n_rows).map(move |row| self.row(row))
    }

    /// One of the rows.
    ///
    /// # Panics
    /// There is no such row.
    pub(super) fn row(self, row: usize) -> StepRow {
        let row = self.words.as_chunks::<ROW_WORDS>().0[..self.n_rows][row];
        let [token, position, slot, table] = row.map(|word| word as usize);
        StepRow {
            token,
            position,
            slot,
            table,
        }
    }

    /// The blocks that hold a row's positions `0..=position`, in order.
    ///
    /// # Panics
    /// The table runs past the end of the step.
    pub(super) fn blocks(self, row: StepRow, block_tokens: usize) -> &'a [u32] {
        &self.words[row.table..][..row.position / block_tokens + 1]
    }
}
