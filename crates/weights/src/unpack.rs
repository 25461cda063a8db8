//! Reading a [`PackedTensor`] value by value, as plainly as the layout allows: what kernels are held against.

use half::{bf16, f16};

use crate::packed::{BLOCK, SUPER_BLOCK};
use crate::{FloatKind, PackedTensor, ScaleKind};

/// Reads single fields of one row.
pub(crate) struct RowReader<'a> {
    tensor: &'a PackedTensor,
    row: usize,
}

impl<'a> RowReader<'a> {
    pub(crate) fn new(tensor: &'a PackedTensor, row: usize) -> Self {
        Self { tensor, row }
    }

    fn word(&self, section: usize, words_per_row: usize, w: usize) -> u32 {
        let layout = &self.tensor.layout;
        self.tensor.words[section + layout.word_in_section(words_per_row, self.row, w)]
    }

    fn low(&self, w: usize) -> u32 {
        let layout = &self.tensor.layout;
        let words_per_row = layout.format.low_words_per_row(layout.n_cols);
        self.word(layout.low_offset(), words_per_row, w)
    }

    fn high(&self, w: usize) -> u32 {
        let layout = &self.tensor.layout;
        let words_per_row = layout.format.high_words_per_row(layout.n_cols);
        self.word(layout.high_offset(), words_per_row, w)
    }

    fn scale(&self, w: usize) -> u32 {
        let layout = &self.tensor.layout;
        let words_per_row = layout.format.scale_words_per_row(layout.n_cols);
        self.word(layout.scale_offset(), words_per_row, w)
    }

    fn super_scale(&self, w: usize) -> u32 {
        let layout = &self.tensor.layout;
        let words_per_row = layout.format.super_words_per_row(layout.n_cols);
        self.word(layout.super_offset(), words_per_row, w)
    }

    pub(crate) fn value(&self, col: usize) -> f32 {
        let format = self.tensor.layout.format;
        match format.float_kind() {
            Some(FloatKind::F32) => f32::from_bits(self.low(col)),
            Some(FloatKind::F16) => half_of(self.low(col / 2), col),
            Some(FloatKind::BF16) => {
                bf16::from_bits((self.low(col / 2) >> (16 * (col % 2))) as u16).to_f32()
            }
            None => {
                let centred = (self.quantum(col) - format.zero()) as f32;
                let (scale, min) = self.scale_and_min(col);
                // Adding a zero minimum would turn -0.0 into 0.0.
                min.map_or(scale * centred, |min| scale * centred + min)
            }
        }
    }

    fn quantum(&self, col: usize) -> i32 {
        let format = self.tensor.layout.format;
        let (block, j) = (col / BLOCK, col % BLOCK);
        let low = match format.low_bits() {
            2 => self.low(2 * block + j % 8 / 4) >> (8 * (j % 4) + 2 * (j / 8)) & 3,
            4 => self.low(4 * block + j % 16 / 4) >> (8 * (j % 4) + 4 * (j / 16)) & 15,
            _ => return i32::from((self.low(8 * block + j / 4) >> (8 * (j % 4))) as i8),
        };
        let high = match format.high_bits() {
            0 => 0,
            1 => self.high(block) >> j & 1,
            _ => self.high(2 * block + j % 8 / 4) >> (8 * (j % 4) + 2 * (j / 8)) & 3,
        };
        (low | high << format.low_bits()) as i32
    }

    fn scale_and_min(&self, col: usize) -> (f32, Option<f32>) {
        let (block, super_block) = (col / BLOCK, col / SUPER_BLOCK);
        match self.tensor.layout.format.scale_kind() {
            ScaleKind::None => (1.0, None),
            ScaleKind::Single => (half_of(self.scale(block / 2), block), None),
            ScaleKind::SingleMin => {
                let word = self.scale(block);
                (half_of(word, 0), Some(half_of(word, 1)))
            }
            ScaleKind::Super => {
                let group = col / 16;
                let scale = (self.scale(group / 4) >> (8 * (group % 4))) as i8;
                let d = half_of(self.super_scale(super_block / 2), super_block);
                (d * f32::from(scale), None)
            }
            ScaleKind::SuperMin { group } => {
                let group = col / group;
                let pair = self.scale(group / 2) >> (16 * (group % 2));
                let supers = self.super_scale(super_block);
                let scale = half_of(supers, 0) * f32::from(pair as u8);
                let min = half_of(supers, 1) * f32::from((pair >> 8) as u8);
                (scale, Some(-min))
            }
        }
    }
}

/// The f16 in the low (`index` even) or high (`index` odd) half of a word.
fn half_of(word: u32, index: usize) -> f32 {
    f16::from_bits((word >> (16 * (index % 2))) as u16).to_f32()
}
