//! The network of the family: embedding, decoder layers, output.

use burn::module::Module;
use burn::tensor::Tensor;
use cinderlm_kernels::{Fused, KvCache, PackedMatrix, Profile, Step, embed, fused_linear, submit};

use crate::layers::{Attention, Pass, RmsNorm, RotaryPositions, SwiGluMlp};

/// Rows of a step up to which all layers go to the device in one piece. More take long: systems take a GPU away from whoever keeps it for
/// seconds, and it may as well begin while the rest is made ready.
const SUBMITTED_WHOLE: usize = 16;

/// One decoder layer: `x + attention(norm(x))`, then `x + mlp(norm(x))`. On a GPU six dispatches, where one format serves all weights that
/// share an input.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    pub(super) attention: Attention,
    pub(super) mlp: SwiGluMlp,
}

impl DecoderLayer {
    /// # Shapes
    /// - x: `[rows, hidden]`
    /// - output: `[rows, hidden]`
    pub fn forward(&self, x: Tensor<2>, cache: &mut KvCache, pass: Pass<'_>) -> Tensor<2> {
        let x = self.attention.forward(x, cache, pass);
        self.mlp.forward(x, pass.profile)
    }
}

/// A Llama-family network.
#[derive(Module, Debug)]
pub struct Llama {
    pub(super) embedding: PackedMatrix,
    pub(super) layers: Vec<DecoderLayer>,
    pub(super) norm: RmsNorm,
    /// Tied to the embedding where absent.
    pub(super) output: Option<PackedMatrix>,
    pub(super) rope: RotaryPositions,
}

impl Llama {
    /// Runs a step through all layers; `caches` has one cache per layer.
    ///
    /// # Shapes
    /// - output: `[rows, hidden]`, before the final norm
    pub fn forward(&self, step: &Step, caches: &mut [KvCache], profile: Profile) -> Tensor<2> {
        let pass = Pass {
            step,
            rope: &self.rope,
            profile,
        };
        let mut x = embed(&self.embedding, step, profile);
        let device = x.device();
        for (layer, cache) in self.layers.iter().zip(caches) {
            x = layer.forward(x, cache, pass);
            if step.n_rows() > SUBMITTED_WHOLE {
                // A failure shows in what is read in the end.
                let _ = submit(&device);
            }
        }
        x
    }

    /// Logits of hidden rows.
    ///
    /// # Shapes
    /// - hidden: `[rows, hidden]`
    /// - output: `[rows, vocab]`
    pub fn logits(&self, hidden: Tensor<2>, profile: Profile) -> Tensor<2> {
        let output = self.output.as_ref().unwrap_or(&self.embedding);
        let fused = Fused {
            norm: Some(self.norm.fused()),
            ..Fused::default()
        };
        fused_linear(hidden, output, fused, profile)
    }
}
