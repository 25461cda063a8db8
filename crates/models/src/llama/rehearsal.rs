//! Running layers that have arrived while others are on their way.
//!
//! What runs a kernel for the first time waits for a compiler: a GPU's driver takes a good part of a second for all of a model's, and a browser runs the CPU's
//! by slow code until it knows which are worth optimising. Both can do so while a file downloads. So layers are run on rows of zeros as they come: on a GPU
//! one of each kind, whose results nobody reads, on the CPU as many as a browser needs to notice.

use std::collections::HashSet;

use burn::tensor::{Device, Tensor, TensorData};
use cinderlm_kernels::{
    KvCache, KvLayout, Profile, Step, StepRow, embed, memory_cleanup, weight_vector,
};
use cinderlm_weights::PackedFormat;

use super::config::LlamaConfig;
use super::network::{DecoderLayer, Llama};
use super::tensor_names::LinearPart;
use crate::kv::BLOCK_TOKENS;
use crate::layers::{Pass, RotaryPositions};
use crate::{ModelError, ModelInfo};

/// Rows of the piece of a prompt that layers are run on: as many as share an unpacked weight.
const PROMPT_ROWS: usize = 8;
/// Positions that the token attends to on the CPU: attention is to be worth optimising too.
const CONTEXT: usize = 1024;
/// Products of a weight and an activation after which no more layers are run on the CPU: some 50 ms on a desktop's.
const CPU_PRODUCTS: usize = 1 << 29;

/// What decides the kernels of a layer: the formats of its matrices, and whether they have a bias.
pub(super) type LayerKind = Vec<(LinearPart, PackedFormat, bool)>;

/// The rehearsal of one load.
pub(super) struct Rehearsal {
    stage: Option<Stage>,
    seen: HashSet<LayerKind>,
    /// Products that may still be spent; no limit on a GPU.
    products_left: Option<usize>,
}

/// What layers are run with.
struct Stage {
    /// A piece of a prompt, and a token.
    steps: [Step; 2],
    /// One block, which holds every position.
    cache: KvCache,
    rope: RotaryPositions,
    hidden_size: usize,
    profile: Profile,
    device: Device,
}

impl Rehearsal {
    /// A rehearsal for models like this; of nothing where no cache can be made, which the first request will tell.
    pub(super) fn new(
        config: &LlamaConfig,
        info: &ModelInfo,
        device: &Device,
        profile: Profile,
    ) -> Self {
        Self {
            stage: Stage::new(config, info, device, profile).ok(),
            seen: HashSet::new(),
            products_left: is_cpu(profile).then_some(CPU_PRODUCTS),
        }
    }

    /// Runs a layer of `n_weights` weights, if there is anything to be learnt from it.
    pub(super) fn layer(&mut self, layer: &DecoderLayer, kind: LayerKind, n_weights: usize) {
        let n_rows = self.stage.as_ref().map_or(0, Stage::n_rows);
        if self.wants(kind, n_weights.saturating_mul(n_rows))
            && let Some(stage) = &mut self.stage
        {
            stage.run(layer);
        }
    }

    fn wants(&mut self, kind: LayerKind, n_products: usize) -> bool {
        let is_new = self.seen.insert(kind);
        let Some(left) = &mut self.products_left else {
            return is_new;
        };
        let is_wanted = *left > 0;
        *left = left.saturating_sub(n_products);
        is_wanted
    }

    /// Runs what comes before all layers and after them, for one token.
    pub(super) fn ends(self, network: &Llama) {
        if let Some(Stage {
            steps: [_, token],
            profile,
            ..
        }) = &self.stage
        {
            let hidden = embed(&network.embedding, token, *profile);
            network.logits(hidden, *profile);
        }
    }
}

fn is_cpu(profile: Profile) -> bool {
    profile == Profile::cpu()
}

impl Stage {
    fn new(
        config: &LlamaConfig,
        info: &ModelInfo,
        device: &Device,
        profile: Profile,
    ) -> Result<Self, ModelError> {
        let layout = KvLayout {
            block_tokens: BLOCK_TOKENS,
            n_kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
        };
        let n_prompt = PROMPT_ROWS.min(info.context_length);
        let step = |first: usize, n_rows: usize| {
            let row = |position: usize| StepRow {
                token: 0,
                position: position as u32,
                slot: (position % BLOCK_TOKENS) as u32,
                table: Step::table_offset(n_rows, 0),
            };
            let rows: Vec<StepRow> = (first..first + n_rows).map(row).collect();
            let tables = vec![0; (first + n_rows).div_ceil(BLOCK_TOKENS)];
            Step::new(&rows, &tables, device)
        };
        // A GPU has other kernels for long contexts, which it compiles when a text comes to that.
        let token = match is_cpu(profile) {
            true => CONTEXT.min(info.context_length) - 1,
            false => n_prompt - 1,
        };
        let rope = config.rope.frequencies(None);
        Ok(Self {
            steps: [step(0, n_prompt), step(token, 1)],
            cache: KvCache::new(layout, 1, device)?,
            rope: RotaryPositions::load(
                weight_vector(rope.inv_freq, device)?,
                rope.magnitude,
                config.rope.layout,
            ),
            hidden_size: config.hidden_size,
            profile,
            device: device.clone(),
        })
    }

    fn n_rows(&self) -> usize {
        self.steps.iter().map(Step::n_rows).sum()
    }

    fn run(&mut self, layer: &DecoderLayer) {
        for step in &self.steps {
            let zeros = vec![0.0f32; step.n_rows() * self.hidden_size];
            let zeros = TensorData::new(zeros, [step.n_rows(), self.hidden_size]);
            let pass = Pass {
                step,
                rope: &self.rope,
                profile: self.profile,
            };
            layer.forward(
                Tensor::from_data(zeros, &self.device),
                &mut self.cache,
                pass,
            );
        }
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        if let Some(stage) = self.stage.take() {
            let device = stage.device.clone();
            drop(stage);
            memory_cleanup(&device);
        }
    }
}

#[cfg(test)]
mod tests {
    use cinderlm_weights::BlockType;

    use super::*;

    #[test]
    fn a_gpu_runs_each_kind_once_and_the_cpu_whatever_comes_for_a_while() {
        let kind = |block_type| vec![(LinearPart::Query, PackedFormat::new(block_type), false)];
        let check = |products_left, expected: [bool; 4]| {
            let mut rehearsal = Rehearsal {
                stage: None,
                seen: HashSet::new(),
                products_left,
            };
            let kinds = [
                BlockType::Q4K,
                BlockType::Q6K,
                BlockType::Q4K,
                BlockType::Q5K,
            ];
            let wanted = kinds.map(|block_type| rehearsal.wants(kind(block_type), 40));
            assert_eq!(wanted, expected, "{products_left:?}");
        };
        check(None, [true, true, false, true]);
        check(Some(100), [true, true, true, false]);
        check(Some(1), [true, false, false, false]);
    }
}
