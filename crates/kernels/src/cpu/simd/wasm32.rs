//! The vector operations as WebAssembly `simd128` instructions.

use core::arch::wasm32 as wasm;
use core::arch::wasm32::v128;
use core::ops::{Add, BitAnd, BitOr, Div, Mul, Sub};

/// Sixteen bytes: packed weights before they are widened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes(v128);

/// Eight signed 16-bit lanes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct I16x8(v128);

/// Four signed 32-bit lanes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct I32x4(v128);

/// Four single-precision lanes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct F32x4(v128);

/// Reads sixteen bytes; `T` has exactly that size.
#[inline(always)]
fn load<T: Copy>(lanes: &T) -> v128 {
    const { assert!(size_of::<T>() == 16) };
    // SAFETY: the reference covers the sixteen bytes that are read (checked above), and v128.load takes any alignment.
    unsafe { wasm::v128_load(core::ptr::from_ref(lanes).cast()) }
}

/// Reads eight bytes into the low half and zeros the high half.
#[inline(always)]
fn load_half(words: &[u32; 2]) -> v128 {
    // SAFETY: the reference covers the eight bytes that are read, and v128.load64_zero takes any alignment.
    unsafe { wasm::v128_load64_zero(core::ptr::from_ref(words).cast()) }
}

/// Writes sixteen bytes; `T` is an array of exactly that size, whose lanes take any bits.
#[inline(always)]
fn store<T: Copy>(lanes: &mut T, value: v128) {
    const { assert!(size_of::<T>() == 16) };
    // SAFETY: the reference covers the sixteen bytes that are written (checked above), v128.store takes any alignment, and the two
    // callers pass arrays of i16 and f32, for which every bit pattern is a value.
    unsafe { wasm::v128_store(core::ptr::from_mut(lanes).cast(), value) }
}

impl Bytes {
    /// Four little-endian words.
    #[inline(always)]
    pub(crate) fn load(words: &[u32; 4]) -> Self {
        Self(load(words))
    }

    /// Two words in the low half, zeros in the high half.
    #[inline(always)]
    pub(crate) fn load_half(words: &[u32; 2]) -> Self {
        Self(load_half(words))
    }

    /// Bit `i` of `bits` (0..16) fills byte `i`: 0xff or 0.
    #[inline(always)]
    pub(crate) fn spread(bits: u16) -> Self {
        let source = wasm::u16x8_splat(bits);
        let bytes =
            wasm::i8x16_shuffle::<0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1>(source, source);
        let places = wasm::u8x16(1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128);
        Self(wasm::i8x16_eq(wasm::v128_and(bytes, places), places))
    }

    /// The same byte in all sixteen places.
    #[inline(always)]
    pub(crate) fn splat(byte: u8) -> Self {
        Self(wasm::u8x16_splat(byte))
    }

    /// Shifts 16-bit lanes left: bits cross from the even byte into the odd one.
    #[inline(always)]
    pub(crate) fn shl_pairs<const N: u32>(self) -> Self {
        Self(wasm::i16x8_shl(self.0, N))
    }

    /// Shifts 16-bit lanes right: bits cross from the odd byte into the even one.
    #[inline(always)]
    pub(crate) fn shr_pairs<const N: u32>(self) -> Self {
        Self(wasm::u16x8_shr(self.0, N))
    }

    /// The low halves of `self` and `high`, one after the other.
    #[inline(always)]
    pub(crate) fn join_low(self, high: Self) -> Self {
        Self(wasm::i64x2_shuffle::<0, 2>(self.0, high.0))
    }

    /// Sixteen unsigned bytes as 16-bit lanes: the even ones, then the odd ones.
    #[inline(always)]
    pub(crate) fn split_unsigned(self) -> [I16x8; 2] {
        [
            I16x8(wasm::v128_and(self.0, wasm::u16x8_splat(0xff))),
            I16x8(wasm::u16x8_shr(self.0, 8)),
        ]
    }

    /// Sixteen two's-complement bytes as 16-bit lanes: the even ones, then the odd ones.
    #[inline(always)]
    pub(crate) fn split_signed(self) -> [I16x8; 2] {
        [
            I16x8(wasm::i16x8_shr(wasm::i16x8_shl(self.0, 8), 8)),
            I16x8(wasm::i16x8_shr(self.0, 8)),
        ]
    }

    /// Sixteen two's-complement bytes as 16-bit lanes, in order.
    #[inline(always)]
    pub(crate) fn widen_signed(self) -> [I16x8; 2] {
        [
            I16x8(wasm::i16x8_extend_low_i8x16(self.0)),
            I16x8(wasm::i16x8_extend_high_i8x16(self.0)),
        ]
    }
}

impl I16x8 {
    /// Eight lanes from memory.
    #[inline(always)]
    pub(crate) fn load(lanes: &[i16; 8]) -> Self {
        Self(load(lanes))
    }

    /// The halves of four words, low half first.
    #[inline(always)]
    pub(crate) fn load_words(words: &[u32; 4]) -> Self {
        Self(load(words))
    }

    /// The same value in all lanes.
    #[inline(always)]
    pub(crate) fn splat(value: i16) -> Self {
        Self(wasm::i16x8_splat(value))
    }

    /// Writes the eight lanes.
    #[inline(always)]
    pub(crate) fn store(self, lanes: &mut [i16; 8]) {
        store(lanes, self.0);
    }

    /// Products of neighbouring lanes added in pairs: lane `i` is `a[2i]*b[2i] + a[2i+1]*b[2i+1]`.
    #[inline(always)]
    pub(crate) fn dot(self, other: Self) -> I32x4 {
        I32x4(wasm::i32x4_dot_i16x8(self.0, other.0))
    }

    /// The even lanes of `self`, then those of `next`; and so the odd ones.
    #[inline(always)]
    pub(crate) fn split(self, next: Self) -> [Self; 2] {
        [
            Self(wasm::i16x8_shuffle::<0, 2, 4, 6, 8, 10, 12, 14>(
                self.0, next.0,
            )),
            Self(wasm::i16x8_shuffle::<1, 3, 5, 7, 9, 11, 13, 15>(
                self.0, next.0,
            )),
        ]
    }

    /// The lanes of `self` and `odd` in turns: what [`I16x8::split`] took apart.
    #[inline(always)]
    pub(crate) fn zip(self, odd: Self) -> [Self; 2] {
        [
            Self(wasm::i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(
                self.0, odd.0,
            )),
            Self(wasm::i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(
                self.0, odd.0,
            )),
        ]
    }

    /// Lanes shifted right, zeros coming in.
    #[inline(always)]
    pub(crate) fn shr<const N: u32>(self) -> Self {
        Self(wasm::u16x8_shr(self.0, N))
    }

    /// The smaller of each pair of lanes, read as unsigned.
    #[inline(always)]
    pub(crate) fn min_unsigned(self, other: Self) -> Self {
        Self(wasm::u16x8_min(self.0, other.0))
    }

    /// Whether no lane is zero.
    #[inline(always)]
    pub(crate) fn are_all_nonzero(self) -> bool {
        wasm::i16x8_all_true(self.0)
    }

    /// Eight signed lanes as 32-bit lanes, in order.
    #[inline(always)]
    pub(crate) fn widen(self) -> [I32x4; 2] {
        [
            I32x4(wasm::i32x4_extend_low_i16x8(self.0)),
            I32x4(wasm::i32x4_extend_high_i16x8(self.0)),
        ]
    }
}

impl I32x4 {
    /// Four words from memory, read as signed lanes.
    #[inline(always)]
    pub(crate) fn load(words: &[u32; 4]) -> Self {
        Self(load(words))
    }

    /// The eight 16-bit halves of four words as unsigned lanes: words 0 and 1, then words 2 and 3, low half first.
    #[inline(always)]
    pub(crate) fn load_halves(words: &[u32; 4]) -> [Self; 2] {
        let halves = load(words);
        [
            Self(wasm::u32x4_extend_low_u16x8(halves)),
            Self(wasm::u32x4_extend_high_u16x8(halves)),
        ]
    }

    /// The same value in all lanes.
    #[inline(always)]
    pub(crate) fn splat(value: i32) -> Self {
        Self(wasm::i32x4_splat(value))
    }

    /// All lanes shifted left.
    #[inline(always)]
    pub(crate) fn shl<const N: u32>(self) -> Self {
        Self(wasm::i32x4_shl(self.0, N))
    }

    /// All lanes shifted right, zeros coming in.
    #[inline(always)]
    pub(crate) fn shr<const N: u32>(self) -> Self {
        Self(wasm::u32x4_shr(self.0, N))
    }

    /// All lanes shifted right, the sign coming in.
    #[inline(always)]
    pub(crate) fn shr_signed<const N: u32>(self) -> Self {
        Self(wasm::i32x4_shr(self.0, N))
    }

    /// All bits set in lanes where `self < other`, signed.
    #[inline(always)]
    pub(crate) fn less_than(self, other: Self) -> Self {
        Self(wasm::i32x4_lt(self.0, other.0))
    }

    /// The larger of each pair of lanes.
    #[inline(always)]
    pub(crate) fn max(self, other: Self) -> Self {
        Self(wasm::i32x4_max(self.0, other.0))
    }

    /// Lane `i` is the sum of the lanes of vector `i`.
    #[inline(always)]
    pub(crate) fn sums([a, b, c, d]: [Self; 4]) -> Self {
        let halves = |a: Self, b: Self| {
            let low = Self(wasm::i32x4_shuffle::<0, 4, 1, 5>(a.0, b.0));
            low + Self(wasm::i32x4_shuffle::<2, 6, 3, 7>(a.0, b.0))
        };
        let (first, second) = (halves(a, b), halves(c, d));
        let even = Self(wasm::i64x2_shuffle::<0, 2>(first.0, second.0));
        even + Self(wasm::i64x2_shuffle::<1, 3>(first.0, second.0))
    }

    /// Lanes converted to the nearest f32, ties to even.
    #[inline(always)]
    pub(crate) fn to_f32(self) -> F32x4 {
        F32x4(wasm::f32x4_convert_i32x4(self.0))
    }

    /// The lanes of `self`, then those of `other`, saturated to 16 bits.
    #[inline(always)]
    pub(crate) fn narrow(self, other: Self) -> I16x8 {
        I16x8(wasm::i16x8_narrow_i32x4(self.0, other.0))
    }

    /// The same bits read as f32.
    #[inline(always)]
    pub(crate) fn bits_to_f32(self) -> F32x4 {
        F32x4(self.0)
    }

    /// The lanes.
    #[inline(always)]
    pub(crate) fn to_array(self) -> [i32; 4] {
        [
            wasm::i32x4_extract_lane::<0>(self.0),
            wasm::i32x4_extract_lane::<1>(self.0),
            wasm::i32x4_extract_lane::<2>(self.0),
            wasm::i32x4_extract_lane::<3>(self.0),
        ]
    }
}

impl F32x4 {
    /// Four lanes from memory.
    #[inline(always)]
    pub(crate) fn load(lanes: &[f32; 4]) -> Self {
        Self(load(lanes))
    }

    /// Writes the four lanes.
    #[inline(always)]
    pub(crate) fn store(self, lanes: &mut [f32; 4]) {
        store(lanes, self.0);
    }

    /// The same value in all lanes.
    #[inline(always)]
    pub(crate) fn splat(value: f32) -> Self {
        Self(wasm::f32x4_splat(value))
    }

    /// Lanes without their sign.
    #[inline(always)]
    pub(crate) fn abs(self) -> Self {
        Self(wasm::f32x4_abs(self.0))
    }

    /// The larger of each pair of lanes; that of `self` when either is NaN.
    #[inline(always)]
    pub(crate) fn max(self, other: Self) -> Self {
        Self(wasm::f32x4_pmax(self.0, other.0))
    }

    /// The smaller of each pair of lanes; that of `self` when either is NaN.
    #[inline(always)]
    pub(crate) fn min(self, other: Self) -> Self {
        Self(wasm::f32x4_pmin(self.0, other.0))
    }

    /// The same bits read as signed lanes.
    #[inline(always)]
    pub(crate) fn to_bits(self) -> I32x4 {
        I32x4(self.0)
    }

    /// Bits of `self` kept where `mask` has them set.
    #[inline(always)]
    pub(crate) fn masked(self, mask: I32x4) -> Self {
        Self(wasm::v128_and(self.0, mask.0))
    }

    /// Bits of `self` joined with bits of `other`.
    #[inline(always)]
    pub(crate) fn or_bits(self, other: I32x4) -> Self {
        Self(wasm::v128_or(self.0, other.0))
    }

    /// The lanes of `self` and `odd` in turns.
    #[inline(always)]
    pub(crate) fn zip(self, odd: Self) -> [Self; 2] {
        [
            Self(wasm::i32x4_shuffle::<0, 4, 1, 5>(self.0, odd.0)),
            Self(wasm::i32x4_shuffle::<2, 6, 3, 7>(self.0, odd.0)),
        ]
    }

    /// Lane `i` is [`F32x4::sum`] of vector `i`.
    #[inline(always)]
    pub(crate) fn sums([a, b, c, d]: [Self; 4]) -> Self {
        let low = [
            wasm::i32x4_shuffle::<0, 4, 1, 5>(a.0, b.0),
            wasm::i32x4_shuffle::<0, 4, 1, 5>(c.0, d.0),
        ];
        let high = [
            wasm::i32x4_shuffle::<2, 6, 3, 7>(a.0, b.0),
            wasm::i32x4_shuffle::<2, 6, 3, 7>(c.0, d.0),
        ];
        let lane = |halves: [v128; 2]| {
            let even = Self(wasm::i64x2_shuffle::<0, 2>(halves[0], halves[1]));
            let odd = Self(wasm::i64x2_shuffle::<1, 3>(halves[0], halves[1]));
            even + odd
        };
        lane(low) + lane(high)
    }

    /// The lanes.
    #[inline(always)]
    pub(crate) fn to_array(self) -> [f32; 4] {
        [
            wasm::f32x4_extract_lane::<0>(self.0),
            wasm::f32x4_extract_lane::<1>(self.0),
            wasm::f32x4_extract_lane::<2>(self.0),
            wasm::f32x4_extract_lane::<3>(self.0),
        ]
    }
}

macro_rules! lanewise {
    ($type:ident, $trait:ident, $method:ident, $instruction:ident) => {
        impl $trait for $type {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(wasm::$instruction(self.0, other.0))
            }
        }
    };
}

lanewise!(Bytes, BitAnd, bitand, v128_and);
lanewise!(Bytes, BitOr, bitor, v128_or);
lanewise!(I16x8, Add, add, i16x8_add);
lanewise!(I16x8, BitAnd, bitand, v128_and);
lanewise!(I16x8, Sub, sub, i16x8_sub);
lanewise!(I32x4, Add, add, i32x4_add);
lanewise!(I32x4, Sub, sub, i32x4_sub);
lanewise!(I32x4, BitAnd, bitand, v128_and);
lanewise!(I32x4, BitOr, bitor, v128_or);
lanewise!(F32x4, Add, add, f32x4_add);
lanewise!(F32x4, Sub, sub, f32x4_sub);
lanewise!(F32x4, Mul, mul, f32x4_mul);
lanewise!(F32x4, Div, div, f32x4_div);
