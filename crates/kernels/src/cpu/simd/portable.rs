//! The vector operations on arrays, for targets without `simd128`. The compiler vectorises most of them.

use core::array::from_fn;
use core::ops::{Add, BitAnd, BitOr, Div, Mul, Sub};

/// Sixteen bytes: packed weights before they are widened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes([u8; 16]);

/// Eight signed 16-bit lanes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct I16x8([i16; 8]);

/// Four signed 32-bit lanes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct I32x4([i32; 4]);

/// Four single-precision lanes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct F32x4([f32; 4]);

impl Bytes {
    /// Four little-endian words.
    #[inline(always)]
    pub(crate) fn load(words: &[u32; 4]) -> Self {
        Self::from_words(*words)
    }

    /// Two words in the low half, zeros in the high half.
    #[inline(always)]
    pub(crate) fn load_half(words: &[u32; 2]) -> Self {
        Self::from_words([words[0], words[1], 0, 0])
    }

    /// Bit `i` of `bits` (0..16) fills byte `i`: 0xff or 0.
    #[inline(always)]
    pub(crate) fn spread(bits: u16) -> Self {
        Self(from_fn(|i| if bits >> i & 1 == 1 { 0xff } else { 0 }))
    }

    /// The same byte in all sixteen places.
    #[inline(always)]
    pub(crate) fn splat(byte: u8) -> Self {
        Self([byte; 16])
    }

    /// Shifts 16-bit lanes left: bits cross from the even byte into the odd one.
    #[inline(always)]
    pub(crate) fn shl_pairs<const N: u32>(self) -> Self {
        self.map_pairs(|pair| pair << N)
    }

    /// Shifts 16-bit lanes right: bits cross from the odd byte into the even one.
    #[inline(always)]
    pub(crate) fn shr_pairs<const N: u32>(self) -> Self {
        self.map_pairs(|pair| pair >> N)
    }

    /// The low halves of `self` and `high`, one after the other.
    #[inline(always)]
    pub(crate) fn join_low(self, high: Self) -> Self {
        Self(from_fn(|i| if i < 8 { self.0[i] } else { high.0[i - 8] }))
    }

    /// Sixteen unsigned bytes as 16-bit lanes: the even ones, then the odd ones.
    #[inline(always)]
    pub(crate) fn split_unsigned(self) -> [I16x8; 2] {
        [0, 1].map(|odd| I16x8(from_fn(|i| i16::from(self.0[2 * i + odd]))))
    }

    /// Sixteen two's-complement bytes as 16-bit lanes: the even ones, then the odd ones.
    #[inline(always)]
    pub(crate) fn split_signed(self) -> [I16x8; 2] {
        [0, 1].map(|odd| I16x8(from_fn(|i| i16::from(self.0[2 * i + odd] as i8))))
    }

    /// Sixteen two's-complement bytes as 16-bit lanes, in order.
    #[inline(always)]
    pub(crate) fn widen_signed(self) -> [I16x8; 2] {
        [0, 8].map(|start| I16x8(from_fn(|i| i16::from(self.0[start + i] as i8))))
    }

    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        Self(from_fn(|i| words[i / 4].to_le_bytes()[i % 4]))
    }

    #[inline(always)]
    fn map_pairs(self, shift: impl Fn(u16) -> u16) -> Self {
        Self(from_fn(|i| {
            let pair = u16::from_le_bytes([self.0[i & !1], self.0[i | 1]]);
            shift(pair).to_le_bytes()[i & 1]
        }))
    }
}

impl I16x8 {
    /// Eight lanes from memory.
    #[inline(always)]
    pub(crate) fn load(lanes: &[i16; 8]) -> Self {
        Self(*lanes)
    }

    /// The halves of four words, low half first.
    #[inline(always)]
    pub(crate) fn load_words(words: &[u32; 4]) -> Self {
        Self(from_fn(|i| (words[i / 2] >> (16 * (i % 2))) as i16))
    }

    /// The same value in all lanes.
    #[inline(always)]
    pub(crate) fn splat(value: i16) -> Self {
        Self([value; 8])
    }

    /// Writes the eight lanes.
    #[inline(always)]
    pub(crate) fn store(self, lanes: &mut [i16; 8]) {
        *lanes = self.0;
    }

    /// Products of neighbouring lanes added in pairs: lane `i` is `a[2i]*b[2i] + a[2i+1]*b[2i+1]`.
    #[inline(always)]
    pub(crate) fn dot(self, other: Self) -> I32x4 {
        I32x4(from_fn(|i| {
            let product = |lane: usize| i32::from(self.0[lane]) * i32::from(other.0[lane]);
            product(2 * i) + product(2 * i + 1)
        }))
    }

    /// The even lanes of `self`, then those of `next`; and so the odd ones.
    #[inline(always)]
    pub(crate) fn split(self, next: Self) -> [Self; 2] {
        [0, 1].map(|odd| {
            Self(from_fn(|i| match 2 * i + odd {
                lane @ 0..8 => self.0[lane],
                lane => next.0[lane - 8],
            }))
        })
    }

    /// The lanes of `self` and `odd` in turns: what [`I16x8::split`] took apart.
    #[inline(always)]
    pub(crate) fn zip(self, odd: Self) -> [Self; 2] {
        [0, 4].map(|start| Self(from_fn(|i| [self, odd][i % 2].0[start + i / 2])))
    }

    /// Lanes shifted right, zeros coming in.
    #[inline(always)]
    pub(crate) fn shr<const N: u32>(self) -> Self {
        Self(self.0.map(|lane| (lane as u16 >> N) as i16))
    }

    /// The smaller of each pair of lanes, read as unsigned.
    #[inline(always)]
    pub(crate) fn min_unsigned(self, other: Self) -> Self {
        Self(from_fn(|i| {
            (self.0[i] as u16).min(other.0[i] as u16) as i16
        }))
    }

    /// Whether no lane is zero.
    #[inline(always)]
    pub(crate) fn are_all_nonzero(self) -> bool {
        !self.0.contains(&0)
    }

    /// Eight signed lanes as 32-bit lanes, in order.
    #[inline(always)]
    pub(crate) fn widen(self) -> [I32x4; 2] {
        [0, 4].map(|start| I32x4(from_fn(|i| i32::from(self.0[start + i]))))
    }
}

impl I32x4 {
    /// Four words from memory, read as signed lanes.
    #[inline(always)]
    pub(crate) fn load(words: &[u32; 4]) -> Self {
        Self(words.map(|word| word as i32))
    }

    /// The eight 16-bit halves of four words as unsigned lanes: words 0 and 1, then words 2 and 3, low half first.
    #[inline(always)]
    pub(crate) fn load_halves(words: &[u32; 4]) -> [Self; 2] {
        [0, 2].map(|start| {
            Self(from_fn(|i| {
                (words[start + i / 2] >> (16 * (i % 2)) & 0xffff) as i32
            }))
        })
    }

    /// The same value in all lanes.
    #[inline(always)]
    pub(crate) fn splat(value: i32) -> Self {
        Self([value; 4])
    }

    /// All lanes shifted left.
    #[inline(always)]
    pub(crate) fn shl<const N: u32>(self) -> Self {
        Self(self.0.map(|lane| lane << N))
    }

    /// All lanes shifted right, zeros coming in.
    #[inline(always)]
    pub(crate) fn shr<const N: u32>(self) -> Self {
        Self(self.0.map(|lane| (lane as u32 >> N) as i32))
    }

    /// All lanes shifted right, the sign coming in.
    #[inline(always)]
    pub(crate) fn shr_signed<const N: u32>(self) -> Self {
        Self(self.0.map(|lane| lane >> N))
    }

    /// All bits set in lanes where `self < other`, signed.
    #[inline(always)]
    pub(crate) fn less_than(self, other: Self) -> Self {
        Self(from_fn(|i| if self.0[i] < other.0[i] { -1 } else { 0 }))
    }

    /// The larger of each pair of lanes.
    #[inline(always)]
    pub(crate) fn max(self, other: Self) -> Self {
        Self(from_fn(|i| self.0[i].max(other.0[i])))
    }

    /// Lane `i` is the sum of the lanes of vector `i`.
    #[inline(always)]
    pub(crate) fn sums(vectors: [Self; 4]) -> Self {
        Self(vectors.map(|vector| vector.0.into_iter().fold(0, i32::wrapping_add)))
    }

    /// Lanes converted to the nearest f32, ties to even.
    #[inline(always)]
    pub(crate) fn to_f32(self) -> F32x4 {
        F32x4(self.0.map(|lane| lane as f32))
    }

    /// The lanes of `self`, then those of `other`, saturated to 16 bits.
    #[inline(always)]
    pub(crate) fn narrow(self, other: Self) -> I16x8 {
        I16x8(from_fn(|i| {
            let lane = if i < 4 { self.0[i] } else { other.0[i - 4] };
            lane.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
        }))
    }

    /// The same bits read as f32.
    #[inline(always)]
    pub(crate) fn bits_to_f32(self) -> F32x4 {
        F32x4(self.0.map(|lane| f32::from_bits(lane as u32)))
    }

    /// The lanes.
    #[inline(always)]
    pub(crate) fn to_array(self) -> [i32; 4] {
        self.0
    }
}

impl F32x4 {
    /// Four lanes from memory.
    #[inline(always)]
    pub(crate) fn load(lanes: &[f32; 4]) -> Self {
        Self(*lanes)
    }

    /// Writes the four lanes.
    #[inline(always)]
    pub(crate) fn store(self, lanes: &mut [f32; 4]) {
        *lanes = self.0;
    }

    /// The same value in all lanes.
    #[inline(always)]
    pub(crate) fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    /// Lanes without their sign.
    #[inline(always)]
    pub(crate) fn abs(self) -> Self {
        Self(self.0.map(f32::abs))
    }

    /// The larger of each pair of lanes; that of `self` when either is NaN.
    #[inline(always)]
    pub(crate) fn max(self, other: Self) -> Self {
        self.choose(other, |a, b| a < b)
    }

    /// The smaller of each pair of lanes; that of `self` when either is NaN.
    #[inline(always)]
    pub(crate) fn min(self, other: Self) -> Self {
        self.choose(other, |a, b| b < a)
    }

    /// The same bits read as signed lanes.
    #[inline(always)]
    pub(crate) fn to_bits(self) -> I32x4 {
        I32x4(self.0.map(|lane| lane.to_bits() as i32))
    }

    /// Bits of `self` kept where `mask` has them set.
    #[inline(always)]
    pub(crate) fn masked(self, mask: I32x4) -> Self {
        Self(from_fn(|i| {
            f32::from_bits(self.0[i].to_bits() & mask.0[i] as u32)
        }))
    }

    /// Bits of `self` joined with bits of `other`.
    #[inline(always)]
    pub(crate) fn or_bits(self, other: I32x4) -> Self {
        Self(from_fn(|i| {
            f32::from_bits(self.0[i].to_bits() | other.0[i] as u32)
        }))
    }

    /// The lanes of `self` and `odd` in turns.
    #[inline(always)]
    pub(crate) fn zip(self, odd: Self) -> [Self; 2] {
        [0, 2].map(|start| Self(from_fn(|i| [self, odd][i % 2].0[start + i / 2])))
    }

    /// Lane `i` is [`F32x4::sum`] of vector `i`.
    #[inline(always)]
    pub(crate) fn sums(vectors: [Self; 4]) -> Self {
        Self(vectors.map(Self::sum))
    }

    /// The lanes.
    #[inline(always)]
    pub(crate) fn to_array(self) -> [f32; 4] {
        self.0
    }

    #[inline(always)]
    fn choose(self, other: Self, is_other: impl Fn(f32, f32) -> bool) -> Self {
        Self(from_fn(|i| {
            let (own, other) = (self.0[i], other.0[i]);
            if is_other(own, other) { other } else { own }
        }))
    }
}

macro_rules! lanewise {
    ($type:ident, $trait:ident, $method:ident, $apply:expr) => {
        impl $trait for $type {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(from_fn(|i| $apply(self.0[i], other.0[i])))
            }
        }
    };
}

lanewise!(Bytes, BitAnd, bitand, |a, b| a & b);
lanewise!(Bytes, BitOr, bitor, |a, b| a | b);
lanewise!(I16x8, Add, add, i16::wrapping_add);
lanewise!(I16x8, BitAnd, bitand, |a, b| a & b);
lanewise!(I16x8, Sub, sub, i16::wrapping_sub);
lanewise!(I32x4, Add, add, i32::wrapping_add);
lanewise!(I32x4, Sub, sub, i32::wrapping_sub);
lanewise!(I32x4, BitAnd, bitand, |a, b| a & b);
lanewise!(I32x4, BitOr, bitor, |a, b| a | b);
lanewise!(F32x4, Add, add, |a, b| a + b);
lanewise!(F32x4, Sub, sub, |a, b| a - b);
lanewise!(F32x4, Mul, mul, |a, b| a * b);
lanewise!(F32x4, Div, div, |a, b| a / b);
