//! A projection whose weights stay packed.

use burn::module::Module;
use burn::tensor::Tensor;
use cinderlm_kernels::{PackedMatrix, Profile, linear};

/// `y = x W^T + b`.
#[derive(Module, Debug)]
pub struct Linear {
    weight: PackedMatrix,
    bias: Option<Tensor<1>>,
}

impl Linear {
    /// The layer with these weights.
    ///
    /// # Shapes
    /// - weight: `[outputs, inputs]`
    /// - bias: `[outputs]`
    pub fn load(weight: PackedMatrix, bias: Option<Tensor<1>>) -> Self {
        Self { weight, bias }
    }

    /// Projects each row.
    ///
    /// # Shapes
    /// - x: `[rows, inputs]`
    /// - output: `[rows, outputs]`
    pub fn forward(&self, x: Tensor<2>, profile: Profile) -> Tensor<2> {
        linear(x, &self.weight, self.bias.clone(), profile)
    }
}
