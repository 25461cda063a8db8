//! Reading packed weights in the [`Interleave::Tiles32`](cinderlm_weights::Interleave) order, 32 values at a time.
//!
//! WGSL has neither 8-bit integers nor a portable f16, so fields are cut out of words by shifts and masks, with all places known when
//! the kernel is compiled. See `cinderlm_weights::packed` for the format.

use cinderlm_weights::packed::{BLOCK, SUPER_BLOCK, TILE_ROWS};
use cinderlm_weights::{FloatKind, PackedFormat, PackedLayout, ScaleKind};
use cubecl::prelude::*;

/// The numbers of a [`PackedLayout`] that depend on the matrix's shape. Kernels take them at run time, so that one kernel serves all
/// matrices of a format: compiling one takes a good part of a second in a browser.
#[derive(CubeType, CubeLaunch)]
pub(super) struct PackedShape {
    /// Blocks of 32 values in a row.
    pub(super) n_blocks: u32,
    low_words: u32,
    high_words: u32,
    scale_words: u32,
    super_words: u32,
    high_offset: u32,
    scale_offset: u32,
    super_offset: u32,
}

/// The shape of a matrix as an argument of a launch. All fit 32 bits, which `PackedLayout::check` sees to.
pub(super) fn packed_shape(layout: &PackedLayout) -> PackedShapeLaunch {
    let (format, n_cols) = (layout.format, layout.n_cols);
    PackedShapeLaunch::new(
        (n_cols / BLOCK) as u32,
        format.low_words_per_row(n_cols) as u32,
        format.high_words_per_row(n_cols) as u32,
        format.scale_words_per_row(n_cols) as u32,
        format.super_words_per_row(n_cols) as u32,
        layout.high_offset() as u32,
        layout.scale_offset() as u32,
        layout.super_offset() as u32,
    )
}

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
pub(super) fn packed_row(row: usize, shape: &PackedShape) -> PackedRow {
    row_of_tile(row / TILE_ROWS, row % TILE_ROWS, shape)
}

/// Finds row `lane` of a tile.
#[cube]
pub(super) fn row_of_tile(tile: usize, lane: usize, shape: &PackedShape) -> PackedRow {
    let tile = tile * TILE_ROWS;
    PackedRow {
        low: tile * shape.low_words as usize + lane,
        high: tile * shape.high_words as usize + lane + shape.high_offset as usize,
        scales: tile * shape.scale_words as usize + lane + shape.scale_offset as usize,
        supers: tile * shape.super_words as usize + lane + shape.super_offset as usize,
    }
}

/// Values of a [`PackedQuad`].
pub(super) const QUAD: usize = 4;

/// Four neighbouring values of a row, read but not yet unpacked.
#[derive(CubeType)]
pub(super) struct PackedQuad {
    /// Quanta of up to 8 bits lie in the bytes of one word; floats fill two or four.
    low: Sequence<u32>,
    high: u32,
}

/// Reads quad `quad` of the eight of block `block` of a row. Those that share words shift them to where the first would have its own.
#[cube]
pub(super) fn read_quad(
    words: &[u32],
    row: &PackedRow,
    block: usize,
    quad: usize,
    #[comptime] format: PackedFormat,
) -> PackedQuad {
    let bits = comptime!(format.low_bits());
    let mut low = Sequence::<u32>::new();
    if comptime!(bits >= 8) {
        #[unroll]
        for w in 0..comptime!(bits / 8) {
            let word = (block * comptime!(BLOCK / QUAD) + quad) * comptime!(bits / 8) + w;
            low.push(words[row.low + word * TILE_ROWS]);
        }
    } else {
        low.push(shared_word(words, row.low, block, quad, bits));
    }
    let high = match comptime!(format.high_bits()) {
        0usize => 0u32.runtime(),
        1usize => words[row.high + block * TILE_ROWS] >> (quad * QUAD) as u32,
        _ => shared_word(words, row.high, block, quad, 2usize),
    };
    PackedQuad { low, high }
}

/// The word of a quad in a plane of 2 or 4 bits per value, where `8 / bits` quads share each of a block's `bits` words.
#[cube]
fn shared_word(
    words: &[u32],
    section: usize,
    block: usize,
    quad: usize,
    #[comptime] bits: usize,
) -> u32 {
    words[section + (block * bits + quad % bits) * TILE_ROWS] >> (quad / bits * bits) as u32
}

/// The word of the quads `pair` and `pair + 4` of a block, in a format of 4 bits a quantum. Its top bit is flipped, for [`pair_quantum`].
#[cube]
pub(super) fn pair_word(
    words: &[u32],
    row: &PackedRow,
    block: usize,
    #[comptime] pair: usize,
) -> u32 {
    words[row.low + (block * comptime!(BLOCK / QUAD / 2) + pair) * TILE_ROWS]
        ^ comptime!(1u32 << 31)
}

/// Bits below quantum `i` in a [`pair_word`], where four of the first quad and four of the second lie in turns.
fn pair_place(i: usize) -> usize {
    i % QUAD * 8 + i / QUAD * 4
}

/// Quantum `i` of a [`pair_word`], four of the first quad and then four of the second, as many times as its place says: whoever multiplies by it
/// has multiplied by [`pair_factors`] before. It takes no shift, which software adapters do one invocation after another.
#[cube]
pub(super) fn pair_quantum(word: u32, #[comptime] i: usize) -> f32 {
    let value = small_float(word & comptime!(15u32 << pair_place(i)));
    if comptime!(pair_place(i) == 28) {
        // With its top bit flipped, the highest is too small by 8 and has a sign.
        value + comptime!(2_147_483_648.0f32)
    } else {
        value
    }
}

/// What activations of a quad are multiplied by for [`pair_quantum`], powers of two.
#[cube]
pub(super) fn pair_factors(#[comptime] is_second: bool) -> Vector<f32, Const<4>> {
    let mut factors = Vector::<f32, Const<4>>::new(0.0);
    #[unroll]
    for i in 0..QUAD {
        let quantum = comptime!(if is_second { QUAD + i } else { i });
        factors.insert(
            i,
            f32::new(comptime!(1.0 / (1u64 << pair_place(quantum)) as f32)),
        );
    }
    factors
}

/// Value `i` of a quad. Unpacking values one by one, where they are used, keeps few of them alive at a time.
#[cube]
pub(super) fn quad_value(
    quad: &PackedQuad,
    scale: &Scale,
    #[comptime] i: usize,
    #[comptime] format: PackedFormat,
) -> f32 {
    if comptime!(matches!(format.float_kind(), Some(FloatKind::F32))) {
        f32::reinterpret(*quad.low.index(i))
    } else if comptime!(matches!(format.float_kind(), Some(FloatKind::BF16))) {
        f32::reinterpret(half_of_word(&quad.low, i) << 16u32)
    } else if comptime!(format.float_kind().is_some()) {
        half_value(half_of_word(&quad.low, i))
    } else {
        quantum(quad, i, format) * scale.scale + scale.offset
    }
}

/// Entry `i` of words that hold two each.
#[cube]
fn half_of_word(low: &Sequence<u32>, #[comptime] i: usize) -> u32 {
    (*low.index(comptime!(i / 2)) >> comptime!(16 * (i as u32 % 2))) & 0xffff
}

/// Quantum `i` of a quad, unsigned: signed ones are moved up by 128, which [`zero`] takes into account.
#[cube]
fn quantum(quad: &PackedQuad, #[comptime] i: usize, #[comptime] format: PackedFormat) -> f32 {
    let (low_bits, high_bits) = comptime!((format.low_bits() as u32, format.high_bits() as u32));
    let byte = *quad.low.index(0usize) >> comptime!(8 * i as u32);
    let low = byte & comptime!((1u32 << low_bits) - 1);
    if comptime!(low_bits == 8) {
        small_float(low ^ 128u32)
    } else if comptime!(high_bits == 0) {
        small_float(low)
    } else {
        let shift = comptime!(if high_bits == 1 {
            i as u32
        } else {
            8 * i as u32
        });
        let high = (quad.high >> shift) & comptime!((1u32 << high_bits) - 1);
        small_float(low | (high << low_bits))
    }
}

/// The bits of a signed integer as a float. CPUs under software adapters convert signed integers in one instruction, unsigned ones in several.
#[cube]
fn small_float(bits: u32) -> f32 {
    f32::cast_from(i32::cast_from(bits))
}

/// What is taken off a [`quantum`].
fn zero(format: PackedFormat) -> f32 {
    (format.zero() + if format.low_bits() == 8 { 128 } else { 0 }) as f32
}

/// What turns quanta into values: `value = quantum * scale + offset`.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Scale {
    pub(super) scale: f32,
    pub(super) offset: f32,
}

/// The scale of half `half`, 0 or 1, of block `block`.
#[cube]
pub(super) fn read_scale(
    words: &[u32],
    row: &PackedRow,
    block: usize,
    half: usize,
    #[comptime] format: PackedFormat,
) -> Scale {
    let zero = comptime!(zero(format));
    let supers_per_block = comptime!(SUPER_BLOCK / BLOCK);
    if comptime!(matches!(format.scale_kind(), ScaleKind::None)) {
        Scale {
            scale: f32::new(1.0),
            offset: f32::new(0.0),
        }
    } else if comptime!(matches!(format.scale_kind(), ScaleKind::Single)) {
        let scale = half_value(half_word(words, row.scales, block));
        Scale {
            scale,
            offset: scale * -zero,
        }
    } else if comptime!(matches!(format.scale_kind(), ScaleKind::SingleMin)) {
        let word = words[row.scales + block * TILE_ROWS];
        Scale {
            scale: half_value(word & 0xffff),
            offset: half_value(word >> 16u32),
        }
    } else if comptime!(matches!(format.scale_kind(), ScaleKind::Super)) {
        let d = half_value(half_word(words, row.supers, block / supers_per_block));
        let pair = half_word(words, row.scales, block);
        // Flipping the sign bit of an i8 adds 128 to it.
        let signed = small_float(((pair >> (8 * half as u32)) & 255) ^ 128) - 128.0;
        let scale = d * signed;
        Scale {
            scale,
            offset: scale * -zero,
        }
    } else {
        let supers = words[row.supers + block / supers_per_block * TILE_ROWS];
        let pair = if comptime!(has_scale_per_block(format)) {
            half_word(words, row.scales, block)
        } else {
            half_word(words, row.scales, 2 * block + half)
        };
        Scale {
            scale: half_value(supers & 0xffff) * small_float(pair & 255),
            offset: -(half_value(supers >> 16u32) * small_float(pair >> 8u32)),
        }
    }
}

/// Whether both halves of a block have the same scale.
pub(super) fn has_scale_per_block(format: PackedFormat) -> bool {
    !matches!(
        format.scale_kind(),
        ScaleKind::Super | ScaleKind::SuperMin { group: 16 }
    )
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
    let normal = f32::reinterpret(magnitude * comptime!(1u32 << 13) + comptime!(112u32 << 23));
    let subnormal = small_float(magnitude) * comptime!(1.0 / 16_777_216.0f32);
    let value = select(magnitude < 0x400, subnormal, normal);
    select(bits > 0x7fff, -value, value)
}
