//! The gated feed-forward network of the family: `down(silu(gate(x)) * up(x))` (Shazeer 2020, "GLU Variants Improve Transformer").

use burn::module::Module;
use burn::tensor::Tensor;
use cinderlm_kernels::{Profile, swiglu};

use super::{Linear, Projections};

/// Gate, up and down projections around SiLU, with the norm before them.
#[derive(Module, Debug)]
pub struct SwiGluMlp {
    gate_up: Projections,
    down: Linear,
}

impl SwiGluMlp {
    /// The network with these projections: gate and up from hidden to inner size each, `down` back.
    pub fn load(gate_up: Projections, down: Linear) -> Self {
        Self { gate_up, down }
    }

    /// Adds the network's output to `x`.
    ///
    /// # Shapes
    /// - x: `[rows, hidden]`
    /// - output: `[rows, hidden]`
    pub fn forward(&self, x: Tensor<2>, profile: Profile) -> Tensor<2> {
        let inner = match self.gate_up.stacked() {
            Some(part) => self.gate_up.forward_gated(part, x.clone(), profile),
            None => swiglu(self.gate_up.forward(x.clone(), profile)),
        };
        self.down.forward_onto(inner, x, profile)
    }
}
