//! The gated activation of Llama's feed-forward layer (Shazeer, 2020).

use super::exp::exp;
use super::simd::F32x4;
use super::{Own, share};

/// Values that go to a thread together, so that only the last ones are no whole vector.
const UNIT: usize = 64;

/// What a value takes, in multiplications.
const WORK: usize = 16;

/// `y = silu(gate) * up` with `silu(x) = x / (1 + e^-x)`, element by element. The slices have one length.
///
/// # Panics
/// The lengths differ.
pub fn swiglu(gate: &[f32], up: &[f32], y: &mut [f32]) {
    assert!(
        gate.len() == up.len() && up.len() == y.len(),
        "gate {}, up {}, y {}",
        gate.len(),
        up.len(),
        y.len()
    );
    let whole = y.len() / UNIT * UNIT;
    let (y, y_rest) = y.split_at_mut(whole);
    let n_parts = share::n_parts(whole / UNIT, WORK * whole);
    share::units(n_parts, y, UNIT, &mut Own::default(), |units, y, _| {
        let values = units.start * UNIT..units.end * UNIT;
        fill(&gate[values.clone()], &up[values], y);
    });
    fill(&gate[whole..], &up[whole..], y_rest);
}

fn fill(gate: &[f32], up: &[f32], y: &mut [f32]) {
    y.copy_from_slice(gate);
    gate_in_place(y, up);
}

/// `y = silu(y) * up`.
#[inline(never)]
pub(super) fn gate_in_place(y: &mut [f32], up: &[f32]) {
    let (up_lanes, up_rest) = up.as_chunks::<4>();
    let (y_lanes, y_rest) = y.as_chunks_mut::<4>();
    for (y, up) in y_lanes.iter_mut().zip(up_lanes) {
        gated(F32x4::load(y), F32x4::load(up)).store(y);
    }
    for (y, &up) in y_rest.iter_mut().zip(up_rest) {
        [*y, ..] = gated(F32x4::splat(*y), F32x4::splat(up)).to_array();
    }
}

#[inline(always)]
fn gated(gate: F32x4, up: F32x4) -> F32x4 {
    let one = F32x4::splat(1.0);
    gate / (one + exp(F32x4::splat(0.0) - gate)) * up
}
