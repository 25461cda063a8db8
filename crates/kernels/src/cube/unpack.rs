//! Reading packed weights in the [`Interleave::Tiles32`](cinderlm_weights::Interleave) order, 32 values at a time.
//!
//! WGSL has neither 8-bit integers nor a portable f16, so fields are cut out of words by shifts and masks, with all places known when
//! the kernel is compiled. See `cinderlm_weights::packed` for the format.

use cinderlm_weights::packed::{BLOCK, SUPER_BLOCK, TILE_ROWS};
use cinderlm_weights::{FloatKind, PackedFormat, PackedLayout, ScaleKind};
use cubecl::prelude::*;

/// Where the words of one row begin in each section. Word `w` of a row lies `w * TILE_ROWS` further on.
#[derive(CubeType, Clone, Copy)]
pub(super) struct PackedRow {
    low: usize,
    high: usize,
    scales: usize,
    supers: usize,
}

/// Finds a row, which must be below the padded number of rows.
#[cube]
pub(super) fn packed_row(row: usize, #[comptime] layout: PackedLayout) -> PackedRow {
    let (format, n_cols) = comptime!((layout.format, layout.n_cols));
    let tile = (row / TILE_ROWS) * TILE_ROWS;
    let lane = row % TILE_ROWS;
    PackedRow {
        low: tile * comptime!(format.low_words_per_row(n_cols)) + lane,
        high: tile * comptime!(format.high_words_per_row(n_cols))
            + lane
            + comptime!(layout.high_offset()),
        scales: tile * comptime!(format.scale_words_per_row(n_cols))
            + lane
            + comptime!(layout.scale_offset()),
        supers: tile * comptime!(format.super_words_per_row(n_cols))
            + lane
            + comptime!(layout.super_offset()),
    }
}

/// The 32 values of block `block` of a row.
#[cube]
pub(super) fn unpack_block(
    words: &[u32],
    row: &PackedRow,
    block: usize,
    #[comptime] layout: PackedLayout,
) -> Sequence<f32> {
    let format = comptime!(layout.format);
    // A plane of `n` bits per value has `n` words per block of 32.
    let low = read_words(words, row.low, block, comptime!(format.low_bits()));
    let mut values = Sequence::<f32>::new();
    if comptime!(format.float_kind().is_some()) {
        #[unroll]
        for i in 0..BLOCK {
            values.push(float_value(&low, i, format));
        }
    } else {
        let high = read_words(words, row.high, block, comptime!(format.high_bits()));
        let scales = block_scales(words, row, block, format);
        #[unroll]
        for i in 0..BLOCK {
            let group = comptime!(2 * (i / group_len(format)));
            let offset = comptime!(group + 1);
            values.push(
                quantum(&low, &high, i, format) * *scales.index(group) + *scales.index(offset),
            );
        }
    }
    values
}

/// The `n` words of block `block` in a section where each block has `n`.
#[cube]
fn read_words(words: &[u32], section: usize, block: usize, #[comptime] n: usize) -> Sequence<u32> {
    let mut read = Sequence::<u32>::new();
    #[unroll]
    for w in 0..n {
        read.push(words[section + (block * n + w) * TILE_ROWS]);
    }
    read
}

/// Value `i` of a block of floats.
#[cube]
fn float_value(low: &Sequence<u32>, #[comptime] i: usize, #[comptime] format: PackedFormat) -> f32 {
    let bits = field(low, i, comptime!(format.low_bits()));
    if comptime!(matches!(format.float_kind(), Some(FloatKind::F32))) {
        f32::reinterpret(bits)
    } else if comptime!(matches!(format.float_kind(), Some(FloatKind::BF16))) {
        f32::reinterpret(bits << 16u32)
    } else {
        half_value(bits)
    }
}

/// Quantum `i` of a block, unsigned: signed ones are moved up by 128, which [`zero`] takes into account.
#[cube]
fn quantum(
    low: &Sequence<u32>,
    high: &Sequence<u32>,
    #[comptime] i: usize,
    #[comptime] format: PackedFormat,
) -> f32 {
    let low_bits = comptime!(format.low_bits());
    let high_bits = comptime!(format.high_bits());
    let bits = field(low, i, low_bits);
    if comptime!(low_bits == 8) {
        f32::cast_from(bits ^ 128u32)
    } else if comptime!(high_bits == 0) {
        f32::cast_from(bits)
    } else {
        f32::cast_from(bits | (field(high, i, high_bits) << comptime!(low_bits as u32)))
    }
}

/// Field `i` of a block's plane of `bits` bits per value.
#[cube]
fn field(plane: &Sequence<u32>, #[comptime] i: usize, #[comptime] bits: usize) -> u32 {
    let (word, shift) = comptime!(place(bits, i));
    let mask = comptime!(((1u64 << bits) - 1) as u32);
    (*plane.index(word) >> shift) & mask
}

/// Word and shift of field `i` in a plane of `bits` bits per value.
fn place(bits: usize, i: usize) -> (usize, u32) {
    let (word, shift) = match bits {
        1 => (0, i),
        2 => (i % 8 / 4, 8 * (i % 4) + 2 * (i / 8)),
        4 => (i % 16 / 4, 8 * (i % 4) + 4 * (i / 16)),
        8 => (i / 4, 8 * (i % 4)),
        16 => (i / 2, 16 * (i % 2)),
        _ => (i, 0),
    };
    (word, shift as u32)
}

/// What is taken off a [`quantum`].
fn zero(format: PackedFormat) -> f32 {
    (format.zero() + if format.low_bits() == 8 { 128 } else { 0 }) as f32
}

/// Values of a block that share a scale.
fn group_len(format: PackedFormat) -> usize {
    match format.scale_kind() {
        ScaleKind::Super | ScaleKind::SuperMin { group: 16 } => 16,
        _ => BLOCK,
    }
}

/// `scale, offset` of each group of a block, such that `value = quantum * scale + offset`.
#[cube]
fn block_scales(
    words: &[u32],
    row: &PackedRow,
    block: usize,
    #[comptime] format: PackedFormat,
) -> Sequence<f32> {
    let zero = comptime!(zero(format));
    let mut scales = Sequence::<f32>::new();
    let supers_per_block = comptime!(SUPER_BLOCK / BLOCK);
    if comptime!(matches!(format.scale_kind(), ScaleKind::Single)) {
        let scale = half_value(half_word(words, row.scales, block));
        scales.push(scale);
        scales.push(scale * -zero);
    } else if comptime!(matches!(format.scale_kind(), ScaleKind::SingleMin)) {
        let word = words[row.scales + block * TILE_ROWS];
        scales.push(half_value(word & 0xffff));
        scales.push(half_value(word >> 16u32));
    } else if comptime!(matches!(format.scale_kind(), ScaleKind::Super)) {
        let d = half_value(half_word(words, row.supers, block / supers_per_block));
        let pair = half_word(words, row.scales, block);
        #[unroll]
        for group in 0..2u32 {
            // Flipping the sign bit of an i8 adds 128 to it.
            let signed = f32::cast_from(((pair >> comptime!(8 * group)) & 255) ^ 128) - 128.0;
            let scale = d * signed;
            scales.push(scale);
            scales.push(scale * -zero);
        }
    } else {
        let supers = words[row.supers + block / supers_per_block * TILE_ROWS];
        let d = half_value(supers & 0xffff);
        let dmin = half_value(supers >> 16u32);
        if comptime!(group_len(format) == BLOCK) {
            let pair = half_word(words, row.scales, block);
            scales.push(d * f32::cast_from(pair & 255));
            scales.push(-(dmin * f32::cast_from(pair >> 8u32)));
        } else {
            let word = words[row.scales + block * TILE_ROWS];
            #[unroll]
            for group in 0..2u32 {
                scales.push(d * f32::cast_from((word >> comptime!(16 * group)) & 255));
                scales.push(-(dmin * f32::cast_from((word >> comptime!(16 * group + 8)) & 255)));
            }
        }
    }
    scales
}

/// Entry `index` of a section of 16-bit entries, two a word.
#[cube]
fn half_word(words: &[u32], section: usize, index: usize) -> u32 {
    (words[section + index / 2 * TILE_ROWS] >> (index as u32 % 2 * 16)) & 0xffff
}

/// The IEEE half in the low 16 bits of a word whose other bits are 0. Infinities and NaN, which no weight has, come out as large
/// numbers.
///
/// GPUs may flush subnormal f32 to zero, so subnormal halves take a way of their own: they are multiples of `2^-24`.
#[cube]
fn half_value(bits: u32) -> f32 {
    let magnitude = bits & 0x7fff;
    // Exponents are biased by 15 in a half and by 127 in a single.
    let normal = f32::reinterpret((magnitude << 13u32) + comptime!(112u32 << 23));
    let subnormal = f32::cast_from(magnitude) * comptime!(1.0 / 16_777_216.0f32);
    let value = select(magnitude < 0x400, subnormal, normal);
    select(bits > 0x7fff, -value, value)
}
