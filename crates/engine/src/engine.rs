//! The engine of one model.

use std::rc::Rc;

use cinderlm_models::CausalLm;
use cinderlm_protocol::{CompletionError, CompletionRequest, Device};
use cinderlm_tokenizer::Tokenizer;

use crate::emitter::{Emitter, Header};
use crate::generation::Generation;
use crate::meter::Meter;
use crate::plan::{ModelLimits, Plan};
use crate::runtime::Runtime;
use crate::session::ModelSession;
use crate::stream::{ChunkSink, CompletionStream};
use crate::turns::Turns;

/// What responses say about the model that made them.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The id that the model is registered under.
    pub model: String,
    /// Changes with all that may change results for the same seed: see [`system_fingerprint`](crate::system_fingerprint).
    pub system_fingerprint: String,
    /// What the model runs on.
    pub device: Device,
}

/// How an engine works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Prompt tokens that are fed in one step, at least 1; at most what the model takes. Between steps the host's event loop runs,
    /// so fewer mean that a cancellation is heard sooner, more that a prompt is read faster.
    pub prefill_rows: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { prefill_rows: 64 }
    }
}

/// Answers completion requests with one model.
///
/// Requests take turns at the model, first come first served; each runs from its prompt to its last token. A clone is another
/// handle to the same engine.
pub struct Engine<M, R> {
    shared: Rc<Shared<M, R>>,
}

struct Shared<M, R> {
    model: Turns<M>,
    limits: ModelLimits,
    tokenizer: Tokenizer,
    identity: Identity,
    runtime: R,
    options: EngineOptions,
}

impl<M: CausalLm + 'static, R: Runtime + 'static> Engine<M, R> {
    /// An engine for a model that is loaded, and the tokenizer of its vocabulary.
    pub fn new(
        model: M,
        tokenizer: Tokenizer,
        identity: Identity,
        runtime: R,
        options: EngineOptions,
    ) -> Self {
        let limits = ModelLimits {
            vocab_size: model.vocab_size(),
            context_length: model.context_length(),
        };
        let shared = Shared {
            model: Turns::new(model),
            limits,
            tokenizer,
            identity,
            runtime,
            options,
        };
        Self {
            shared: Rc::new(shared),
        }
    }

    /// Answers a request. Nothing happens until the stream is polled; what it promises is written at [`CompletionStream`]. Its
    /// chunks joined by [`collect`](crate::collect) are the whole completion.
    ///
    /// # Errors
    /// The stream ends with an error where the contract has one: the request asks for what this model cannot do or hold, or a step
    /// of the model fails. Other requests are not disturbed.
    pub fn complete(&self, request: CompletionRequest) -> CompletionStream {
        let shared = Rc::clone(&self.shared);
        CompletionStream::new(|sink| async move { shared.drive(&request, &sink).await })
    }

    /// The tokenizer of the model's vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    /// What responses say about the model.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// The most tokens that a prompt and its continuation may have together.
    pub fn context_length(&self) -> usize {
        self.shared.limits.context_length
    }
}

impl<M, R> Clone for Engine<M, R> {
    fn clone(&self) -> Self {
        Self {
            shared: Rc::clone(&self.shared),
        }
    }
}

impl<M: CausalLm, R: Runtime> Shared<M, R> {
    async fn drive(
        &self,
        request: &CompletionRequest,
        sink: &ChunkSink,
    ) -> Result<(), CompletionError> {
        let runtime = &self.runtime;
        let mut meter = Meter::new(runtime.now_millis());
        let header = self.header();
        let plan = Plan::new(request, self.limits, &self.tokenizer, || {
            runtime.random_seed()
        })?;
        let n_choices = plan.prompts.len() * plan.n as usize;
        let mut emitter = Emitter::new(sink, header, request, n_choices);

        let turn = self.model.take().await;
        meter.begin(runtime.now_millis());
        let generation = Generation {
            session: ModelSession::new(turn, runtime),
            tokenizer: &self.tokenizer,
            runtime,
            plan: &plan,
            meter: &mut meter,
            prefill_rows: self.options.prefill_rows,
        };
        // Consumes the generation, and with it the turn: the next request need not wait for this one's consumer.
        generation.run(&mut emitter).await?;
        emitter.finish(&meter).await;
        Ok(())
    }

    fn header(&self) -> Header {
        Header {
            id: format!("cmpl-{:016x}", self.runtime.random_seed()),
            created: self.runtime.unix_seconds(),
            model: self.identity.model.clone(),
            system_fingerprint: self.identity.system_fingerprint.clone(),
            device: self.identity.device,
        }
    }
}
