//! The few 128-bit vector operations that the kernels need.
//!
//! Two implementations with the same names: WebAssembly's `simd128` instructions where the build has them, and arrays everywhere
//! else. Both round, saturate and add up in the same order, so results agree bit for bit and native tests speak for the browser.
//! No operation fuses a multiplication with an addition: WebAssembly has none outside relaxed SIMD.
//!
//! All `unsafe` of the CPU kernels lives here, in loads and stores through references to whole vectors.

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod portable;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(crate) use portable::{Bytes, F32x4, I16x8, I32x4};

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm32;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) use wasm32::{Bytes, F32x4, I16x8, I32x4};

impl F32x4 {
    /// The four lanes added up as `(l0 + l1) + (l2 + l3)`.
    #[inline(always)]
    pub(crate) fn sum(self) -> f32 {
        let [a, b, c, d] = self.to_array();
        (a + b) + (c + d)
    }

    /// What [`F32x4::round`] adds: between 2^23 and 2^24 the singles are the whole numbers.
    const ROUND: f32 = 12_582_912.0;

    /// Lanes rounded to the nearest whole number, ties to even, and that number as integers. Lanes are smaller than 2^22 in size, or the
    /// results mean nothing.
    #[inline(always)]
    pub(crate) fn round(self) -> (Self, I32x4) {
        let round = Self::splat(Self::ROUND);
        let shifted = self + round;
        (shifted - round, shifted.to_bits() - round.to_bits())
    }

    /// [`F32x4::sum`] of each vector.
    #[inline(always)]
    pub(crate) fn sum_each<const N: usize>(vectors: [Self; N]) -> [f32; N] {
        let mut sums = [0.0; N];
        let (fours, rest) = vectors.as_chunks::<4>();
        let (sums_of_fours, sums_of_rest) = sums.as_chunks_mut::<4>();
        for (sums, vectors) in sums_of_fours.iter_mut().zip(fours) {
            Self::sums(*vectors).store(sums);
        }
        for (sum, vector) in sums_of_rest.iter_mut().zip(rest) {
            *sum = vector.sum();
        }
        sums
    }

    /// The largest lane. Where lanes are NaN, any.
    #[inline(always)]
    pub(crate) fn max_lane(self) -> f32 {
        let [a, b, c, d] = self.to_array();
        let [largest, ..] = (Self::splat(a).max(Self::splat(b)))
            .max(Self::splat(c).max(Self::splat(d)))
            .to_array();
        largest
    }
}
