//! The engine of one model.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use cinderlm_models::CausalLm;
use cinderlm_protocol::{CompletionError, CompletionRequest, Device, ErrorCode};
use cinderlm_tokenizer::Tokenizer;

use crate::batch::Batcher;
use crate::emitter::{Emitter, Header};
use crate::generation::Generation;
use crate::meter::Meter;
use crate::plan::{ModelLimits, Plan};
use crate::prefix::{PrefixStats, Scope};
use crate::runtime::Runtime;
use crate::seats::{SeatLimits, Seats};
use crate::stream::{ChunkSink, CompletionStream};
use crate::work::WorkStats;

/// When to try again if the queue is full: about as long as a short completion takes.
const RETRY_AFTER_SECONDS: f64 = 1.0;

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
    /// Prompt tokens of one step, at least 1; at most half of what the model takes. Between steps the host's event loop runs, so fewer
    /// mean that a cancellation is heard sooner and that streams beside a long prompt flow more evenly, more that prompts are read faster.
    pub prefill_rows: usize,
    /// Choices that are generated at a time, over all requests, at least 1. The others wait, first come first served.
    pub max_batch: usize,
    /// Tokens whose keys and values the model holds: those that the choices which are generated may come to, and those of sequences that
    /// are kept. A choice waits until there is room for its prompt and `max_tokens`; one that is alone may have more.
    pub kv_tokens: usize,
    /// Of these, tokens of sequences that are kept after their requests, so that a prompt that begins as one of them does is read from
    /// where they part. 0 keeps none.
    pub prefix_tokens: usize,
    /// Requests that may wait; one more is refused with `queue_full`.
    pub max_queue: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            prefill_rows: 64,
            max_batch: 16,
            kv_tokens: usize::MAX,
            prefix_tokens: 0,
            max_queue: 64,
        }
    }
}

/// What a caller says beside its request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// Names those who share what is kept of earlier requests. From how fast a prompt is read its caller can tell that one like it was read
    /// before, so those who must not learn of each other need scopes of their own.
    pub cache_scope: String,
}

/// Answers completion requests with one model.
///
/// All choices that are being generated, of one request or of several, take their steps together: a step of the model feeds one token
/// to each, and pieces of the prompts that are being read. A clone is another handle to the same engine.
pub struct Engine<M, R> {
    shared: Rc<Shared<M, R>>,
}

struct Shared<M, R> {
    batcher: Batcher<M, R>,
    seats: Rc<Seats>,
    /// Requests that have no seat yet.
    n_waiting: Rc<Cell<usize>>,
    limits: ModelLimits,
    tokenizer: Tokenizer,
    identity: Identity,
    runtime: R,
    options: EngineOptions,
}

impl<M: CausalLm + 'static, R: Runtime + Clone + 'static> Engine<M, R> {
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
            kv_granularity: model.kv_granularity(),
        };
        let seats = Seats::new(SeatLimits {
            n_seats: options.max_batch,
            n_tokens: options.kv_tokens,
        });
        let shared = Shared {
            batcher: Batcher::new(
                model,
                runtime.clone(),
                Rc::clone(&seats),
                options.prefill_rows,
                options.prefix_tokens,
            ),
            seats,
            n_waiting: Rc::default(),
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
        self.complete_for(request, &CallOptions::default())
    }

    /// [`complete`](Self::complete) for a caller with options.
    pub fn complete_for(
        &self,
        request: CompletionRequest,
        options: &CallOptions,
    ) -> CompletionStream {
        let shared = Rc::clone(&self.shared);
        let scope = Scope::from(options.cache_scope.as_str());
        let meter = Meter::new(shared.runtime.now_millis());
        let meter = Rc::new(RefCell::new(meter));
        CompletionStream::new(Rc::clone(&meter), |sink| async move {
            shared.drive(&request, &scope, &meter, &sink).await
        })
    }

    /// The tokenizer of the model's vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    /// What responses say about the model.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// Bytes of the keys and values that the model holds, of choices that are generated and of kept sequences; `None` while a step uses
    /// the model.
    pub fn kv_bytes(&self) -> Option<u64> {
        self.shared.batcher.kv_bytes()
    }

    /// What the model's steps have cost the device.
    pub fn work_stats(&self) -> WorkStats {
        self.shared.batcher.work_stats()
    }

    /// What kept sequences have been good for.
    pub fn prefix_stats(&self) -> PrefixStats {
        self.shared.batcher.prefix_stats()
    }

    /// The most tokens that a prompt and its continuation may have together.
    pub fn context_length(&self) -> usize {
        self.shared.limits.context_length
    }
}

/// A place among the requests that wait; dropping it leaves them.
#[derive(Debug)]
pub(crate) struct QueuePlace(Rc<Cell<usize>>);

impl Drop for QueuePlace {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl<M, R> Clone for Engine<M, R> {
    fn clone(&self) -> Self {
        Self {
            shared: Rc::clone(&self.shared),
        }
    }
}

impl<M: CausalLm + 'static, R: Runtime + 'static> Shared<M, R> {
    async fn drive(
        &self,
        request: &CompletionRequest,
        scope: &Scope,
        meter: &RefCell<Meter>,
        sink: &ChunkSink,
    ) -> Result<(), CompletionError> {
        let runtime = &self.runtime;
        let header = self.header();
        let plan = Plan::new(request, self.limits, &self.tokenizer, || {
            runtime.random_seed()
        })?;
        let n_choices = plan.prompts.len() * plan.n as usize;
        let emitter = Emitter::new(sink, header, request, n_choices);
        let generation = Generation {
            id: self.batcher.request(),
            place: Cell::new(Some(self.enter_queue(&plan)?)),
            scope,
            batcher: &self.batcher,
            seats: &self.seats,
            tokenizer: &self.tokenizer,
            runtime,
            plan: &plan,
            meter,
            emitter: &emitter,
        };
        generation.run().await?;
        let meter = *meter.borrow();
        emitter.finish(&meter).await;
        Ok(())
    }

    /// A place among the requests that wait for their first seat.
    fn enter_queue(&self, plan: &Plan) -> Result<QueuePlace, CompletionError> {
        let (n_waiting, max) = (self.n_waiting.get(), self.options.max_queue);
        let n_tokens = (plan.prompts.first()).map_or(0, |prompt| plan.n_tokens(prompt));
        if self.seats.are_taken_for(n_tokens) && n_waiting >= max {
            let message = format!("{n_waiting} requests wait for the model, the most that may");
            let error = CompletionError::new(ErrorCode::QueueFull, message);
            return Err(error.with_retry_after(RETRY_AFTER_SECONDS));
        }
        self.n_waiting.set(n_waiting + 1);
        Ok(QueuePlace(Rc::clone(&self.n_waiting)))
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
