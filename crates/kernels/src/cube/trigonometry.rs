//! Sine and cosine of large angles.
//!
//! WGSL promises nothing about `sin` and `cos` outside `-pi..pi`, and only 2^-11 inside, while rotary angles reach the context length.
//! Taking off multiples of `pi / 2` in floats will not do either: drivers regroup such sums (Mesa does) and lose what the parts of
//! `pi` were split for. So the angle becomes an integer that counts 2^-32 of a turn and wraps around by itself.

use cubecl::prelude::*;

/// `2^32 / (2 pi)` is 683565275.5764…: its whole part, and its fraction in units of 2^-14, which times 2^18 still fits 32 bits.
const UNITS_PER_RADIAN: u32 = 683_565_275;
const UNITS_PER_RADIAN_FRACTION: u32 = 9_444;
/// The whole of it, and its inverse, as floats.
const UNITS_PER_RADIAN_F32: f32 = 683_565_275.576;
const RADIANS_PER_UNIT_F32: f32 = 1.462_918_1e-9;

/// Sine and cosine of `angle`, from 0 to 2^18, to about 2e-7.
///
/// The angle is brought to `-pi/4..pi/4` and put into the single-precision polynomials of the Cephes library (`sinf`, `cosf`).
#[cube]
pub(super) fn sin_cos(angle: f32) -> (f32, f32) {
    let whole = u32::cast_from(angle);
    let fraction = angle - f32::cast_from(whole);
    let phase = whole * UNITS_PER_RADIAN
        + ((whole * UNITS_PER_RADIAN_FRACTION) >> 14u32)
        + u32::cast_from(fraction * UNITS_PER_RADIAN_F32);

    // Quarter turns are counted from an eighth of a turn before 0.
    let shifted = phase + comptime!(1u32 << 29);
    let quarter = shifted >> 30u32;
    let past = f32::cast_from(shifted & comptime!((1u32 << 30) - 1));
    let r = (past - comptime!((1u32 << 29) as f32)) * RADIANS_PER_UNIT_F32;
    let square = r * r;
    let sin =
        ((square * -1.951_529_6e-4f32 + 8.332_161e-3f32) * square - 0.166_666_55f32) * square * r
            + r;
    let cos = ((square * 2.443_315_7e-5f32 - 1.388_731_6e-3f32) * square + 4.166_664_6e-2f32)
        * square
        * square
        - 0.5f32 * square
        + 1.0f32;
    let odd = quarter & 1 == 1;
    let (sin, cos) = (select(odd, cos, sin), select(odd, sin, cos));
    (
        select(quarter & 2 == 2, -sin, sin),
        select((quarter + 1) & 2 == 2, -cos, cos),
    )
}
