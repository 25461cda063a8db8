//! Packing for devices that take a buffer in parts: a few rows at a time, so that no whole tensor lies in host memory.

use std::ops::Range;

use crate::packed::TILE_ROWS;
use crate::{PackError, PackedLayout, Packer};

/// The most bytes of a run, unless one tile of rows is larger.
pub const RUN_BYTES: usize = 1 << 18;

/// Packs one tensor from pieces of any size, in runs of whole tiles of rows, and hands each run's words on as soon as it is full.
///
/// Rows of a run lie side by side in each section of the whole tensor, so a run is up to four stretches of its words. Rows come in order,
/// or part by part: see [`begin`](Self::begin).
#[derive(Debug)]
pub struct RunPacker {
    layout: PackedLayout,
    rows_per_run: usize,
    /// Those of the part that is being packed which have not been handed on.
    rows: Range<usize>,
    n_packed: usize,
    run: Packer,
}

impl RunPacker {
    /// A packer of runs of about [`RUN_BYTES`].
    ///
    /// # Errors
    /// As [`Packer::new`].
    pub fn new(layout: PackedLayout) -> Result<Self, PackError> {
        layout.check()?;
        let tile_bytes = TILE_ROWS * layout.format.words_per_row(layout.n_cols) * 4;
        let rows_per_run = (RUN_BYTES / tile_bytes).max(1) * TILE_ROWS;
        let run = Packer::new(run_layout(&layout, 0..rows_per_run.min(layout.n_rows)))?;
        Ok(Self {
            layout,
            rows_per_run,
            rows: 0..layout.n_rows,
            n_packed: 0,
            run,
        })
    }

    /// The bytes that follow are those of `rows`, which start with a tile. As [`Packer::begin`].
    ///
    /// # Errors
    /// There is no memory for a run.
    ///
    /// # Panics
    /// The part before is incomplete, or there are no such rows, or they start inside a tile.
    pub fn begin(&mut self, rows: Range<usize>) -> Result<(), PackError> {
        assert!(
            self.n_packed == 0 && self.run.taken_bytes() == 0 || self.rows.is_empty(),
            "rows {:?} are missing",
            self.rows
        );
        assert!(
            rows.start.is_multiple_of(TILE_ROWS)
                && rows.start < rows.end
                && rows.end <= self.layout.n_rows,
            "rows {rows:?} of {}",
            self.layout.n_rows
        );
        self.rows = rows;
        self.run = Packer::new(self.run_layout())?;
        Ok(())
    }

    /// Takes the next bytes of the tensor, or of the part that was begun, and gives `put` each stretch of words that they complete, with its place in the whole tensor.
    ///
    /// # Errors
    /// They are more than the tensor holds, or there is no memory for the next run.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        mut put: impl FnMut(usize, &[u32]),
    ) -> Result<(), PackError> {
        while !bytes.is_empty() {
            if self.rows.is_empty() {
                return Err(self.wrong_length(bytes.len()));
            }
            let missing = usize::try_from(self.run.missing_bytes()).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            self.run.push(now)?;
            bytes = later;
            if self.run.missing_bytes() == 0 {
                self.end_run(&mut put)?;
            }
        }
        Ok(())
    }

    /// Checks that every byte has been pushed.
    ///
    /// # Errors
    /// Bytes are missing.
    pub fn finish(self) -> Result<(), PackError> {
        if self.n_packed == self.layout.n_rows {
            return Ok(());
        }
        let partial = if self.rows.is_empty() {
            0
        } else {
            self.run.taken_bytes() as usize
        };
        Err(self.wrong_length(partial))
    }

    /// The error of a tensor that was given `n_bytes` besides the rows that are packed.
    fn wrong_length(&self, n_bytes: usize) -> PackError {
        PackError::WrongLength {
            expected_bytes: self.layout.n_file_bytes(),
            actual_bytes: (self.n_packed * self.layout.row_file_bytes() + n_bytes) as u64,
        }
    }

    /// The layout of the next run, of whose rows there are some.
    fn run_layout(&self) -> PackedLayout {
        run_layout(
            &self.layout,
            self.rows.start..self.rows.end.min(self.rows.start + self.rows_per_run),
        )
    }

    fn end_run(&mut self, put: &mut impl FnMut(usize, &[u32])) -> Result<(), PackError> {
        let run = &self.run.tensor();
        for (whole, part) in (self.layout.sections().into_iter()).zip(run.layout.sections()) {
            let words = &run.words[part.offset..][..run.layout.padded_rows() * part.words_per_row];
            if !words.is_empty() {
                put(whole.offset + self.rows.start * whole.words_per_row, words);
            }
        }
        let n_rows = run.layout.n_rows;
        self.rows.start += n_rows;
        self.n_packed += n_rows;
        if !self.rows.is_empty() {
            let layout = self.run_layout();
            self.run.start_over(layout)?;
        }
        Ok(())
    }
}

fn run_layout(whole: &PackedLayout, rows: Range<usize>) -> PackedLayout {
    PackedLayout {
        n_rows: rows.len(),
        ..*whole
    }
}
