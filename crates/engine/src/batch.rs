//! Forward steps that all sequences of a model share.
//!
//! Whoever wants tokens fed asks a [`Batcher`] and waits. Nobody drives it but those who wait: each poll of a waiting task polls the step
//! under way, or begins one. A step first lets the host run, which gives every other task the chance to ask too, and then takes what has
//! been asked for: all feeds of one token, so that no stream stalls, and as many of the longer ones, pieces of prompts, as its rows allow.
//!
//! Rows of a step do not see one another, so results do not depend on the company. (The idea of forming the batch anew at every step is
//! that of Yu et al. 2022, "Orca".)

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use cinderlm_models::{CausalLm, Draw, Drawn, Feed, LogitsFor, ModelError, SequenceId};

use crate::prefix::{PrefixCache, PrefixStats, Scope};
use crate::runtime::Runtime;
use crate::seats::Seats;
use crate::work::WorkStats;

/// Names a request; feeds of one request fail together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RequestId(u64);

/// What a feed gives.
#[derive(Clone, Debug)]
pub(crate) enum Fed {
    /// The rows of logits that it asked for.
    Logits(Vec<f32>),
    /// What the model drew in place of the last row.
    Drawn(Drawn),
}

type Answer = Result<Fed, ModelError>;
type Step = Pin<Box<dyn Future<Output = ()>>>;

/// A model and the step that its users share.
pub(crate) struct Batcher<M, R> {
    shared: Rc<Shared<M, R>>,
}

struct Shared<M, R> {
    /// Borrowed by the step under way while it runs on the model.
    model: RefCell<M>,
    runtime: R,
    limits: BatchLimits,
    desk: RefCell<Desk>,
    prefixes: RefCell<PrefixCache>,
    /// Those who use sequences; the room that they leave is for what is kept.
    seats: Rc<Seats>,
    step: RefCell<Option<Step>>,
    wakers: Arc<Wakers>,
    n_requests: Cell<u64>,
    work: Cell<WorkStats>,
}

#[derive(Clone, Copy, Debug)]
struct BatchLimits {
    vocab_size: usize,
    /// Rows of a step for pieces of prompts.
    prompt_rows: usize,
    /// Rows of a step for feeds of one token.
    single_rows: usize,
}

/// Feeds that are asked for, under way and answered.
#[derive(Debug, Default)]
struct Desk {
    /// In the order of asking.
    waiting: VecDeque<Asked>,
    /// Those of the step under way that somebody still waits for.
    running: Vec<u64>,
    answers: HashMap<u64, Answer>,
    /// Whether the step under way has taken its batch.
    has_begun: bool,
    /// Sequences that were given up while the model was in use.
    to_close: Vec<SequenceId>,
    n_asked: u64,
}

#[derive(Clone, Debug)]
struct Asked {
    ticket: u64,
    request: RequestId,
    sequence: SequenceId,
    tokens: Vec<u32>,
    logits: LogitsFor,
    draws: Draws,
}

/// How tokens are drawn, where the model may do that.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draws {
    /// The next one.
    pub(crate) next: Option<Draw>,
    /// The one after it, where that is known already: the model may begin with it.
    pub(crate) after: Option<Draw>,
}

impl Asked {
    fn wants_rows(&self) -> bool {
        self.logits != LogitsFor::None
    }

    fn feed(&self) -> Feed<'_> {
        Feed {
            sequence: self.sequence,
            tokens: &self.tokens,
            logits: self.logits,
        }
    }
}

impl<M: CausalLm + 'static, R: Runtime + 'static> Batcher<M, R> {
    /// Steps of `model`; prompts take up to `prompt_rows` rows of each. Sequences of up to `prefix_tokens` in all are kept for prompts that
    /// begin as they do.
    pub(crate) fn new(
        model: M,
        runtime: R,
        seats: Rc<Seats>,
        prompt_rows: usize,
        prefix_tokens: usize,
    ) -> Self {
        let prefixes = PrefixCache::new(prefix_tokens, model.kv_granularity());
        let max_rows = model.max_step_tokens();
        let prompt_rows = prompt_rows.min(max_rows / 2).max(1);
        let limits = BatchLimits {
            vocab_size: model.vocab_size(),
            prompt_rows,
            single_rows: max_rows.saturating_sub(prompt_rows).max(1),
        };
        Self {
            shared: Rc::new(Shared {
                model: RefCell::new(model),
                runtime,
                limits,
                desk: RefCell::default(),
                prefixes: RefCell::new(prefixes),
                seats,
                step: RefCell::default(),
                wakers: Arc::default(),
                n_requests: Cell::default(),
                work: Cell::default(),
            }),
        }
    }

    /// Tokens of a prompt that may be fed at a time.
    pub(crate) fn prompt_rows(&self) -> usize {
        self.shared.limits.prompt_rows
    }

    /// An id for another request.
    pub(crate) fn request(&self) -> RequestId {
        let id = self.shared.n_requests.get();
        self.shared.n_requests.set(id + 1);
        RequestId(id)
    }

    /// Starts an empty sequence.
    pub(crate) async fn open(&self, scope: &Scope) -> Sequence<M, R> {
        let id = self.with_model(CausalLm::open).await;
        self.own(id, scope, Some(Vec::new()))
    }

    /// Starts a sequence that holds as much of a prompt's beginning as is kept for its scope, which may be nothing, but never all of it.
    /// Gives the number of tokens too.
    pub(crate) async fn open_for(&self, scope: &Scope, prompt: &[u32]) -> (Sequence<M, R>, usize) {
        let prefixes = &self.shared.prefixes;
        let begun = self.with_model(|model| {
            let (from, n) = prefixes.borrow_mut().find(scope, prompt)?;
            let id = model.fork_at(from, n).ok()?;
            prefixes.borrow_mut().count_hit(n);
            Some((id, n))
        });
        match begun.await {
            Some((id, n)) => (self.own(id, scope, Some(prompt[..n].to_vec())), n),
            None => (self.open(scope).await, 0),
        }
    }

    /// Starts a sequence with the contents of another.
    pub(crate) async fn fork(&self, from: &Sequence<M, R>) -> Result<Sequence<M, R>, ModelError> {
        let id = self.with_model(|model| model.fork(from.id)).await?;
        // Of the choices of a prompt, the one that has its own sequence is kept: they differ in their ends only.
        Ok(self.own(id, &from.scope, None))
    }

    /// Gives up what is kept where those who are seated now may need the room.
    pub(crate) fn make_room(&self) {
        let shared = &self.shared;
        let closed = (shared.prefixes.borrow_mut()).shrink(shared.seats.n_free_tokens());
        closed.into_iter().for_each(|id| shared.close(id));
    }

    /// Bytes of the keys and values that the model holds, unless a step uses it just now.
    pub(crate) fn kv_bytes(&self) -> Option<u64> {
        let model = self.shared.model.try_borrow().ok()?;
        Some(model.kv_bytes())
    }

    /// What steps have cost the device.
    pub(crate) fn work_stats(&self) -> WorkStats {
        self.shared.work.get()
    }

    /// What the kept sequences have been good for.
    pub(crate) fn prefix_stats(&self) -> PrefixStats {
        self.shared.prefixes.borrow().stats()
    }

    /// Appends `tokens`, at least one, to a sequence in one of the next steps. Returns the rows of logits that are asked for.
    pub(crate) async fn feed(
        &self,
        request: RequestId,
        sequence: &Sequence<M, R>,
        tokens: &[u32],
        logits: LogitsFor,
    ) -> Result<Vec<f32>, ModelError> {
        let draws = Draws::default();
        match self.ask(request, sequence, tokens, logits, draws).await? {
            Fed::Logits(rows) => Ok(rows),
            Fed::Drawn(_) => Ok(Vec::new()), // Only who asks for a draw is given one.
        }
    }

    /// Appends tokens to a sequence in one of the next steps. The model may draw the one after them as `draws` says; else its logits are
    /// returned.
    pub(crate) async fn feed_and_draw(
        &self,
        request: RequestId,
        sequence: &Sequence<M, R>,
        tokens: &[u32],
        draws: Draws,
    ) -> Answer {
        self.ask(request, sequence, tokens, LogitsFor::Last, draws)
            .await
    }

    async fn ask(
        &self,
        request: RequestId,
        sequence: &Sequence<M, R>,
        tokens: &[u32],
        logits: LogitsFor,
        draws: Draws,
    ) -> Answer {
        let shared = &self.shared;
        let ticket = Ticket {
            id: shared.desk.borrow_mut().ask(Asked {
                ticket: 0,
                request,
                sequence: sequence.id,
                tokens: tokens.to_vec(),
                logits,
                draws,
            }),
            shared: Rc::clone(shared),
        };
        let rows = poll_fn(|context| {
            shared.wakers.add(context.waker());
            shared.drive();
            let answer = shared.desk.borrow_mut().answers.remove(&ticket.id);
            answer.map_or(Poll::Pending, Poll::Ready)
        })
        .await?;
        if let Some(held) = &sequence.tokens {
            held.borrow_mut().extend_from_slice(tokens);
        }
        Ok(rows)
    }

    /// Waits until no step uses the model.
    async fn with_model<T>(&self, mut act: impl FnMut(&mut M) -> T) -> T {
        let shared = &self.shared;
        poll_fn(|context| {
            shared.wakers.add(context.waker());
            shared.drive();
            match shared.model.try_borrow_mut() {
                Ok(mut model) => Poll::Ready(act(&mut model)),
                Err(_) => Poll::Pending,
            }
        })
        .await
    }

    fn own(&self, id: SequenceId, scope: &Scope, tokens: Option<Vec<u32>>) -> Sequence<M, R> {
        Sequence {
            id,
            scope: Rc::clone(scope),
            tokens: tokens.map(RefCell::new),
            shared: Rc::clone(&self.shared),
        }
    }
}

impl<M: CausalLm + 'static, R: Runtime + 'static> Shared<M, R> {
    /// Polls the step under way; begins one if there is none and something is asked for.
    fn drive(self: &Rc<Self>) {
        let mut slot = self.step.borrow_mut();
        if slot.is_none() && self.desk.borrow().waiting.is_empty() {
            return;
        }
        let step = slot.get_or_insert_with(|| Box::pin(Rc::clone(self).run_step()));
        let waker = Waker::from(Arc::clone(&self.wakers));
        if step
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
        {
            let ended = slot.take();
            drop(slot);
            ended.into_iter().for_each(|step| self.end_step(step));
        }
    }

    #[allow(
        clippy::await_holding_refcell_ref,
        reason = "the model is in use until the step has run; everyone else asks whether it can be borrowed"
    )]
    async fn run_step(self: Rc<Self>) {
        self.runtime.yield_now().await;
        let batch = self.desk.borrow_mut().take_batch(self.limits);
        if batch.is_empty() {
            return;
        }
        let mut model = self.model.borrow_mut();
        self.runtime.take_work(); // Others may have used the device meanwhile.
        let mut result = run(&mut *model, &batch).await;
        if let Err(ModelError::OutOfMemory { .. }) = result {
            // What is kept for later must not be what is missing now.
            let kept = self.prefixes.borrow_mut().clear();
            if !kept.is_empty() {
                kept.into_iter().for_each(|sequence| model.close(sequence));
                result = run(&mut *model, &batch).await;
            }
        }
        let mut work = self.work.get();
        work.count(
            batch.iter().all(|asked| asked.tokens.len() == 1),
            batch.iter().map(|asked| asked.tokens.len()).sum(),
            self.runtime.take_work(),
        );
        self.work.set(work);
        match result {
            Ok(output) => self.answer(&batch, output),
            Err(error) => self.run_apart(&mut *model, batch, error).await,
        }
    }

    /// Runs a batch that failed again, request by request: one that asks for too much must not fail the others.
    async fn run_apart(&self, model: &mut M, mut batch: Vec<Asked>, error: ModelError) {
        let is_of_one = batch
            .windows(2)
            .all(|pair| pair[0].request == pair[1].request);
        if is_of_one || matches!(error, ModelError::DeviceLost { .. }) {
            self.fail(&batch, &error);
            return;
        }
        while let Some(first) = batch.first() {
            let request = first.request;
            let (own, others) = batch
                .into_iter()
                .partition(|asked| asked.request == request);
            batch = others;
            let own: Vec<Asked> = own;
            match run(model, &own).await {
                Ok(output) => self.answer(&own, output),
                Err(error) => self.fail(&own, &error),
            }
        }
    }

    fn answer(&self, batch: &[Asked], output: Output) {
        let mut desk = self.desk.borrow_mut();
        let mut logits = match output {
            Output::Logits(logits) => logits,
            Output::Drawn(drawn) => {
                let mut drawn = drawn.into_iter();
                for asked in batch {
                    let drawn = asked.wants_rows().then(|| drawn.next()).flatten();
                    let fed = drawn.map_or_else(|| Fed::Logits(Vec::new()), Fed::Drawn);
                    desk.answer(asked.ticket, Ok(fed));
                }
                return;
            }
        };
        // From the last on; the only one gets the rows without a copy.
        for asked in batch.iter().rev() {
            let n_values = asked.logits.n_rows(asked.tokens.len()) * self.limits.vocab_size;
            let own = match batch.len() {
                1 => std::mem::take(&mut logits),
                _ => logits.split_off(logits.len().saturating_sub(n_values)),
            };
            desk.answer(asked.ticket, Ok(Fed::Logits(own)));
        }
    }

    fn fail(&self, batch: &[Asked], error: &ModelError) {
        let mut desk = self.desk.borrow_mut();
        for asked in batch {
            desk.answer(asked.ticket, Err(error.clone()));
        }
    }
}

/// What a step gives.
enum Output {
    /// The rows that were asked for, feed by feed.
    Logits(Vec<f32>),
    /// One draw for each feed that has one; the others asked for no rows.
    Drawn(Vec<Drawn>),
}

/// Runs a batch on the model, which draws the tokens if every feed lets it that asks for anything.
async fn run(model: &mut impl CausalLm, batch: &[Asked]) -> Result<Output, ModelError> {
    let feeds: Vec<Feed<'_>> = batch.iter().map(Asked::feed).collect();
    let asking = batch.iter().filter(|asked| asked.wants_rows());
    let draws: Option<Vec<Draw>> = asking.map(|asked| asked.draws.next.clone()).collect();
    let after: Option<Vec<Draw>> = (batch.iter())
        .map(|asked| asked.draws.after.clone())
        .collect();
    if let Some(draws) = draws
        && !draws.is_empty()
        && let Some(drawn) = (model.forward_drawn(&feeds, &draws, after.as_deref())).await?
    {
        return Ok(Output::Drawn(drawn));
    }
    model.forward(&feeds).await.map(Output::Logits)
}

impl<M: CausalLm, R> Shared<M, R> {
    /// Ends a sequence now, or as soon as the step under way has run.
    fn close(&self, sequence: SequenceId) {
        match self.model.try_borrow_mut() {
            Ok(mut model) => model.close(sequence),
            Err(_) => self.desk.borrow_mut().to_close.push(sequence),
        }
    }

    /// What follows a step that has run, or that nobody wants any more.
    fn end_step(&self, step: Step) {
        drop(step); // And with it the use of the model.
        let mut desk = self.desk.borrow_mut();
        desk.has_begun = false;
        let sequences = std::mem::take(&mut desk.to_close);
        drop(desk);
        sequences
            .into_iter()
            .for_each(|sequence| self.close(sequence));
        // Those whose answers are there, those whose turn is next, and those who wait for the model.
        self.wakers.wake_all();
    }
}

impl Desk {
    fn ask(&mut self, asked: Asked) -> u64 {
        let ticket = self.n_asked;
        self.n_asked += 1;
        self.waiting.push_back(Asked { ticket, ..asked });
        ticket
    }

    /// Takes what fits a step, in the order of asking.
    fn take_batch(&mut self, limits: BatchLimits) -> Vec<Asked> {
        let (mut n_singles, mut n_prompt_rows) = (0, 0);
        let mut batch = Vec::new();
        let mut later = VecDeque::new();
        for asked in self.waiting.drain(..) {
            let n_tokens = asked.tokens.len();
            let (n_taken, max) = match n_tokens {
                1 => (&mut n_singles, limits.single_rows),
                _ => (&mut n_prompt_rows, limits.prompt_rows),
            };
            // What does not fit fills its share: nothing that was asked for later may overtake it.
            let fits = *n_taken + n_tokens <= max;
            *n_taken = if fits { *n_taken + n_tokens } else { max };
            if fits {
                batch.push(asked);
            } else {
                later.push_back(asked);
            }
        }
        self.waiting = later;
        self.running = batch.iter().map(|asked| asked.ticket).collect();
        self.has_begun = true;
        batch
    }

    /// Leaves an answer for whoever asked, if somebody still waits for it.
    fn answer(&mut self, ticket: u64, answer: Answer) {
        if let Some(index) = self.running.iter().position(|running| *running == ticket) {
            self.running.swap_remove(index);
            self.answers.insert(ticket, answer);
        }
    }

    /// Forgets a feed. Returns whether it was the last that the step under way was for.
    fn forget(&mut self, ticket: u64) -> bool {
        let n_before = self.waiting.len() + self.running.len();
        self.waiting.retain(|asked| asked.ticket != ticket);
        self.running.retain(|running| *running != ticket);
        self.answers.remove(&ticket);
        let is_gone = self.waiting.len() + self.running.len() < n_before;
        // A step that has not taken its batch yet is for those who wait.
        is_gone && self.running.is_empty() && (self.has_begun || self.waiting.is_empty())
    }
}

/// A feed that somebody waits for.
struct Ticket<M: CausalLm, R> {
    id: u64,
    shared: Rc<Shared<M, R>>,
}

impl<M: CausalLm, R> Drop for Ticket<M, R> {
    fn drop(&mut self) {
        let shared = &self.shared;
        if !shared.desk.borrow_mut().forget(self.id) {
            return;
        }
        // A step that is being polled ends by itself.
        let step = shared.step.try_borrow_mut().map(|mut step| step.take());
        if let Ok(Some(step)) = step {
            shared.end_step(step);
        }
    }
}

/// A sequence of the model. Dropping it frees its memory, unless it is kept for prompts that begin as it does.
pub(crate) struct Sequence<M: CausalLm, R> {
    id: SequenceId,
    scope: Scope,
    /// Those that were fed and answered, of a sequence that is to be kept; the model may hold more of one that was given up.
    tokens: Option<RefCell<Vec<u32>>>,
    shared: Rc<Shared<M, R>>,
}

impl<M: CausalLm, R> Sequence<M, R> {
    /// Drops the sequence such that it is kept, if there is room; it holds these tokens.
    pub(crate) fn set_aside(mut self, tokens: impl FnOnce() -> Vec<u32>) {
        self.tokens.get_or_insert_with(|| RefCell::new(tokens()));
    }
}

impl<M: CausalLm, R> Drop for Sequence<M, R> {
    fn drop(&mut self) {
        let shared = &self.shared;
        let closed = match &self.tokens {
            Some(tokens) => {
                let (scope, n_free) = (Rc::clone(&self.scope), shared.seats.n_free_tokens());
                (shared.prefixes.borrow_mut()).keep(self.id, scope, tokens.take(), n_free)
            }
            None => vec![self.id],
        };
        closed.into_iter().for_each(|id| shared.close(id));
    }
}

/// The tasks that wait for a batcher: what wakes one wakes all.
#[derive(Debug, Default)]
struct Wakers(Mutex<Vec<Waker>>);

impl Wakers {
    fn add(&self, waker: &Waker) {
        let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    fn wake_all(&self) {
        let wakers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}
