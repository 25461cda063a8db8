//! The canonical form of a weight matrix in memory: one buffer of 32-bit words, the same for every device.
//!
//! A tensor `[n_rows, n_cols]` (outputs by inputs, inputs contiguous) is cut into four sections that lie one after another:
//! low plane, high plane, scales, supers. Each holds a fixed number of words per row, and
//!
//! ```text
//! value = scale * (q - zero) + min
//! ```
//!
//! **Low plane**, per block of 32 values `q[0..32]`: with 4 bits, byte `j` of 16 has `q[j]` in its low and `q[j + 16]` in its high
//! nibble; with 2 bits, byte `j` of 8 has `q[j + 8 i]` in bits `2 i..2 i + 2`; with 8 bits, byte `j` is `q[j]` in two's complement.
//! Floats of 16 bits lie two to a word, the even one in the low half; floats of 32 bits fill a word.
//!
//! **High plane**, the bits of `q` above the low ones: with 1 bit, bit `j` of one word belongs to `q[j]`; with 2 bits, the order is that
//! of the 2-bit low plane.
//!
//! **Scales and supers** are described at [`ScaleKind`]. Everything is little-endian within a word.
//!
//! [`Interleave`] says where the words of a row go within their section.

use crate::unpack::RowReader;
use crate::{BlockType, PackError, Packer};

/// Values that share a run of words in the planes.
pub const BLOCK: usize = 32;
/// Values under one entry of the supers section.
pub const SUPER_BLOCK: usize = 256;
/// Rows that lie side by side in [`Interleave::Tiles32`].
pub const TILE_ROWS: usize = 32;

/// How a format stores its scales and minima.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ScaleKind {
    /// Floats: no scales.
    None,
    /// One f16 scale per block of 32, two blocks a word, the even one in the low half; each row padded to whole words.
    Single,
    /// One word per block of 32: f16 scale in the low half, f16 minimum in the high half.
    SingleMin,
    /// One i8 scale per group of 16, four a word. Supers: one f16 `d` per 256 values, two a word, each row padded to whole words.
    /// `scale = d * i8`.
    Super,
    /// One `u8 scale | u8 min << 8` per group, two groups a word. Supers: one word per 256 values, f16 `d` in the low half, f16 `dmin`
    /// in the high half. `scale = d * u8 scale`, `min = -(dmin * u8 min)`.
    SuperMin {
        /// Values per group: 16 or 32.
        group: usize,
    },
}

/// The encoding of a float format's words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FloatKind {
    /// One IEEE single a word.
    F32,
    /// Two IEEE halves a word.
    F16,
    /// Two upper halves of IEEE singles a word.
    BF16,
}

/// How the values of one [`BlockType`] look once packed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PackedFormat {
    /// The type in the file; it alone decides the format.
    pub block_type: BlockType,
}

impl PackedFormat {
    /// The packed format of a tensor type.
    pub const fn new(block_type: BlockType) -> Self {
        Self { block_type }
    }

    /// The float encoding, or `None` for a quantised format.
    pub const fn float_kind(self) -> Option<FloatKind> {
        match self.block_type {
            BlockType::F32 => Some(FloatKind::F32),
            BlockType::F16 => Some(FloatKind::F16),
            BlockType::BF16 => Some(FloatKind::BF16),
            _ => None,
        }
    }

    /// Bits a value takes in the low plane: 2, 4, 8, 16 or 32.
    pub const fn low_bits(self) -> usize {
        match self.block_type {
            BlockType::F32 => 32,
            BlockType::F16 | BlockType::BF16 => 16,
            BlockType::Q8_0 => 8,
            BlockType::Q4_0
            | BlockType::Q4_1
            | BlockType::Q5_0
            | BlockType::Q5_1
            | BlockType::Q4K
            | BlockType::Q5K
            | BlockType::Q6K => 4,
            BlockType::Q2K | BlockType::Q3K => 2,
        }
    }

    /// Bits a value takes in the high plane: 0, 1 or 2.
    pub const fn high_bits(self) -> usize {
        match self.block_type {
            BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q3K | BlockType::Q5K => 1,
            BlockType::Q6K => 2,
            _ => 0,
        }
    }

    /// What is taken off a stored quantum before it is scaled.
    pub const fn zero(self) -> i32 {
        match self.block_type {
            BlockType::Q4_0 => 8,
            BlockType::Q5_0 => 16,
            BlockType::Q3K => 4,
            BlockType::Q6K => 32,
            _ => 0,
        }
    }

    /// Values under one scale: 16 or 32. Float formats have none.
    pub const fn scale_group(self) -> usize {
        match self.scale_kind() {
            ScaleKind::Super => 16,
            ScaleKind::SuperMin { group } => group,
            ScaleKind::None | ScaleKind::Single | ScaleKind::SingleMin => BLOCK,
        }
    }

    /// How scales and minima are stored.
    pub const fn scale_kind(self) -> ScaleKind {
        match self.block_type {
            BlockType::F32 | BlockType::F16 | BlockType::BF16 => ScaleKind::None,
            BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => ScaleKind::Single,
            BlockType::Q4_1 | BlockType::Q5_1 => ScaleKind::SingleMin,
            BlockType::Q3K | BlockType::Q6K => ScaleKind::Super,
            BlockType::Q2K => ScaleKind::SuperMin { group: 16 },
            BlockType::Q4K | BlockType::Q5K => ScaleKind::SuperMin { group: 32 },
        }
    }

    /// Words of the low plane in a row of `n_cols` values.
    pub const fn low_words_per_row(self, n_cols: usize) -> usize {
        plane_words(n_cols, self.low_bits())
    }

    /// Words of the high plane in a row of `n_cols` values.
    pub const fn high_words_per_row(self, n_cols: usize) -> usize {
        plane_words(n_cols, self.high_bits())
    }

    /// Words of the scales section in a row of `n_cols` values.
    pub const fn scale_words_per_row(self, n_cols: usize) -> usize {
        match self.scale_kind() {
            ScaleKind::None => 0,
            ScaleKind::Single => (n_cols / BLOCK).div_ceil(2),
            ScaleKind::SingleMin => n_cols / BLOCK,
            ScaleKind::Super => n_cols / 16 / 4,
            ScaleKind::SuperMin { group } => n_cols / group / 2,
        }
    }

    /// Words of the supers section in a row of `n_cols` values.
    pub const fn super_words_per_row(self, n_cols: usize) -> usize {
        match self.scale_kind() {
            ScaleKind::None | ScaleKind::Single | ScaleKind::SingleMin => 0,
            ScaleKind::Super => (n_cols / SUPER_BLOCK).div_ceil(2),
            ScaleKind::SuperMin { .. } => n_cols / SUPER_BLOCK,
        }
    }

    /// Words of all sections in a row of `n_cols` values.
    pub const fn words_per_row(self, n_cols: usize) -> usize {
        self.low_words_per_row(n_cols)
            + self.high_words_per_row(n_cols)
            + self.scale_words_per_row(n_cols)
            + self.super_words_per_row(n_cols)
    }
}

/// Words that hold `n_cols` values of `bits` bits, without forming the product, which 32-bit targets could not hold.
const fn plane_words(n_cols: usize, bits: usize) -> usize {
    n_cols / 32 * bits + (n_cols % 32 * bits).div_ceil(32)
}

/// Where the words of a row go within a section.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Interleave {
    /// Word `w` of a row is at `row * words_per_row + w`: a row lies in one piece, as CPUs like it.
    Rows,
    /// Rows are padded with zeros to a multiple of 32 and word `w` is at
    /// `((row / 32) * words_per_row + w) * 32 + row % 32`: 32 neighbouring rows read neighbouring words, as GPUs like it.
    Tiles32,
}

/// One of the sections of a packed tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section {
    /// Its first word.
    pub offset: usize,
    /// Words that each row has in it.
    pub words_per_row: usize,
}

/// Format, shape and order of a packed tensor: all that a kernel needs to find a word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PackedLayout {
    /// How values are encoded.
    pub format: PackedFormat,
    /// Rows: outputs of a linear layer, or tokens of an embedding.
    pub n_rows: usize,
    /// Values in a row: inputs of a linear layer.
    pub n_cols: usize,
    /// The order of rows within each section.
    pub interleave: Interleave,
}

impl PackedLayout {
    /// A layout whose sizes have been checked.
    ///
    /// # Errors
    /// As [`PackedLayout::check`].
    pub fn new(
        block_type: BlockType,
        n_rows: usize,
        n_cols: usize,
        interleave: Interleave,
    ) -> Result<Self, PackError> {
        let layout = Self {
            format: PackedFormat::new(block_type),
            n_rows,
            n_cols,
            interleave,
        };
        layout.check()?;
        Ok(layout)
    }

    /// Checks that the shape can be packed.
    ///
    /// # Errors
    /// The shape is empty, its rows are no whole blocks, or the words cannot be counted with 32 bits, as kernels do.
    pub fn check(&self) -> Result<(), PackError> {
        let Self { n_rows, n_cols, .. } = *self;
        let block_type = self.format.block_type;
        if n_rows == 0 || n_cols == 0 {
            return Err(PackError::Empty { n_rows, n_cols });
        }
        if !n_cols.is_multiple_of(block_type.block_len()) {
            return Err(PackError::PartialBlock { block_type, n_cols });
        }
        // Every format takes less than two words a value, so rows below 2^30 values cannot overflow 32 bits themselves.
        let fits = n_cols < 1 << 30
            && n_rows < 1 << 30
            && (self.padded_rows() as u64 * self.format.words_per_row(n_cols) as u64)
                <= u64::from(u32::MAX)
            && (self.n_words() as u64) < isize::MAX as u64 / 4;
        if fits {
            Ok(())
        } else {
            Err(PackError::TooLarge { n_rows, n_cols })
        }
    }

    /// Rows that the buffer has room for: `n_rows`, or the next multiple of 32 in tiles.
    pub const fn padded_rows(&self) -> usize {
        match self.interleave {
            Interleave::Rows => self.n_rows,
            Interleave::Tiles32 => self.n_rows.next_multiple_of(TILE_ROWS),
        }
    }

    /// First word of the low plane.
    pub const fn low_offset(&self) -> usize {
        0
    }

    /// First word of the high plane.
    pub const fn high_offset(&self) -> usize {
        self.padded_rows() * self.format.low_words_per_row(self.n_cols)
    }

    /// First word of the scales.
    pub const fn scale_offset(&self) -> usize {
        self.high_offset() + self.padded_rows() * self.format.high_words_per_row(self.n_cols)
    }

    /// First word of the supers.
    pub const fn super_offset(&self) -> usize {
        self.scale_offset() + self.padded_rows() * self.format.scale_words_per_row(self.n_cols)
    }

    /// The four sections, in order: low plane, high plane, scales, supers.
    pub const fn sections(&self) -> [Section; 4] {
        let (format, n_cols) = (self.format, self.n_cols);
        [
            Section {
                offset: self.low_offset(),
                words_per_row: format.low_words_per_row(n_cols),
            },
            Section {
                offset: self.high_offset(),
                words_per_row: format.high_words_per_row(n_cols),
            },
            Section {
                offset: self.scale_offset(),
                words_per_row: format.scale_words_per_row(n_cols),
            },
            Section {
                offset: self.super_offset(),
                words_per_row: format.super_words_per_row(n_cols),
            },
        ]
    }

    /// Bytes that a row takes in the file, as blocks.
    pub const fn row_file_bytes(&self) -> usize {
        let block_type = self.format.block_type;
        self.n_cols / block_type.block_len() * block_type.block_bytes()
    }

    /// Bytes that the tensor takes in the file, as blocks.
    pub const fn n_file_bytes(&self) -> u64 {
        self.n_rows as u64 * self.row_file_bytes() as u64
    }

    /// Words of the whole buffer.
    pub const fn n_words(&self) -> usize {
        self.padded_rows() * self.format.words_per_row(self.n_cols)
    }

    /// Place, within its section, of word `w` of a row that has `words_per_row` words there.
    pub const fn word_in_section(&self, words_per_row: usize, row: usize, w: usize) -> usize {
        match self.interleave {
            Interleave::Rows => row * words_per_row + w,
            Interleave::Tiles32 => {
                (row / TILE_ROWS * words_per_row + w) * TILE_ROWS + row % TILE_ROWS
            }
        }
    }
}

/// A packed tensor in host memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackedTensor {
    /// What the words mean.
    pub layout: PackedLayout,
    /// [`PackedLayout::n_words`] words.
    pub words: Vec<u32>,
}

impl PackedTensor {
    /// Packs a tensor whose bytes are all at hand, in the blocks of the file. [`Packer`] takes them in pieces.
    ///
    /// # Errors
    /// The shape cannot be packed or `bytes` has another length than the shape asks for.
    pub fn pack(
        block_type: BlockType,
        n_rows: usize,
        n_cols: usize,
        bytes: &[u8],
        interleave: Interleave,
    ) -> Result<Self, PackError> {
        let mut packer = Packer::new(PackedLayout::new(block_type, n_rows, n_cols, interleave)?)?;
        packer.push(bytes)?;
        packer.finish()
    }

    /// Unpacks one row: the plain reference for kernels, not a fast path.
    ///
    /// # Panics
    /// `row` is not below `n_rows`, or `out` does not have `n_cols` values.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.layout.n_rows, "row {row} of {:?}", self.layout);
        assert_eq!(out.len(), self.layout.n_cols, "one value per column");
        let reader = RowReader::new(self, row);
        for (col, value) in out.iter_mut().enumerate() {
            *value = reader.value(col);
        }
    }
}
