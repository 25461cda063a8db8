//! Sine and cosine of large angles.
//!
//! WGSL promises nothing about `sin` and `cos` outside `-pi..pi`, and only 2^-11 inside, while rotary angles reach the context length.

use cubecl::prelude::*;

/// `pi / 2` in four parts, by Cody and Waite: the first three have few enough bits that their products with up to 2^17 quarter turns
/// are exact.
const HALF_PI_1: f32 = 1.5;
const HALF_PI_2: f32 = 0.070_312_5;
const HALF_PI_3: f32 = 0.000_480_651_855_468_75;
const HALF_PI_4: f32 = 3.174_939_5e-6;

/// Sine and cosine of `angle`, at least 0 and at most 2^17, to about 2^-23.
///
/// The angle is brought to `-pi/4..pi/4` and put into the single-precision polynomials of the Cephes library (`sinf`, `cosf`).
#[cube]
pub(super) fn sin_cos(angle: f32) -> (f32, f32) {
    let quarter = u32::cast_from(angle * comptime!(core::f32::consts::FRAC_2_PI) + 0.5f32);
    let turns = f32::cast_from(quarter);
    let r =
        ((angle - turns * HALF_PI_1) - turns * HALF_PI_2) - turns * HALF_PI_3 - turns * HALF_PI_4;
    let square = r * r;
    let sin =
        ((square * -1.951_529_6e-4f32 + 8.332_161e-3f32) * square - 0.166_666_55f32) * square * r
            + r;
    let cos = ((square * 2.443_315_7e-5f32 - 1.388_731_6e-3f32) * square + 4.166_664_6e-2f32)
        * square
        * square
        - 0.5f32 * square
        + 1.0f32;
    let odd = quarter % 2 == 1;
    let (sin, cos) = (select(odd, cos, sin), select(odd, sin, cos));
    (
        select(quarter & 2 == 2, -sin, sin),
        select((quarter + 1) & 2 == 2, -cos, cos),
    )
}
