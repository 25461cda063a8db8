//! Root-mean-square normalisation: `y = x / sqrt(mean(x^2) + epsilon) * weight` (Zhang and Sennrich 2019).

use burn::module::Module;
use burn::tensor::Tensor;
use cinderlm_kernels::{Profile, rms_norm};

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

/// Normalises rows, or the heads that rows consist of.
#[derive(Module, Debug)]
pub struct RmsNorm {
    weight: Tensor<1>,
    epsilon: f32,
}

impl RmsNorm {
    /// Normalises each row.
    ///
    /// # Shapes
    /// - x: `[rows, size]`
    /// - output: `[rows, size]`
    pub fn forward(&self, x: Tensor<2>, profile: Profile) -> Tensor<2> {
        rms_norm(x, self.weight.clone(), self.epsilon, profile)
    }

    /// Normalises each head of each row by itself.
    ///
    /// # Shapes
    /// - x: `[rows, heads * size]`
    /// - output: `[rows, heads * size]`
    pub fn forward_heads(&self, x: Tensor<2>, profile: Profile) -> Tensor<2> {
        let [n_rows, width] = x.dims();
        let [size] = self.weight.dims();
        let heads = x.reshape([n_rows * width / size, size]);
        self.forward(heads, profile).reshape([n_rows, width])
    }
}
