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

    /// The largest lane; NaN when a lane is NaN.
    #[inline(always)]
    pub(crate) fn max_lane(self) -> f32 {
        let [a, b, c, d] = self.to_array();
        let [largest, ..] = (Self::splat(a).max(Self::splat(b)))
            .max(Self::splat(c).max(Self::splat(d)))
            .to_array();
        largest
    }
}
