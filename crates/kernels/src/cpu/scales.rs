//! Scales and minima decoded to f32, some rows at a time.

use cinderlm_weights::{PackedFormat, ScaleKind};

use super::simd::{Bytes, F32x4, I16x8, I32x4};

/// What lies behind the last row, so that it can be read in fours.
const PADDING: usize = 3;

/// `value = scale * (q - zero) + min` per group of 16 or 32 columns, as the format has it. Keeps its memory from use to use.
#[derive(Debug, Default)]
pub(super) struct Scales {
    scales: Vec<f32>,
    mins: Vec<f32>,
    has_mins: bool,
    groups_per_row: usize,
}

impl Scales {
    /// Decodes some whole rows: their words in the scales section and in the supers section.
    pub(super) fn decode(
        &mut self,
        format: PackedFormat,
        n_rows: usize,
        scales: &[u32],
        supers: &[u32],
    ) {
        let (n_groups, has_mins) = match format.scale_kind() {
            ScaleKind::None => (0, false),
            ScaleKind::Single => (2 * scales.len(), false),
            ScaleKind::SingleMin => (scales.len(), true),
            ScaleKind::Super => (4 * scales.len(), false),
            ScaleKind::SuperMin { .. } => (2 * scales.len(), true),
        };
        self.groups_per_row = n_groups / n_rows;
        let n_mins = if has_mins { n_groups } else { 0 };
        self.scales.resize(n_groups + PADDING, 0.0);
        self.mins.resize(n_mins + PADDING, 0.0);
        self.has_mins = has_mins;
        let (all_scales, all_mins) = (&mut self.scales[..n_groups], &mut self.mins[..n_mins]);
        match format.scale_kind() {
            ScaleKind::None => {}
            ScaleKind::Single => {
                let mut halves = NormalHalves::new();
                single(scales, |words| halves.decode(words), all_scales);
                if !halves.were_normal() {
                    single(scales, any_pairs_to_f32, all_scales);
                }
            }
            ScaleKind::SingleMin => {
                let mut halves = NormalHalves::new();
                single_min(scales, |words| halves.decode(words), all_scales, all_mins);
                if !halves.were_normal() {
                    single_min(scales, any_pairs_to_f32, all_scales, all_mins);
                }
            }
            ScaleKind::Super => {
                let rows = scales
                    .chunks_exact(scales.len() / n_rows)
                    .zip(supers.chunks_exact(supers.len() / n_rows));
                for ((scales, supers), out) in
                    rows.zip(all_scales.chunks_exact_mut(self.groups_per_row))
                {
                    super_scales(scales, supers, out);
                }
            }
            ScaleKind::SuperMin { group } => {
                super_min(scales, supers, 256 / group, all_scales, all_mins)
            }
        }
    }

    /// Whether the format has minima.
    #[inline(always)]
    pub(super) fn has_mins(&self) -> bool {
        self.has_mins
    }

    /// Scales of the `row`th of the decoded rows, and minima for formats with such. What follows up to a multiple of four means nothing; nor
    /// does one scale more, which an odd number of blocks leaves under [`ScaleKind::Single`].
    #[inline(always)]
    pub(super) fn of(&self, row: usize) -> (&[f32], Option<&[f32]>) {
        let start = row * self.groups_per_row;
        let of_row = start..start + self.groups_per_row.next_multiple_of(4);
        let mins = self.has_mins.then(|| &self.mins[of_row.clone()]);
        (&self.scales[of_row], mins)
    }
}

fn single(words: &[u32], mut to_f32: impl FnMut(&[u32; 4]) -> [F32x4; 2], out: &mut [f32]) {
    let (fours, rest) = words.as_chunks::<4>();
    let (eights, out_rest) = out.as_chunks_mut::<8>();
    for (words, out) in fours.iter().zip(eights) {
        let [low, high] = to_f32(words);
        store_all(low.zip(high), out);
    }
    for (&word, out) in rest.iter().zip(out_rest.as_chunks_mut::<2>().0) {
        *out = pair_to_f32(word);
    }
}

fn single_min(
    words: &[u32],
    mut to_f32: impl FnMut(&[u32; 4]) -> [F32x4; 2],
    scales: &mut [f32],
    mins: &mut [f32],
) {
    let (fours, rest) = words.as_chunks::<4>();
    let (scales, scales_rest) = scales.as_chunks_mut::<4>();
    let (mins, mins_rest) = mins.as_chunks_mut::<4>();
    for ((words, scales), mins) in fours.iter().zip(scales).zip(mins) {
        let [low, high] = to_f32(words);
        low.store(scales);
        high.store(mins);
    }
    for ((&word, scale), min) in rest.iter().zip(scales_rest).zip(mins_rest) {
        [*scale, *min] = pair_to_f32(word);
    }
}

/// One row: its supers may end with half a word.
fn super_scales(words: &[u32], supers: &[u32], out: &mut [f32]) {
    let blocks = words
        .as_chunks::<4>()
        .0
        .iter()
        .zip(out.as_chunks_mut::<16>().0);
    for (i, (words, out)) in blocks.enumerate() {
        let d = pairs_to_f32(&[supers[i / 2]; 4])[i % 2];
        let [low, high] = Bytes::load(words).widen_signed();
        let ([a, b], [c, e]) = (low.widen(), high.widen());
        store_all([a, b, c, e].map(|scale| scale.to_f32() * d), out);
    }
}

/// `groups` of 256 columns have their pairs in half as many words.
fn super_min(words: &[u32], supers: &[u32], groups: usize, scales: &mut [f32], mins: &mut [f32]) {
    let (scales, _) = scales.as_chunks_mut::<8>();
    let (mins, _) = mins.as_chunks_mut::<8>();
    let out = scales
        .chunks_exact_mut(groups / 8)
        .zip(mins.chunks_exact_mut(groups / 8));
    for ((words, &pair), (scales, mins)) in words.chunks_exact(groups / 2).zip(supers).zip(out) {
        let [d, dmin] = pairs_to_f32(&[pair; 4]);
        let minus_dmin = dmin * F32x4::splat(-1.0);
        for ((words, scales), mins) in words.as_chunks::<4>().0.iter().zip(scales).zip(mins) {
            let pairs = I32x4::load_halves(words);
            store_all(
                pairs.map(|pairs| (pairs & I32x4::splat(0xff)).to_f32() * d),
                scales,
            );
            store_all(
                pairs.map(|pairs| pairs.shr::<8>().to_f32() * minus_dmin),
                mins,
            );
        }
    }
}

/// Whether none of the halves in `words` is zero, subnormal, infinite or NaN.
pub(super) fn are_normal_halves(words: &[u32]) -> bool {
    let (fours, rest) = words.as_chunks();
    let mut halves = NormalHalves::new();
    for words in fours {
        halves.check(words);
    }
    halves.check(&filled_up(rest));
    halves.were_normal()
}

/// Fewer than four words, filled up with halves that are one. Case by case: a loop would become a call out of WebAssembly, for each row of weights.
#[inline(always)]
pub(super) fn filled_up(rest: &[u32]) -> [u32; 4] {
    const ONES: u32 = 0x3c00_3c00;
    match *rest {
        [] => [ONES; 4],
        [a] => [a, ONES, ONES, ONES],
        [a, b] => [a, b, ONES, ONES],
        [a, b, c, ..] => [a, b, c, ONES],
    }
}

/// The low and the high IEEE half of a word.
#[inline(always)]
fn pair_to_f32(word: u32) -> [f32; 2] {
    pairs_to_f32(&[word; 4]).map(|half| half.to_array()[0])
}

/// The low IEEE halves of four words as singles, and the high ones. Exact for all 65,536 of them, and quick if none of the eight is
/// zero, subnormal, infinite or NaN.
#[inline(always)]
pub(super) fn pairs_to_f32(words: &[u32; 4]) -> [F32x4; 2] {
    let mut halves = NormalHalves::new();
    let decoded = halves.decode(words);
    if halves.were_normal() {
        decoded
    } else {
        any_pairs_to_f32(words)
    }
}

/// The same, if they are all normal.
#[inline(always)]
pub(super) fn normal_pairs_to_f32(words: &[u32; 4]) -> [F32x4; 2] {
    upper_halves(words).map(normal_half_to_f32)
}

/// The same, whatever they are.
#[inline(always)]
fn any_pairs_to_f32(words: &[u32; 4]) -> [F32x4; 2] {
    upper_halves(words).map(half_to_f32)
}

/// The low halves of four words, moved to the upper 16 bits of their lanes, and the high ones.
#[inline(always)]
fn upper_halves(words: &[u32; 4]) -> [I32x4; 2] {
    let words = I32x4::load(words);
    [words.shl::<16>(), words]
}

/// Decodes IEEE halves as if none were zero, subnormal, infinite or NaN, and tells afterwards whether that was so.
struct NormalHalves {
    least: I16x8,
}

impl NormalHalves {
    fn new() -> Self {
        let least = I16x8::splat(-1);
        Self { least }
    }

    /// The low halves of four words, and the high ones.
    #[inline(always)]
    fn decode(&mut self, words: &[u32; 4]) -> [F32x4; 2] {
        self.check(words);
        normal_pairs_to_f32(words)
    }

    #[inline(always)]
    fn check(&mut self, words: &[u32; 4]) {
        // One more in the exponent leaves its upper four bits zero for 0, and for 31, from which it carries into the sign.
        let next_exponent = I16x8::load_words(words) + I16x8::splat(0x0400);
        self.least = (self.least).min_unsigned(next_exponent & I16x8::splat(0x7800));
    }

    fn were_normal(self) -> bool {
        self.least.are_all_nonzero()
    }
}

/// Four IEEE halves, each in the upper 16 bits of a lane, whose exponents are neither the least nor the largest.
#[inline(always)]
fn normal_half_to_f32(halves: I32x4) -> F32x4 {
    let sign_and_magnitude = halves.shr_signed::<3>() & I32x4::splat(0x8fff_e000_u32 as i32);
    (sign_and_magnitude + I32x4::splat(112 << 23)).bits_to_f32()
}

/// Four IEEE halves, each in the upper 16 bits of a lane. Avoids subnormal operands, on which processors stall, as the scales of K
/// formats often are subnormal halves.
#[inline(always)]
fn half_to_f32(halves: I32x4) -> F32x4 {
    let splat = I32x4::splat;
    let magnitude = halves.shr::<3>() & splat(0x0fff_e000);
    let subnormal = magnitude.less_than(splat(1 << 23));
    let infinite_or_nan = splat((31 << 23) - 1).less_than(magnitude);
    let rebias = splat(112 << 23);
    // A subnormal half m * 2^-24 is read as the single 2^-14 * (1 + m / 2^10), from which 2^-14 is taken off again.
    let bits = magnitude + rebias + (infinite_or_nan & rebias) + (subnormal & splat(1 << 23));
    let value = bits.bits_to_f32() - F32x4::splat(6.103_515_6e-5).masked(subnormal);
    value.or_bits(halves & splat(i32::MIN))
}

#[inline(always)]
fn store_all<const N: usize>(from: [F32x4; N], to: &mut [f32]) {
    for (to, from) in to.as_chunks_mut::<4>().0.iter_mut().zip(from) {
        from.store(to);
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn every_half_is_decoded_exactly() {
        // Beside the others of its kind, and beside one that is not normal.
        for (bits, neighbour) in (0..=u16::MAX).flat_map(|bits| [(bits, bits), (bits, 1)]) {
            let word = u32::from(neighbour) << 16 | u32::from(bits);
            let [[got, ..], [beside, ..]] = pairs_to_f32(&[word; 4]).map(F32x4::to_array);
            for (got, bits) in [(got, bits), (beside, neighbour)] {
                let exact = f16::from_bits(bits).to_f32();
                assert!(
                    got.to_bits() == exact.to_bits() || got.is_nan() && exact.is_nan(),
                    "{bits:#06x}: {got} for {exact}"
                );
            }
        }
    }
}
