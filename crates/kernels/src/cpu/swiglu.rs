//! The gated activation of Llama's feed-forward layer (Shazeer, 2020).

use super::exp::exp;
use super::simd::F32x4;

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
    let (gate_lanes, gate_rest) = gate.as_chunks::<4>();
    let (up_lanes, up_rest) = up.as_chunks::<4>();
    let (y_lanes, y_rest) = y.as_chunks_mut::<4>();
    for ((y, gate), up) in y_lanes.iter_mut().zip(gate_lanes).zip(up_lanes) {
        gated(F32x4::load(gate), F32x4::load(up)).store(y);
    }
    for ((y, &gate), &up) in y_rest.iter_mut().zip(gate_rest).zip(up_rest) {
        [*y, ..] = gated(F32x4::splat(gate), F32x4::splat(up)).to_array();
    }
}

#[inline(always)]
fn gated(gate: F32x4, up: F32x4) -> F32x4 {
    let one = F32x4::splat(1.0);
    gate / (one + exp(F32x4::splat(0.0) - gate)) * up
}
