//! Layers that families share: configuration, loading, forward pass.
//!
//! A layer's configuration is loaded with tensors that the loader has checked against it, so building cannot fail here.

mod attention;
mod linear;
mod mlp;
mod norm;
mod rope;

pub use attention::{Attention, AttentionConfig, HeadNorms};
pub use linear::{Linear, Projections};
pub use mlp::SwiGluMlp;
pub use norm::{RmsNorm, RmsNormConfig};
pub use rope::RotaryPositions;

use cinderlm_kernels::{Profile, Step};

/// What every layer of one forward step is given.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// The step's rows and block tables.
    pub step: &'a Step,
    /// The rotation of queries and keys.
    pub rope: &'a RotaryPositions,
    /// Kernel parameters of the device.
    pub profile: Profile,
}
