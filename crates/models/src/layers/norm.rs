//! Root-mean-square normalisation: `y = x / sqrt(mean(x^2) + epsilon) * weight` (Zhang and Sennrich 2019).

use burn::module::Module;
use burn::tensor::Tensor;
use cinderlm_kernels::Norm;

/// Configuration of [`RmsNorm`].
#[derive(Clone, Copy, Debug)]
pub struct RmsNormConfig {
    /// Added to the mean square.
    pub epsilon: f32,
}

impl RmsNormConfig {
    /// The layer with these weights.
    ///
    /// # Shapes
    /// - weight: `[size]`
    pub fn load(&self, weight: Tensor<1>) -> RmsNorm {
        RmsNorm {
            weight,
            epsilon: self.epsilon,
        }
    }
}

/// Normalises rows, or the heads that rows consist of. It has no forward pass of its own: what comes after takes it along.
#[derive(Module, Debug)]
pub struct RmsNorm {
    pub(super) weight: Tensor<1>,
    pub(super) epsilon: f32,
}

impl RmsNorm {
    /// The norm as a part of the product after it.
    pub fn fused(&self) -> Norm {
        Norm {
            weight: self.weight.clone(),
            epsilon: self.epsilon,
        }
    }
}
