//! Projections whose weights stay packed.

use burn::module::Module;
use burn::tensor::Tensor;
use cinderlm_kernels::{Fused, PackedMatrix, Profile, fused_linear, linear_side_by_side};

use super::RmsNorm;

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

    /// Projects each row and adds it to `residual`.
    ///
    /// # Shapes
    /// - x: `[rows, inputs]`
    /// - residual, output: `[rows, outputs]`
    pub fn forward_onto(&self, x: Tensor<2>, residual: Tensor<2>, profile: Profile) -> Tensor<2> {
        let fused = Fused {
            bias: self.bias.clone(),
            residual: Some(residual),
            ..Fused::default()
        };
        fused_linear(x, &self.weight, fused, profile)
    }
}

/// Several projections of the same normed rows, side by side.
///
/// Those whose weights have one format lie in one matrix, one above the other, and take one dispatch.
#[derive(Module, Debug)]
pub struct Projections {
    norm: RmsNorm,
    parts: Vec<Linear>,
}

impl Projections {
    /// The projections of what `norm` makes of the input. There is at least one part; all have the same inputs.
    pub fn load(norm: RmsNorm, parts: Vec<Linear>) -> Self {
        Self { norm, parts }
    }

    /// # Shapes
    /// - x: `[rows, inputs]`
    /// - output: `[rows, outputs of all]`
    pub fn forward(&self, x: Tensor<2>, profile: Profile) -> Tensor<2> {
        let parts = self.parts.iter();
        let parts = parts.map(|part| (&part.weight, part.bias.clone()));
        linear_side_by_side(x, Some(self.norm.fused()), parts, profile)
    }

    /// The only part, if there is but one.
    pub(super) fn stacked(&self) -> Option<&Linear> {
        match self.parts.as_slice() {
            [part] => Some(part),
            _ => None,
        }
    }

    /// `silu(first half) * second half` of the outputs of one stacked `part`.
    pub(super) fn forward_gated(&self, part: &Linear, x: Tensor<2>, profile: Profile) -> Tensor<2> {
        let fused = Fused {
            norm: Some(self.norm.fused()),
            bias: part.bias.clone(),
            residual: None,
            is_gated: true,
        };
        fused_linear(x, &part.weight, fused, profile)
    }
}
