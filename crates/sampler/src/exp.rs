//! The exponential of differences to a maximum.

/// Below this, `e^x` is taken for zero: far less than the `2^-53` that random numbers tell apart.
const LOWEST: f32 = -87.3;

/// `e^x` for `x` up to 0, with a relative error below 2e-7; 0 below -87.3, where that is 1.2e-38. The same on every machine, and made of what compilers
/// put into vector lanes, which the standard library's is not.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, ln 2 being subtracted in two parts (Cody and Waite), and `e^r` by its Taylor polynomial of degree 7. The CPU kernels have
/// the same for vectors of their own (`cinderlm-kernels`, `cpu/exp.rs`), of which this crate knows nothing.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Between 2^23 and 2^24 the singles are the whole numbers: adding this rounds.
    const ROUNDER: f32 = 12_582_912.0;
    let clamped = if x < LOWEST { LOWEST } else { x };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    // ln 2 = 355/512 - 2.12e-4; the first part has few enough bits that its product with n is exact.
    let r = clamped - n * (355.0 / 512.0) + n * 2.121_944_4e-4;
    let mut power = 1.0 / 5040.0;
    for coefficient in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        power = power * r + coefficient;
    }
    let exponent = rounded.to_bits().wrapping_sub(ROUNDER.to_bits());
    let two_to_n = f32::from_bits(exponent.wrapping_add(127) << 23);
    if x < LOWEST { 0.0 } else { power * two_to_n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_error_is_below_two_in_ten_million() {
        let mut worst = 0.0f64;
        for i in 0..=400_000 {
            let x = LOWEST * (i as f32 / 400_000.0);
            let exact = f64::from(x).exp();
            worst = worst.max(((f64::from(exp(x)) - exact) / exact).abs());
        }
        assert!(worst < 2e-7, "worst relative error {worst:e}");
    }

    #[test]
    fn ends_are_exact() {
        assert_eq!(exp(0.0), 1.0);
        for x in [-87.4, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(exp(x), 0.0, "of {x}");
        }
        assert!(exp(LOWEST) > 0.0);
    }
}
