//! The gated feed-forward network of the family: `down(silu(gate(x)) * up(x))` (Shazeer 2020, "GLU Variants Improve Transformer").

use burn::module::Module;
use burn::tensor::Tensor;
use cinderlm_kernels::{Profile, swiglu};

use super::Linear;

/// Gate, up and down projections around SiLU.
#[derive(Module, Debug)]
pub struct SwiGluMlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl SwiGluMlp {
    /// The network with these projections: `gate` and `up` from hidden to inner size, `down` back.
    pub fn load(gate: Linear, up: Linear, down: Linear) -> Self {
        Self { gate, up, down }
    }

    /// # Shapes
    /// - x: `[rows, hidden]`
    /// - output: `[rows, hidden]`
    pub fn forward(&self, x: Tensor<2>, profile: Profile) -> Tensor<2> {
        let gate = self.gate.forward(x.clone(), profile);
        let up = self.up.forward(x, profile);
        self.down.forward(swiglu(gate, up), profile)
    }
}
