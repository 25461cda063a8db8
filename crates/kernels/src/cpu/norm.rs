//! Root mean square normalisation (Zhang and Sennrich, 2019).

use super::simd::F32x4;
use super::{Own, share};

/// `y = x / sqrt(mean(x²) + epsilon) * weight`, row by row.
///
/// # Shapes
/// - `x`, `y`: `[rows, width]`
/// - `weight`: `[width]`
///
/// Squares are added up in four vectors of four lanes, taken in turn, then `((v0 + v1) + (v2 + v3))`, its lanes in pairs, and the
/// values past the last whole sixteen one by one.
///
/// # Panics
/// The lengths do not fit, or `weight` is empty.
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32]) {
    let width = weight.len();
    assert!(
        width > 0 && x.len().is_multiple_of(width),
        "{} values in rows of {width}",
        x.len()
    );
    assert_eq!(x.len(), y.len(), "one output per input");
    let n_parts = share::n_parts(x.len() / width, 2 * x.len());
    share::units(n_parts, y, width, &mut Own::default(), |rows, y, _| {
        let x = x.chunks_exact(width).skip(rows.start);
        for (x, y) in x.zip(y.chunks_exact_mut(width)) {
            let mean = sum_of_squares(x) / width as f32;
            let scale = 1.0 / (mean + epsilon).sqrt();
            for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
                *y = x * scale * weight;
            }
        }
    });
}

fn sum_of_squares(x: &[f32]) -> f32 {
    let (lanes, _) = x.as_chunks::<4>();
    let (groups, _) = lanes.as_chunks::<4>();
    let mut sums = [F32x4::splat(0.0); 4];
    for group in groups {
        for (sum, lanes) in sums.iter_mut().zip(group) {
            let lanes = F32x4::load(lanes);
            *sum = *sum + lanes * lanes;
        }
    }
    let whole = ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum();
    x[16 * groups.len()..]
        .iter()
        .fold(whole, |sum, x| sum + x * x)
}
