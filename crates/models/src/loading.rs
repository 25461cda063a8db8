//! From a model file to a model on a device.

use std::num::NonZeroUsize;

use burn::tensor::Device;
use cinderlm_kernels::{Profile, memory_cleanup};
use cinderlm_weights::ByteSource;
use cinderlm_weights::gguf::GgufReader;

use crate::llama::{Architecture, LlamaModel};
use crate::{CausalLm, Draw, Drawn, Feed, ModelError, ModelInfo, SequenceId};

/// What a caller may set about a load.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Most tokens of one sequence, where that is less than the model's own context length.
    pub context_length: Option<NonZeroUsize>,
}

/// How far a load has come, in bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes read, from the start of the file.
    pub read_bytes: u64,
    /// Where the last tensor ends.
    pub total_bytes: u64,
}

/// The caller's side of a load.
pub trait LoadHooks {
    /// Called after each piece, about a megabyte, that has been read.
    fn progress(&mut self, progress: LoadProgress);

    /// Asked before each piece; `true` ends the load with [`ModelError::Cancelled`].
    fn is_cancelled(&self) -> bool {
        false
    }

    /// Lets other tasks of the thread run. Awaited every few megabytes.
    #[allow(
        async_fn_in_trait,
        reason = "everything runs on one thread of a worker: no caller needs Send"
    )]
    async fn yield_now(&mut self) {}
}

/// A caller that neither watches nor cancels.
impl LoadHooks for () {
    fn progress(&mut self, _progress: LoadProgress) {}
}

/// What a calibration goes by.
#[derive(Clone, Copy)]
pub struct CalibrationClock<'a> {
    /// Milliseconds from any fixed point.
    pub now_millis: &'a dyn Fn() -> f64,
    /// Milliseconds that calibration may take; it is over by then if no variant takes much longer than those before it.
    pub budget_millis: f64,
}

impl CalibrationClock<'_> {
    pub(crate) fn now(&self) -> f64 {
        (self.now_millis)()
    }
}

/// Loads the model in a file whose header has been read. Tensors stream to the device piece by piece; no more than the one being
/// packed lies in host memory. Dropping the future cancels the load and frees what it took.
///
/// # Errors
/// The file is malformed, of another architecture, contradicts itself or does not fit the device; or the hooks cancelled.
pub async fn load_model<S: ByteSource>(
    reader: &mut GgufReader<S>,
    device: &Device,
    profile: Profile,
    options: LoadOptions,
    hooks: &mut impl LoadHooks,
) -> Result<LoadedModel, ModelError> {
    let name = reader.header().metadata.string("general.architecture")?;
    let architecture = Architecture::from_name(name)?;
    let model = LlamaModel::load(reader, architecture, device, profile, options, hooks).await?;
    Ok(LoadedModel::Llama(model))
}

/// A model of any family.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadedModel {
    /// `llama`, `qwen2` and `qwen3` files.
    Llama(LlamaModel),
}

impl LoadedModel {
    /// What the model tells about itself.
    pub fn info(&self) -> &ModelInfo {
        match self {
            Self::Llama(model) => model.info(),
        }
    }

    /// Tries variants of the kernel parameters that the model was loaded with, on a GPU; goes on with those that were fastest, and gives them.
    /// Nothing else of the model changes. Logits of a variant that is taken differ by rounding.
    ///
    /// # Errors
    /// The device was lost.
    pub async fn calibrate(&mut self, clock: CalibrationClock<'_>) -> Result<Profile, ModelError> {
        match self {
            Self::Llama(model) => model.calibrate(clock).await,
        }
    }
}

impl CausalLm for LoadedModel {
    fn vocab_size(&self) -> usize {
        match self {
            Self::Llama(model) => model.vocab_size(),
        }
    }

    fn context_length(&self) -> usize {
        match self {
            Self::Llama(model) => model.context_length(),
        }
    }

    fn max_step_tokens(&self) -> usize {
        match self {
            Self::Llama(model) => model.max_step_tokens(),
        }
    }

    fn kv_granularity(&self) -> usize {
        match self {
            Self::Llama(model) => model.kv_granularity(),
        }
    }

    fn open(&mut self) -> SequenceId {
        match self {
            Self::Llama(model) => model.open(),
        }
    }

    fn fork_at(&mut self, from: SequenceId, n_tokens: usize) -> Result<SequenceId, ModelError> {
        match self {
            Self::Llama(model) => model.fork_at(from, n_tokens),
        }
    }

    fn close(&mut self, sequence: SequenceId) {
        match self {
            Self::Llama(model) => model.close(sequence),
        }
    }

    fn len(&self, sequence: SequenceId) -> usize {
        match self {
            Self::Llama(model) => model.len(sequence),
        }
    }

    fn kv_bytes(&self) -> u64 {
        match self {
            Self::Llama(model) => model.kv_bytes(),
        }
    }

    async fn forward(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<f32>, ModelError> {
        match self {
            Self::Llama(model) => model.forward(feeds).await,
        }
    }

    async fn forward_drawn(
        &mut self,
        feeds: &[Feed<'_>],
        draws: &[Draw],
        after: Option<&[Draw]>,
    ) -> Result<Option<Vec<Drawn>>, ModelError> {
        match self {
            Self::Llama(model) => model.forward_drawn(feeds, draws, after).await,
        }
    }
}

/// Gives the device's unused buffers back when dropped. Owners declare it after the buffers, so that those are dropped first.
#[derive(Debug)]
pub(crate) struct CleanupOnDrop(pub(crate) Device);

impl Drop for CleanupOnDrop {
    fn drop(&mut self) {
        memory_cleanup(&self.0);
    }
}
