//! Packing for devices that take a buffer in parts: a few rows at a time, so that no whole tensor lies in host memory.

use crate::packed::TILE_ROWS;
use crate::{PackError, PackedLayout, PackedTensor, Packer};

/// The most bytes of a run, unless one tile of rows is larger.
pub const RUN_BYTES: usize = 1 << 18;

/// Packs one tensor from pieces of any size, in runs of whole tiles of rows, and hands each run's words on as soon as it is full.
///
/// Rows of a run lie side by side in each section of the whole tensor, so a run is up to four stretches of its words.
#[derive(Debug)]
pub struct RunPacker {
    layout: PackedLayout,
    rows_per_run: usize,
    first_row: usize,
    /// `None` once every row is packed.
    run: Option<Packer>,
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
        let mut packer = Self {
            layout,
            rows_per_run,
            first_row: 0,
            run: None,
        };
        packer.run = Some(Packer::new(packer.run_layout())?);
        Ok(packer)
    }

    /// Takes the tensor's next bytes, and gives `put` each stretch of words that they complete, with its place in the whole tensor.
    ///
    /// # Errors
    /// They are more than the tensor holds, or there is no memory for the next run.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        mut put: impl FnMut(usize, &[u32]),
    ) -> Result<(), PackError> {
        while !bytes.is_empty() {
            let run = self.run.as_mut().ok_or_else(|| PackError::WrongLength {
                expected_bytes: self.layout.n_file_bytes(),
                actual_bytes: self.layout.n_file_bytes() + bytes.len() as u64,
            })?;
            let missing = usize::try_from(run.missing_bytes()).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            run.push(now)?;
            bytes = later;
            if run.missing_bytes() == 0 {
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
        let Some(run) = self.run else {
            return Ok(());
        };
        Err(PackError::WrongLength {
            expected_bytes: self.layout.n_file_bytes(),
            actual_bytes: self.first_row as u64 * self.layout.row_file_bytes() as u64
                + run.taken_bytes(),
        })
    }

    fn run_layout(&self) -> PackedLayout {
        PackedLayout {
            n_rows: self.rows_per_run.min(self.layout.n_rows - self.first_row),
            ..self.layout
        }
    }

    fn end_run(&mut self, put: &mut impl FnMut(usize, &[u32])) -> Result<(), PackError> {
        let Some(run) = self.run.take() else {
            return Ok(());
        };
        let PackedTensor { layout, words } = run.finish()?;
        for (whole, part) in self.layout.sections().into_iter().zip(layout.sections()) {
            let words = &words[part.offset..][..layout.padded_rows() * part.words_per_row];
            if !words.is_empty() {
                put(whole.offset + self.first_row * whole.words_per_row, words);
            }
        }
        self.first_row += layout.n_rows;
        if self.first_row < self.layout.n_rows {
            self.run = Some(Packer::with_buffer(self.run_layout(), words)?);
        }
        Ok(())
    }
}
