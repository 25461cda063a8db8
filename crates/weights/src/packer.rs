//! Packing: from the blocks of a file, as they stream in, to the words of a [`PackedTensor`].

use std::ops::Range;

use thiserror::Error;

use crate::fields;
use crate::packed::{BLOCK, SUPER_BLOCK, Section, TILE_ROWS};
use crate::{BlockType, Interleave, PackedFormat, PackedLayout, PackedTensor, ScaleKind};

/// Why a tensor cannot be packed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PackError {
    /// A shape without values.
    #[error("a tensor of {n_rows} rows and {n_cols} columns has no values")]
    Empty {
        /// Rows asked for.
        n_rows: usize,
        /// Columns asked for.
        n_cols: usize,
    },
    /// A row that ends inside a block.
    #[error("rows of {n_cols} values are no whole blocks of {block_type}")]
    PartialBlock {
        /// The tensor's type.
        block_type: BlockType,
        /// Columns asked for.
        n_cols: usize,
    },
    /// More words than 32 bits can count.
    #[error("a tensor of {n_rows} rows and {n_cols} columns is too large to pack")]
    TooLarge {
        /// Rows asked for.
        n_rows: usize,
        /// Columns asked for.
        n_cols: usize,
    },
    /// The allocator refused the buffer.
    #[error("no memory for a tensor of {n_bytes} bytes")]
    OutOfMemory {
        /// Size of the packed tensor.
        n_bytes: u64,
    },
    /// More or fewer bytes than the shape holds.
    #[error("the tensor holds {expected_bytes} bytes, got {actual_bytes}")]
    WrongLength {
        /// Bytes of the shape.
        expected_bytes: u64,
        /// Bytes given.
        actual_bytes: u64,
    },
}

/// Packs one tensor from pieces of any size, so that no more than one row of it lies in memory unpacked.
///
/// Rows come in order, or part by part: see [`begin`](Self::begin).
#[derive(Debug)]
pub struct Packer {
    tensor: PackedTensor,
    row_bytes: usize,
    /// Those of the part that is being packed which have not come yet.
    rows: Range<usize>,
    n_packed: usize,
    /// The start of a row whose end has not arrived.
    partial: Vec<u8>,
    scratch: RowWords,
}

impl Packer {
    /// A packer with room for the whole packed tensor.
    ///
    /// # Errors
    /// As [`PackedLayout::check`], or there is no memory.
    pub fn new(layout: PackedLayout) -> Result<Self, PackError> {
        layout.check()?;
        let n_words = layout.n_words();
        // Asks whether there is room, and only then takes it: `vec!` aborts where there is none, but it alone gets pages that the
        // system zeroes when they are first written to, so that a file that lies about a tensor's size costs nothing yet.
        Vec::<u32>::new()
            .try_reserve_exact(n_words)
            .map_err(|_| PackError::OutOfMemory {
                n_bytes: n_words as u64 * 4,
            })?;
        Ok(Self::over(layout, vec![0; n_words]))
    }

    /// A packer into words that are all zero.
    fn over(layout: PackedLayout, words: Vec<u32>) -> Self {
        Self {
            tensor: PackedTensor { layout, words },
            row_bytes: layout.row_file_bytes(),
            rows: 0..layout.n_rows,
            n_packed: 0,
            partial: Vec::new(),
            scratch: RowWords::default(),
        }
    }

    /// The bytes that follow are those of `rows`. For tensors that are stacked from several of a file, in whatever order these lie there.
    ///
    /// # Panics
    /// The part before is incomplete, or there are no such rows.
    pub fn begin(&mut self, rows: Range<usize>) {
        assert!(
            self.n_packed == 0 || self.rows.is_empty() && self.partial.is_empty(),
            "rows {:?} are missing",
            self.rows
        );
        assert!(
            rows.start <= rows.end && rows.end <= self.tensor.layout.n_rows,
            "rows {rows:?} of {}",
            self.tensor.layout.n_rows
        );
        self.rows = rows;
    }

    /// Takes the next bytes of the tensor, or of the part that was begun.
    ///
    /// # Errors
    /// They are more than it holds; nothing of them has been taken then.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), PackError> {
        let actual_bytes = self.taken_bytes() + bytes.len() as u64;
        let missing_bytes = self.rows.len() * self.row_bytes - self.partial.len();
        if bytes.len() > missing_bytes {
            return Err(self.wrong_length(actual_bytes));
        }
        if !self.partial.is_empty() {
            let missing = (self.row_bytes - self.partial.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(missing);
            self.partial.extend_from_slice(head);
            bytes = rest;
            if self.partial.len() < self.row_bytes {
                return Ok(());
            }
            let row = std::mem::take(&mut self.partial);
            self.pack_row(&row);
            self.partial = row;
            self.partial.clear();
        }
        let rows = bytes.chunks_exact(self.row_bytes);
        self.partial.extend_from_slice(rows.remainder());
        for row in rows {
            self.pack_row(row);
        }
        Ok(())
    }

    /// The packed tensor, once every byte has been pushed.
    ///
    /// # Errors
    /// Bytes are missing.
    pub fn finish(self) -> Result<PackedTensor, PackError> {
        let actual_bytes = self.taken_bytes();
        if self.missing_bytes() == 0 {
            Ok(self.tensor)
        } else {
            Err(self.wrong_length(actual_bytes))
        }
    }

    /// What has been packed so far.
    pub(crate) fn tensor(&self) -> &PackedTensor {
        &self.tensor
    }

    /// Becomes a packer of `layout`, in the memory that it has.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn start_over(&mut self, layout: PackedLayout) -> Result<(), PackError> {
        layout.check()?;
        let n_words = layout.n_words();
        let mut words = std::mem::take(&mut self.tensor.words);
        words.clear();
        words
            .try_reserve_exact(n_words)
            .map_err(|_| PackError::OutOfMemory {
                n_bytes: n_words as u64 * 4,
            })?;
        words.resize(n_words, 0);
        *self = Self::over(layout, words);
        Ok(())
    }

    /// Bytes that have not been pushed yet.
    pub(crate) fn missing_bytes(&self) -> u64 {
        self.tensor.layout.n_file_bytes() - self.taken_bytes()
    }

    /// Bytes that have been pushed.
    pub(crate) fn taken_bytes(&self) -> u64 {
        self.n_packed as u64 * self.row_bytes as u64 + self.partial.len() as u64
    }

    fn wrong_length(&self, actual_bytes: u64) -> PackError {
        PackError::WrongLength {
            expected_bytes: self.tensor.layout.n_file_bytes(),
            actual_bytes,
        }
    }

    fn pack_row(&mut self, bytes: &[u8]) {
        let layout = self.tensor.layout;
        self.scratch.fill(layout.format, bytes);
        let RowWords {
            low,
            high,
            scales,
            supers,
        } = &self.scratch;
        let parts = [low, high, scales, supers];
        for (Section { offset, .. }, words) in layout.sections().into_iter().zip(parts) {
            if words.is_empty() {
                continue;
            }
            let start = offset + layout.word_in_section(words.len(), self.rows.start, 0);
            let section = &mut self.tensor.words[start..];
            match layout.interleave {
                Interleave::Rows => section[..words.len()].copy_from_slice(words),
                Interleave::Tiles32 => {
                    for (to, from) in section.iter_mut().step_by(TILE_ROWS).zip(words) {
                        *to = *from;
                    }
                }
            }
        }
        self.rows.start += 1;
        self.n_packed += 1;
    }
}

/// The words of one row, by section.
#[derive(Default, Debug)]
struct RowWords {
    low: Vec<u32>,
    high: Vec<u32>,
    scales: Vec<u32>,
    supers: Vec<u32>,
}

impl RowWords {
    fn fill(&mut self, format: PackedFormat, row: &[u8]) {
        for section in [
            &mut self.low,
            &mut self.high,
            &mut self.scales,
            &mut self.supers,
        ] {
            section.clear();
        }
        let block_type = format.block_type;
        if block_type.is_float() {
            extend_words(&mut self.low, row);
            return;
        }
        for (index, block) in row.chunks_exact(block_type.block_bytes()).enumerate() {
            for stretch in 0..block_type.block_len() / BLOCK {
                self.push_quanta(format, &fields::quanta(block_type, block, stretch));
            }
            self.push_scales(format, index, block);
        }
    }

    fn push_quanta(&mut self, format: PackedFormat, quanta: &[u8; BLOCK]) {
        match format.low_bits() {
            2 => extend_words(&mut self.low, &two_bits(quanta, 0)),
            4 => extend_words(&mut self.low, &four_bits(quanta)),
            _ => extend_words(&mut self.low, quanta),
        }
        match format.high_bits() {
            0 => {}
            1 => self.high.push(one_bit(quanta, format.low_bits())),
            _ => extend_words(&mut self.high, &two_bits(quanta, format.low_bits())),
        }
    }

    fn push_scales(&mut self, format: PackedFormat, index: usize, block: &[u8]) {
        let (d, min) = fields::floats(format.block_type, block);
        match format.scale_kind() {
            ScaleKind::None => {}
            ScaleKind::Single => push_half(&mut self.scales, index, d),
            ScaleKind::SingleMin => self.scales.push(pair(d, min)),
            ScaleKind::Super => {
                let scales = fields::signed_scales(format.block_type, block);
                extend_words(&mut self.scales, bytemuck::bytes_of(&scales));
                push_half(&mut self.supers, index, d);
            }
            ScaleKind::SuperMin { group } => {
                let pairs = fields::scales_and_mins(format.block_type, block);
                extend_words(
                    &mut self.scales,
                    &pairs.as_flattened()[..SUPER_BLOCK / group * 2],
                );
                self.supers.push(pair(d, min));
            }
        }
    }
}

/// Appends little-endian words; a last one that is incomplete is filled up with zeros.
fn extend_words(words: &mut Vec<u32>, bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<4>();
    words.extend(whole.iter().map(|word| u32::from_le_bytes(*word)));
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        words.push(u32::from_le_bytes(last));
    }
}

/// Stores 16-bit entry `index` of a row, two to a word.
fn push_half(words: &mut Vec<u32>, index: usize, bits: u16) {
    match words.last_mut() {
        Some(last) if index % 2 == 1 => *last |= u32::from(bits) << 16,
        _ => words.push(u32::from(bits)),
    }
}

fn pair(low: u16, high: u16) -> u32 {
    u32::from(low) | u32::from(high) << 16
}

fn four_bits(quanta: &[u8; BLOCK]) -> [u8; 16] {
    std::array::from_fn(|j| quanta[j] & 15 | quanta[j + 16] << 4)
}

fn two_bits(quanta: &[u8; BLOCK], shift: usize) -> [u8; 8] {
    std::array::from_fn(|j| {
        (0..4).fold(0, |byte, i| {
            byte | (quanta[j + 8 * i] >> shift & 3) << (2 * i)
        })
    })
}

fn one_bit(quanta: &[u8; BLOCK], shift: usize) -> u32 {
    quanta.iter().enumerate().fold(0, |word, (j, quantum)| {
        word | u32::from(quantum >> shift & 1) << j
    })
}
