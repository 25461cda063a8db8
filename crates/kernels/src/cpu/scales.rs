//! Scales and minima decoded to f32, some rows at a time.

use cinderlm_weights::{PackedFormat, ScaleKind};

use super::simd::{Bytes, F32x4, I32x4};

/// `value = scale * (q - zero) + min` per group of 16 or 32 columns, as the format has it. Keeps its memory from use to use.
#[derive(Debug, Default)]
pub(super) struct Scales {
    scales: Vec<f32>,
    /// Empty for formats without minima.
    mins: Vec<f32>,
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
        self.scales.resize(n_groups, 0.0);
        self.mins.resize(if has_mins { n_groups } else { 0 }, 0.0);
        match format.scale_kind() {
            ScaleKind::None => {}
            ScaleKind::Single => single(scales, &mut self.scales),
            ScaleKind::SingleMin => single_min(scales, &mut self.scales, &mut self.mins),
            ScaleKind::Super => {
                let rows = scales
                    .chunks_exact(scales.len() / n_rows)
                    .zip(supers.chunks_exact(supers.len() / n_rows));
                for ((scales, supers), out) in
                    rows.zip(self.scales.chunks_exact_mut(self.groups_per_row))
                {
                    super_scales(scales, supers, out);
                }
            }
            ScaleKind::SuperMin { group } => super_min(
                scales,
                supers,
                256 / group,
                &mut self.scales,
                &mut self.mins,
            ),
        }
    }

    /// Scales of the `row`th of the decoded rows. An odd number of blocks under [`ScaleKind::Single`] leaves one scale too many.
    #[inline(always)]
    pub(super) fn scales(&self, row: usize) -> &[f32] {
        &self.scales[row * self.groups_per_row..][..self.groups_per_row]
    }

    /// Minima of the `row`th of the decoded rows, `None` for formats without.
    #[inline(always)]
    pub(super) fn mins(&self, row: usize) -> Option<&[f32]> {
        self.mins
            .get(row * self.groups_per_row..(row + 1) * self.groups_per_row)
    }
}

fn single(words: &[u32], out: &mut [f32]) {
    let (fours, rest) = words.as_chunks::<4>();
    let (eights, out_rest) = out.as_chunks_mut::<8>();
    for (words, out) in fours.iter().zip(eights) {
        store_all(I32x4::load_halves(words).map(half_to_f32), out);
    }
    for (&word, out) in rest.iter().zip(out_rest.as_chunks_mut::<2>().0) {
        *out = [half(word), half(word >> 16)];
    }
}

fn single_min(words: &[u32], scales: &mut [f32], mins: &mut [f32]) {
    let (fours, rest) = words.as_chunks::<4>();
    let (scales, scales_rest) = scales.as_chunks_mut::<4>();
    let (mins, mins_rest) = mins.as_chunks_mut::<4>();
    for ((words, scales), mins) in fours.iter().zip(scales).zip(mins) {
        let words = I32x4::load(words);
        half_to_f32(words & I32x4::splat(0xffff)).store(scales);
        half_to_f32(words.shr::<16>()).store(mins);
    }
    for ((&word, scale), min) in rest.iter().zip(scales_rest).zip(mins_rest) {
        (*scale, *min) = (half(word), half(word >> 16));
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
        let d = F32x4::splat(half(supers[i / 2] >> (16 * (i % 2))));
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
        let (d, minus_dmin) = (F32x4::splat(half(pair)), F32x4::splat(-half(pair >> 16)));
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

/// The IEEE half in the low 16 bits.
#[inline(always)]
fn half(word: u32) -> f32 {
    let [half, ..] = half_to_f32(I32x4::splat((word & 0xffff) as i32)).to_array();
    half
}

/// Four IEEE halves, each in the low 16 bits of a lane whose upper bits are zero, as singles. Exact for all 65,536 of them; avoids
/// subnormal operands, on which processors stall, as the scales of K formats often are subnormal halves.
#[inline(always)]
pub(super) fn half_to_f32(halves: I32x4) -> F32x4 {
    let splat = I32x4::splat;
    let magnitude = (halves & splat(0x7fff)).shl::<13>();
    let subnormal = magnitude.less_than(splat(1 << 23));
    let infinite_or_nan = splat((31 << 23) - 1).less_than(magnitude);
    let rebias = splat(112 << 23);
    // A subnormal half m * 2^-24 is read as the single 2^-14 * (1 + m / 2^10), from which 2^-14 is taken off again.
    let bits = magnitude + rebias + (infinite_or_nan & rebias) + (subnormal & splat(1 << 23));
    let value = bits.bits_to_f32() - F32x4::splat(6.103_515_6e-5).masked(subnormal);
    value.or_bits((halves & splat(0x8000)).shl::<16>())
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
        for bits in 0..=u16::MAX {
            let [got, ..] = half_to_f32(I32x4::splat(i32::from(bits))).to_array();
            let exact = f16::from_bits(bits).to_f32();
            assert!(
                got.to_bits() == exact.to_bits() || got.is_nan() && exact.is_nan(),
                "{bits:#06x}: {got} for {exact}"
            );
        }
    }
}
