//! A loaded model: the network, its key-value memory, and the step that joins them.

use std::fmt;
use std::rc::Rc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use cinderlm_kernels::{
    BegunRead, DrawBuffer, DrawKind, Profile, Step, begin_read, memory_cleanup, read,
};
use cinderlm_weights::ByteSource;
use cinderlm_weights::gguf::{GgufHeader, GgufReader};

use super::ahead::Ahead;
use super::config::{Architecture, LlamaConfig};
use super::loader::{self, Parts};
use super::network::Llama;
use super::recordings::{Recordable, Recordings};
use super::rehearsal::Rehearsal;
use super::tensor_names::{GlobalPart, Place};
use crate::kv::{BLOCK_TOKENS, KvMemory, MAX_STEP_TOKENS, StepLimits, StepPlan};
use crate::loading::CleanupOnDrop;
use crate::metadata::ArchitectureKeys;
use crate::{
    CausalLm, Draw, Drawn, Feed, LoadHooks, LoadOptions, LogitsFor, ModelError, ModelInfo,
    SequenceId,
};

/// Rows that go through the output layer at a time, back to the host or to be drawn for. Bounds the buffers that a large vocabulary takes.
const LOGITS_ROWS: usize = 32;

/// A Llama-family model on a device.
#[derive(Debug)]
pub struct LlamaModel {
    info: ModelInfo,
    pub(super) network: Llama,
    pub(super) kv: KvMemory,
    /// Of steps over the buffers that `kv` has in the generation after it. Declared before the clean-up, which would find their memory in use.
    recordings: Recordings,
    recorded_generation: u64,
    /// The step after the last one, if it was begun.
    ahead: Option<Ahead>,
    /// Of the number of rows that was drawn for last without a recording.
    draw_buffer: Option<(usize, Rc<DrawBuffer>)>,
    pub(super) profile: Profile,
    pub(super) device: Device,
    _cleanup: CleanupOnDrop,
}

impl LlamaModel {
    /// See [`load_model`](crate::load_model).
    pub(crate) async fn load<S: ByteSource>(
        reader: &mut GgufReader<S>,
        architecture: Architecture,
        device: &Device,
        profile: Profile,
        options: LoadOptions,
        hooks: &mut impl LoadHooks,
    ) -> Result<Self, ModelError> {
        let header = reader.header();
        let config = read_config(header, architecture)?;
        let mut info = model_info(header, &config, options)?;
        let limits = StepLimits {
            vocab_size: info.vocab_size,
            context_length: info.context_length,
        };
        let kv = KvMemory::new(
            config.n_layers,
            config.n_kv_heads,
            config.head_dim,
            limits,
            device,
        )?;
        info.kv_bytes_per_token = kv.block_bytes() / BLOCK_TOKENS as u64;
        let plan = loader::plan(&config, header, device)?;
        let cleanup = CleanupOnDrop(device.clone());
        let mut rehearsal = Rehearsal::new(&config, &info, device, profile);
        let parts = Parts::read(reader, &plan, &config, &mut rehearsal, device, hooks).await?;
        info.weight_bytes = parts.n_bytes();
        let network = parts.into_network(&config)?;
        rehearsal.ends(&network);
        Ok(Self {
            info,
            network,
            kv,
            recordings: Recordings::default(),
            recorded_generation: 0,
            ahead: None,
            draw_buffer: None,
            profile,
            device: device.clone(),
            _cleanup: cleanup,
        })
    }

    /// What the model tells about itself.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Logits of the `wanted` rows of a step, on the host.
    pub(super) async fn logits(
        &self,
        hidden: Tensor<2>,
        wanted: &[u32],
    ) -> Result<Vec<f32>, ModelError> {
        if (1..=LOGITS_ROWS).contains(&wanted.len()) {
            return self.logits_of(hidden, wanted).await;
        }
        let n_values = wanted.len() * self.info.vocab_size;
        let mut logits = Vec::new();
        logits
            .try_reserve_exact(n_values)
            .map_err(|_| ModelError::OutOfMemory {
                message: format!("no room for {n_values} logits"),
            })?;
        for rows in wanted.chunks(LOGITS_ROWS) {
            logits.extend(self.logits_of(hidden.clone(), rows).await?);
        }
        Ok(logits)
    }

    /// The same of rows that go through the output layer together.
    async fn logits_of(&self, hidden: Tensor<2>, rows: &[u32]) -> Result<Vec<f32>, ModelError> {
        let picked = self.picked(hidden, rows);
        into_values(read(self.network.logits(picked, self.profile)).await?)
    }

    /// Rows of `hidden`.
    fn picked(&self, hidden: Tensor<2>, rows: &[u32]) -> Tensor<2> {
        if rows.iter().copied().eq(0..hidden.dims()[0] as u32) {
            return hidden;
        }
        let indices = rows.iter().map(|row| *row as i32).collect();
        let indices = TensorData::new(indices, [rows.len()]);
        let indices = Tensor::<1, Int>::from_data(indices, &self.device);
        hidden.select(0, indices)
    }

    /// Lays out a step. What was recorded over buffers that the caches no longer have is forgotten.
    pub(super) fn plan(&mut self, feeds: &[Feed<'_>]) -> Result<StepPlan, ModelError> {
        let plan = self.kv.plan(feeds);
        self.follow_caches();
        plan
    }

    /// Launches a step; gives its hidden rows.
    pub(super) fn launch(&mut self, plan: &StepPlan) -> Tensor<2> {
        let step = Step::new(&plan.rows, &plan.tables, &self.device);
        (self.network).forward(&step, self.kv.caches_mut(), self.profile)
    }

    /// Runs a step that was recorded, or is by now; gives its logits or what was drawn.
    fn replay(
        &mut self,
        plan: &StepPlan,
        draws: Option<&[Draw]>,
    ) -> Result<Option<Tensor<2>>, ModelError> {
        let step = Recordable {
            plan,
            draws,
            max_table: self.kv.max_table(),
            device: &self.device,
            profile: self.profile,
        };
        let (network, caches) = (&self.network, self.kv.caches_mut());
        self.recordings.run(step, caches, |words, caches| {
            let hidden = network.forward(words, caches, step.profile);
            network.logits(hidden, step.profile)
        })
    }

    /// A buffer for draws of steps that are not recorded; `None` where the device does not draw.
    fn draw_buffer(&mut self, n_rows: usize) -> Result<Option<Rc<DrawBuffer>>, ModelError> {
        if let Some((n, buffer)) = &self.draw_buffer
            && *n == n_rows
        {
            return Ok(Some(Rc::clone(buffer)));
        }
        let buffer = DrawBuffer::new(n_rows, &self.device)?.map(Rc::new);
        self.draw_buffer = buffer.clone().map(|buffer| (n_rows, buffer));
        Ok(buffer)
    }

    /// Reads the result of a replayed step, of which the feeds have these rows, after it has begun with the one after it, if that is known.
    async fn finish_ahead(
        &mut self,
        feeds: &[Feed<'_>],
        draws: &[Draw],
        after: Option<&[Draw]>,
        rows: &[usize],
        reading: BegunRead,
    ) -> Result<Vec<Drawn>, ModelError> {
        let mut ahead = after.and_then(|after| self.begin_after(feeds, after, rows));
        let data = reading.finish().await?;
        let mut by_row: Vec<&Draw> = draws.iter().collect();
        for (draw, &row) in draws.iter().zip(rows) {
            by_row[row] = draw;
        }
        let by_row: Vec<Drawn> = Drawn::read(values_of(&data)?, by_row.into_iter()).collect();
        if let Some(ahead) = &mut ahead {
            ahead.follow(&by_row);
        }
        self.ahead = ahead;
        self.kv.commit(feeds);
        Ok(rows.iter().map(|&row| by_row[row].clone()).collect())
    }

    /// Begins with the step after one whose feeds have these rows.
    fn begin_after(&mut self, feeds: &[Feed<'_>], after: &[Draw], rows: &[usize]) -> Option<Ahead> {
        let is_possible = after.len() == feeds.len()
            && feeds.iter().all(|feed| feed.tokens.len() == 1)
            && after
                .iter()
                .all(|draw| can_draw(draw, self.info.vocab_size));
        if !is_possible {
            return None;
        }
        let mut order: Vec<usize> = (0..feeds.len()).collect();
        order.sort_by_key(|&feed| rows[feed]);
        let sequences: Vec<SequenceId> = order.iter().map(|&feed| feeds[feed].sequence).collect();
        let draws: Vec<Draw> = order.iter().map(|&feed| after[feed].clone()).collect();
        let lens: Vec<usize> = sequences.iter().map(|&id| self.kv.len(id) + 1).collect();
        let plan = self.kv.plan_after(&sequences)?;
        let step = Recordable {
            plan: &plan,
            draws: Some(&draws),
            max_table: self.kv.max_table(),
            device: &self.device,
            profile: self.profile,
        };
        let result = self.recordings.run_after(step, self.kv.caches_mut())?;
        let reading = begin_read(&result)?;
        Some(Ahead::new(&sequences, &lens, &draws, reading))
    }

    /// Forgets recordings of steps over buffers that the caches no longer have, and gives those buffers back.
    fn follow_caches(&mut self) {
        let generation = self.kv.generation();
        if self.recorded_generation != generation {
            self.recorded_generation = generation;
            self.recordings.clear();
            memory_cleanup(&self.device);
        }
    }
}

impl CausalLm for LlamaModel {
    fn vocab_size(&self) -> usize {
        self.info.vocab_size
    }

    fn context_length(&self) -> usize {
        self.info.context_length
    }

    fn max_step_tokens(&self) -> usize {
        MAX_STEP_TOKENS
    }

    fn kv_granularity(&self) -> usize {
        BLOCK_TOKENS
    }

    fn open(&mut self) -> SequenceId {
        self.kv.open()
    }

    fn fork_at(&mut self, from: SequenceId, n_tokens: usize) -> Result<SequenceId, ModelError> {
        self.kv.fork_at(from, n_tokens)
    }

    fn close(&mut self, sequence: SequenceId) {
        self.kv.close(sequence);
        self.follow_caches();
    }

    fn len(&self, sequence: SequenceId) -> usize {
        self.kv.len(sequence)
    }

    fn kv_bytes(&self) -> u64 {
        self.kv.held_bytes()
    }

    async fn forward(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<f32>, ModelError> {
        self.ahead = None;
        let plan = self.plan(feeds)?;
        if plan.rows.is_empty() {
            return Ok(Vec::new());
        }
        let logits = if let Some(logits) = self.replay(&plan, None)? {
            into_values(read(logits).await?)?
        } else {
            let hidden = self.launch(&plan);
            if plan.wanted.is_empty() {
                finished(hidden).await?;
                Vec::new()
            } else {
                self.logits(hidden, &plan.wanted).await?
            }
        };
        self.kv.commit(feeds);
        Ok(logits)
    }

    async fn forward_drawn(
        &mut self,
        feeds: &[Feed<'_>],
        draws: &[Draw],
        after: Option<&[Draw]>,
    ) -> Result<Option<Vec<Drawn>>, ModelError> {
        let vocab_size = self.info.vocab_size;
        let ahead = self.ahead.take();
        if let Some((rows, reading)) =
            ahead.and_then(|ahead| ahead.serve(feeds, draws, |sequence| self.kv.len(sequence)))
        {
            return self
                .finish_ahead(feeds, draws, after, &rows, reading)
                .await
                .map(Some);
        }
        let can_draw = |draw: &Draw| can_draw(draw, vocab_size);
        let asks = |feed: &&Feed<'_>| feed.logits == LogitsFor::Last && !feed.tokens.is_empty();
        let is_allowed = draws.iter().all(can_draw)
            && vocab_size <= DrawBuffer::MAX_VOCAB
            && feeds.iter().all(|feed| feed.logits != LogitsFor::All)
            && feeds.iter().filter(asks).count() == draws.len();
        if draws.is_empty() || draws.len() > LOGITS_ROWS || !is_allowed {
            return Ok(None);
        }
        let Some(buffer) = self.draw_buffer(draws.len())? else {
            return Ok(None);
        };
        let plan = self.plan(feeds)?;
        let drawn = match self.replay(&plan, Some(draws))? {
            Some(drawn) => {
                let rows: Vec<usize> = (0..draws.len()).collect();
                if let Some(reading) = begin_read(&drawn) {
                    return self
                        .finish_ahead(feeds, draws, after, &rows, reading)
                        .await
                        .map(Some);
                }
                drawn
            }
            None => {
                let hidden = self.launch(&plan);
                let picked = self.picked(hidden, &plan.wanted);
                let logits = self.network.logits(picked, self.profile);
                buffer.write(draws.iter());
                buffer.draw(logits, DrawKind::of(draws.iter()), self.profile)
            }
        };
        let data = read(drawn).await?;
        let drawn = Drawn::read(values_of(&data)?, draws.iter()).collect();
        self.kv.commit(feeds);
        Ok(Some(drawn))
    }
}

/// Whether the device has room for what a draw asks for.
fn can_draw(draw: &Draw, vocab_size: usize) -> bool {
    let mut tokens = draw.adjustments.iter().map(|&(token, _)| token as usize);
    draw.adjustments.len() <= DrawBuffer::MAX_ADJUSTMENTS
        && draw.n_top <= DrawBuffer::MAX_TOP
        && tokens.all(|token| token < vocab_size)
}

/// Waits until a step has run, by reading one of its values: so a long prompt neither floods the device's queue nor hides a failure
/// until its last chunk.
pub(super) async fn finished(hidden: Tensor<2>) -> Result<(), ModelError> {
    read(hidden.slice([0..1, 0..1])).await?;
    Ok(())
}

pub(super) fn values_of(data: &TensorData) -> Result<&[f32], ModelError> {
    data.as_slice().map_err(wrong_type)
}

/// The same, without a copy where the device left them as they are wanted.
pub(super) fn into_values(data: TensorData) -> Result<Vec<f32>, ModelError> {
    data.try_into_vec().map_err(wrong_type)
}

fn wrong_type(error: impl fmt::Debug) -> ModelError {
    ModelError::Execution {
        message: format!("logits are not single precision: {error:?}"),
    }
}

fn read_config(header: &GgufHeader, architecture: Architecture) -> Result<LlamaConfig, ModelError> {
    let embedding = Place::Global(GlobalPart::Embedding).name();
    let rows = header.tensor(&embedding).map(|tensor| tensor.n_rows());
    let rows = rows.ok_or(ModelError::MissingTensor { name: embedding })?;
    let keys = ArchitectureKeys::new(&header.metadata, architecture.name());
    LlamaConfig::from_metadata(architecture, &keys, rows)
}

/// The model's facts; those that depend on the device are zero for now.
fn model_info(
    header: &GgufHeader,
    config: &LlamaConfig,
    options: LoadOptions,
) -> Result<ModelInfo, ModelError> {
    let most = options.context_length.map_or(usize::MAX, usize::from);
    let context_length = config.context_length.min(most);
    let n_values = header
        .tensors
        .iter()
        .map(|tensor| tensor.n_rows().saturating_mul(tensor.n_cols()));
    Ok(ModelInfo {
        architecture: config.architecture.name().to_owned(),
        name: header
            .metadata
            .find::<&str>("general.name")?
            .map(str::to_owned),
        n_layers: config.n_layers,
        hidden_size: config.hidden_size,
        n_heads: config.n_heads,
        n_kv_heads: config.n_kv_heads,
        vocab_size: config.vocab_size,
        context_length,
        trained_context_length: config.context_length,
        n_parameters: n_values.fold(0, u64::saturating_add),
        weight_bytes: 0,
        kv_bytes_per_token: 0,
    })
}
