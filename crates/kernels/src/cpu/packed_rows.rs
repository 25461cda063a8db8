//! The four sections of a packed matrix, row by row.

use std::ops::Range;

use cinderlm_weights::{Interleave, PackedLayout};

use super::scales::Scales;

/// A packed matrix in row order.
pub(super) struct PackedRows<'a> {
    pub(super) layout: &'a PackedLayout,
    low: Section<'a>,
    high: Section<'a>,
    scales: Section<'a>,
    supers: Section<'a>,
}

/// The planes of one row.
#[derive(Clone, Copy)]
pub(super) struct PackedRow<'a> {
    pub(super) low: &'a [u32],
    pub(super) high: &'a [u32],
}

struct Section<'a> {
    words: &'a [u32],
    words_per_row: usize,
}

impl<'a> PackedRows<'a> {
    /// Cuts `words` into sections.
    ///
    /// # Panics
    /// The rows are interleaved, or there are not `layout.n_words()` words.
    pub(super) fn new(layout: &'a PackedLayout, words: &'a [u32]) -> Self {
        assert_eq!(
            layout.interleave,
            Interleave::Rows,
            "the CPU reads weights row by row"
        );
        assert_eq!(words.len(), layout.n_words(), "the words of {layout:?}");
        let (format, n_cols) = (layout.format, layout.n_cols);
        let section = |offset: usize, words_per_row: usize| Section {
            words: &words[offset..][..layout.n_rows * words_per_row],
            words_per_row,
        };
        Self {
            layout,
            low: section(layout.low_offset(), format.low_words_per_row(n_cols)),
            high: section(layout.high_offset(), format.high_words_per_row(n_cols)),
            scales: section(layout.scale_offset(), format.scale_words_per_row(n_cols)),
            supers: section(layout.super_offset(), format.super_words_per_row(n_cols)),
        }
    }

    /// The planes of row `row`.
    ///
    /// # Panics
    /// There is no such row.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> PackedRow<'a> {
        PackedRow {
            low: self.low.rows(row..row + 1),
            high: self.high.rows(row..row + 1),
        }
    }

    /// The words of `rows` in the scales section.
    ///
    /// # Panics
    /// There are no such rows.
    #[inline(always)]
    pub(super) fn scale_words(&self, rows: Range<usize>) -> &'a [u32] {
        self.scales.rows(rows)
    }

    /// Decodes the scales of `rows`, which are not empty.
    ///
    /// # Panics
    /// There are no such rows.
    pub(super) fn decode_scales(&self, rows: Range<usize>, scales: &mut Scales) {
        scales.decode(
            self.layout.format,
            rows.len(),
            self.scale_words(rows.clone()),
            self.supers.rows(rows),
        );
    }
}

impl<'a> Section<'a> {
    #[inline(always)]
    fn rows(&self, rows: Range<usize>) -> &'a [u32] {
        &self.words[rows.start * self.words_per_row..rows.end * self.words_per_row]
    }
}
