//! The exponential of four lanes.

use super::simd::{F32x4, I32x4};

/// `e^x` with a relative error below 2e-7. Arguments outside -87.3..=88.3 are taken as the nearer end, so the result is never
/// subnormal or infinite; NaN stays NaN.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, ln 2 being subtracted in two parts (Cody and Waite), and `e^r` by its Taylor polynomial of
/// degree 7, whose remainder, below 6e-9, is lost in the rounding.
#[inline(always)]
pub(super) fn exp(x: F32x4) -> F32x4 {
    let splat = F32x4::splat;
    let x = x.max(splat(-87.3)).min(splat(88.3));
    let (n, exponent) = (x * splat(std::f32::consts::LOG2_E)).round();
    // ln 2 = 355/512 - 2.12e-4; the first part has few enough bits that its product with n is exact.
    let r = x - n * splat(355.0 / 512.0) - n * splat(-2.121_944_4e-4);
    let coefficients = [
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let power = coefficients[1..]
        .iter()
        .fold(splat(coefficients[0]), |sum, &c| sum * r + splat(c));
    let two_to_n = (exponent + I32x4::splat(127)).shl::<23>().bits_to_f32();
    power * two_to_n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_error_is_below_two_in_ten_million() {
        let mut worst = 0.0f64;
        for i in 0..=400_000 {
            let x = -87.0 + 175.0 * (i as f32 / 400_000.0);
            let exact = f64::from(x).exp();
            let got = f64::from(exp(F32x4::splat(x)).to_array()[0]);
            worst = worst.max(((got - exact) / exact).abs());
        }
        assert!(worst < 2e-7, "worst relative error {worst:e}");
    }

    #[test]
    fn ends_are_finite_and_nan_is_kept() {
        let [zero, low, high, nan] = exp(F32x4::load(&[
            0.0,
            f32::NEG_INFINITY,
            f32::INFINITY,
            f32::NAN,
        ]))
        .to_array();
        assert_eq!(zero, 1.0);
        assert!(low > 0.0 && low < 2e-38, "{low:e}");
        assert!(high.is_finite() && high > 1e38, "{high:e}");
        assert!(nan.is_nan());
    }
}
