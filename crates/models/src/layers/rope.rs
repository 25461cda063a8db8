//! The rotation of queries and keys, ready on the device.

use burn::module::Module;
use burn::tensor::Tensor;
use cinderlm_kernels::RopeLayout;

/// Frequencies, layout and magnitude of the rotation that all layers share.
#[derive(Module, Debug)]
pub struct RotaryPositions {
    inv_freq: Tensor<1>,
    magnitude: f32,
    #[module(skip)]
    layout: RopeLayout,
}

impl RotaryPositions {
    /// A rotation by `position * inv_freq`, sine and cosine multiplied by `magnitude`.
    ///
    /// # Shapes
    /// - inv_freq: `[rotary / 2]`
    pub fn load(inv_freq: Tensor<1>, magnitude: f32, layout: RopeLayout) -> Self {
        Self {
            inv_freq,
            magnitude,
            layout,
        }
    }

    /// Radians per position, `[rotary / 2]`.
    pub fn inv_freq(&self) -> Tensor<1> {
        self.inv_freq.clone()
    }

    /// Factor on sine and cosine.
    pub fn magnitude(&self) -> f32 {
        self.magnitude
    }

    /// Which elements of a head make a pair.
    pub fn layout(&self) -> RopeLayout {
        self.layout
    }
}
