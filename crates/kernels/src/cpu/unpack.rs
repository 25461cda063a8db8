//! Quanta out of their bit planes: a block of 32 at a time, widened to 16 bits.
//!
//! Of each sixteen columns the even ones come first, then the odd ones: so bytes are widened by a mask and a shift in place.

use super::simd::{Bytes, I16x8};

/// The planes of a family of formats.
pub(super) trait Planes {
    /// The low plane's words of one block.
    type Low: bytemuck::Pod;
    /// The high plane's words per block.
    const HIGH_WORDS: usize;
    /// Values under one scale: 16 or 32.
    const GROUP: usize;
    /// Whether quanta carry their own sign: then there is neither zero point nor minimum.
    const SIGNED: bool = false;

    /// Quanta of one block: even and odd columns of its first half, then of its second. `high` starts with the high plane's words of that block.
    fn unpack(low: &Self::Low, high: &[u32]) -> [I16x8; 4];
}

/// Two bits: Q2_K.
pub(super) struct Bits2;
/// Two bits and one: Q3_K.
pub(super) struct Bits3;
/// Four bits: Q4_0, Q4_1, Q4_K.
pub(super) struct Bits4;
/// Four bits and one: Q5_0, Q5_1, Q5_K.
pub(super) struct Bits5;
/// Four bits and two: Q6_K.
pub(super) struct Bits6;
/// Eight bits, signed: Q8_0.
pub(super) struct Bits8;

impl Planes for Bits2 {
    type Low = [u32; 2];
    const HIGH_WORDS: usize = 0;
    const GROUP: usize = 16;

    #[inline(always)]
    fn unpack(low: &[u32; 2], _: &[u32]) -> [I16x8; 4] {
        widen(crumbs::<0>(low))
    }
}

impl Planes for Bits3 {
    type Low = [u32; 2];
    const HIGH_WORDS: usize = 1;
    const GROUP: usize = 16;

    #[inline(always)]
    fn unpack(low: &[u32; 2], high: &[u32]) -> [I16x8; 4] {
        widen(join(crumbs::<0>(low), bits(high[0], 1 << 2)))
    }
}

impl Planes for Bits4 {
    type Low = [u32; 4];
    const HIGH_WORDS: usize = 0;
    const GROUP: usize = 32;

    #[inline(always)]
    fn unpack(low: &[u32; 4], _: &[u32]) -> [I16x8; 4] {
        let (pairs, mask) = (I16x8::load_words(low), I16x8::splat(0x0f));
        [
            pairs & mask,
            pairs.shr::<8>() & mask,
            pairs.shr::<4>() & mask,
            pairs.shr::<12>(),
        ]
    }
}

impl Planes for Bits5 {
    type Low = [u32; 4];
    const HIGH_WORDS: usize = 1;
    const GROUP: usize = 32;

    #[inline(always)]
    fn unpack(low: &[u32; 4], high: &[u32]) -> [I16x8; 4] {
        widen(join(nibbles(low), bits(high[0], 1 << 4)))
    }
}

impl Planes for Bits6 {
    type Low = [u32; 4];
    const HIGH_WORDS: usize = 2;
    const GROUP: usize = 16;

    #[inline(always)]
    fn unpack(low: &[u32; 4], high: &[u32]) -> [I16x8; 4] {
        widen(join(nibbles(low), crumbs::<4>(&[high[0], high[1]])))
    }
}

impl Planes for Bits8 {
    type Low = [u32; 8];
    const HIGH_WORDS: usize = 0;
    const GROUP: usize = 32;
    const SIGNED: bool = true;

    #[inline(always)]
    fn unpack(low: &[u32; 8], _: &[u32]) -> [I16x8; 4] {
        let [[a, b], [c, d]] = [0, 4]
            .map(|w| Bytes::load(&[low[w], low[w + 1], low[w + 2], low[w + 3]]).split_signed());
        [a, b, c, d]
    }
}

/// Sixteen low nibbles, then sixteen high ones.
#[inline(always)]
fn nibbles(words: &[u32; 4]) -> [Bytes; 2] {
    let (bytes, mask) = (Bytes::load(words), Bytes::splat(0x0f));
    [bytes & mask, bytes.shr_pairs::<4>() & mask]
}

/// The four two-bit fields of each of eight bytes, field by field, moved up to bit `AT` of their bytes (0 or 4).
#[inline(always)]
fn crumbs<const AT: u32>(words: &[u32; 2]) -> [Bytes; 2] {
    let (bytes, mask) = (Bytes::load_half(words), Bytes::splat(3 << AT));
    // Bits that cross into the neighbouring byte are masked off.
    let fields = if AT == 0 {
        [
            bytes,
            bytes.shr_pairs::<2>(),
            bytes.shr_pairs::<4>(),
            bytes.shr_pairs::<6>(),
        ]
    } else {
        [
            bytes.shl_pairs::<4>(),
            bytes.shl_pairs::<2>(),
            bytes,
            bytes.shr_pairs::<2>(),
        ]
    };
    let [a, b, c, d] = fields.map(|field| field & mask);
    [a.join_low(b), c.join_low(d)]
}

/// One byte per bit of `word`: `value` where it is set, 0 elsewhere.
#[inline(always)]
fn bits(word: u32, value: u8) -> [Bytes; 2] {
    let value = Bytes::splat(value);
    [
        Bytes::spread(word as u16) & value,
        Bytes::spread((word >> 16) as u16) & value,
    ]
}

#[inline(always)]
fn join(low: [Bytes; 2], high: [Bytes; 2]) -> [Bytes; 2] {
    [low[0] | high[0], low[1] | high[1]]
}

#[inline(always)]
fn widen([first, second]: [Bytes; 2]) -> [I16x8; 4] {
    let [a, b] = first.split_unsigned();
    let [c, d] = second.split_unsigned();
    [a, b, c, d]
}
