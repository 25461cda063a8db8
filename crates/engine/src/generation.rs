//! One request, from its prompts to its last token.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use cinderlm_models::{CausalLm, Draw, ModelError};
use cinderlm_protocol::{Choice, CompletionError, FinishReason};
use cinderlm_sampler::LogProbabilities;
use cinderlm_tokenizer::Tokenizer;
use futures::future::{Either, select, try_join_all};

use crate::batch::{Batcher, Draws, Fed, RequestId, Sequence};
use crate::choice::{ChoiceRun, Delta};
use crate::emitter::Emitter;
use crate::engine::QueuePlace;
use crate::failure::{model_failure, sample_failure};
use crate::logprobs::TokenEntry;
use crate::meter::Meter;
use crate::plan::Plan;
use crate::prefill::{PrefillPlan, Prefilled, prefill};
use crate::prefix::Scope;
use crate::prompt::PromptTokens;
use crate::runtime::Runtime;
use crate::seats::{Seat, Seats};

/// A request at work. Its prompts and choices run side by side, each a task that asks the batcher for its own steps; all that one choice
/// needs is in its [`ChoiceRun`].
pub(crate) struct Generation<'a, M, R> {
    pub(crate) id: RequestId,
    /// Its place in the queue, until it has a seat.
    pub(crate) place: Cell<Option<QueuePlace>>,
    pub(crate) scope: &'a Scope,
    pub(crate) batcher: &'a Batcher<M, R>,
    pub(crate) seats: &'a Rc<Seats>,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) runtime: &'a R,
    pub(crate) plan: &'a Plan,
    pub(crate) meter: &'a RefCell<Meter>,
    pub(crate) emitter: &'a Emitter<'a>,
}

/// A prompt that is ready to be continued.
struct ReadPrompt<'a, M: CausalLm, R> {
    index: u32,
    prompt: &'a PromptTokens,
    /// What every choice begins with.
    echo: Delta,
    /// Until the last candidate has begun. Nothing if it was given up meanwhile.
    prefilled: RefCell<Option<Rc<Prefilled<M, R>>>>,
    /// Candidates that have not begun.
    n_left: Cell<u32>,
    /// The seat that the prompt was read in, for the first candidate.
    seat: Cell<Option<Seat>>,
}

/// A choice on its way.
struct Candidate<M: CausalLm, R> {
    run: ChoiceRun,
    /// Nothing while it rests and has left its place to another.
    place: Option<Place<M, R>>,
}

/// What a choice has of the model.
struct Place<M: CausalLm, R> {
    /// Dropped first: what the sequence has room for then is free to keep it.
    seat: Seat,
    sequence: Sequence<M, R>,
    /// What its next step gives, where reading the prompt has left it.
    next: Option<Fed>,
}

impl<M: CausalLm + 'static, R: Runtime + 'static> Generation<'_, M, R> {
    /// Generates and sends every choice of the request.
    pub(crate) async fn run(&self) -> Result<(), CompletionError> {
        let prompts = (0..).zip(&self.plan.prompts);
        try_join_all(prompts.map(|(index, prompt)| self.answer(index, prompt))).await?;
        Ok(())
    }

    /// Generates and sends every choice of a prompt.
    async fn answer(&self, index: u32, prompt: &PromptTokens) -> Result<(), CompletionError> {
        let is_scored = self.plan.echo && self.plan.n_top.is_some();
        let seat = match self.plan.max_tokens > 0 || is_scored {
            true => Some(self.take_seat(prompt).await),
            false => {
                drop(self.place.take()); // It waits for nothing.
                None
            }
        };
        let (echo, prefilled) = self.read(index, prompt, seat.is_some()).await?;
        let Some(prefilled) = prefilled else {
            drop(seat);
            return self.send_echoes(index, &echo).await;
        };
        let read = ReadPrompt {
            index,
            prompt,
            echo,
            prefilled: RefCell::new(Some(Rc::new(prefilled))),
            n_left: Cell::new(self.plan.n_candidates),
            seat: Cell::new(seat),
        };
        if self.plan.is_ranked() {
            self.send_best(&read).await
        } else {
            let choices = (0..self.plan.n).map(|number| self.send(&read, number));
            try_join_all(choices).await?;
            Ok(())
        }
    }

    /// Whether one more choice of this prompt would have to wait for a seat.
    fn must_wait(&self, prompt: &PromptTokens) -> bool {
        (self.seats).are_taken_for(self.plan.n_tokens(prompt))
    }

    async fn take_seat(&self, prompt: &PromptTokens) -> Seat {
        let seat = self.seats.take(self.plan.n_tokens(prompt)).await;
        self.batcher.make_room();
        drop(self.place.take());
        self.meter.borrow_mut().begin(self.runtime.now_millis());
        seat
    }

    /// Feeds a prompt to the model, as far as anything is to be learned from it. Gives what choices begin with, and what they go on
    /// from if any token is wanted.
    async fn read(
        &self,
        index: u32,
        prompt: &PromptTokens,
        is_read: bool,
    ) -> Result<(Delta, Option<Prefilled<M, R>>), CompletionError> {
        let started = self.runtime.now_millis();
        let mut echo = Delta::default();
        if self.plan.echo {
            echo.text.clone_from(&prompt.text);
        }
        let is_continued = self.plan.max_tokens > 0;
        let mut prefilled = None;
        if is_read {
            let scored = self.plan.n_top.filter(|_| self.plan.echo);
            let entries = &mut echo.entries;
            let score = scored.map(|n_top| scorer(prompt, self.tokenizer, n_top, entries));
            let only = (self.plan.n_candidates == 1).then(|| self.run_of(index, 0, prompt));
            let plan = PrefillPlan {
                request: self.id,
                scope: self.scope,
                tokens: &prompt.ids,
                is_continued,
                draw: only.and_then(|run| run.draw()),
            };
            let read = prefill(self.batcher, plan, score).await;
            prefilled = Some(read.map_err(model_failure)?).filter(|_| is_continued);
        }
        let now = self.runtime.now_millis();
        let mut meter = self.meter.borrow_mut();
        meter.count_prompt(prompt.ids.len(), started, now);
        Ok((echo, prefilled))
    }

    /// Sends choices that are nothing but the prompt.
    async fn send_echoes(&self, prompt_index: u32, echo: &Delta) -> Result<(), CompletionError> {
        for i in 0..self.plan.n {
            let mut whole = echo.clone();
            whole.finish_reason = Some(FinishReason::Length);
            let choice = self.plan.choice(prompt_index, i, whole);
            self.emitter.choice(choice).await;
        }
        Ok(())
    }

    /// Sends a choice as it is generated.
    async fn send(&self, read: &ReadPrompt<'_, M, R>, number: u32) -> Result<(), CompletionError> {
        let mut candidate = self.begin(read, number).await?;
        let mut delta = read.echo.clone();
        loop {
            let has_ended = delta.finish_reason.is_some();
            let (is_empty, choice) = (
                delta.is_empty(),
                self.plan.choice(read.index, number, delta),
            );
            if has_ended {
                drop(candidate); // The model need not wait for the consumer.
                self.emitter.choice(choice).await;
                return Ok(());
            }
            if !is_empty {
                self.offer(read, &mut candidate, choice).await;
            }
            delta = self.advance(read, &mut candidate).await?;
        }
    }

    /// Sends a part of a choice. If the consumer rests and somebody waits for a seat, the choice leaves its own.
    async fn offer(&self, read: &ReadPrompt<'_, M, R>, own: &mut Candidate<M, R>, choice: Choice) {
        let taken = pin!(self.emitter.choice(choice));
        let resting = self.seats.rest();
        let wanted = pin!(poll_fn(|context| match self.emitter.is_resting() {
            true => resting.poll_wanted(context),
            false => Poll::Pending,
        }));
        let Either::Right(((), taken)) = select(taken, wanted).await else {
            return;
        };
        if let Some(Place { seat, sequence, .. }) = own.place.take() {
            drop(seat);
            let n_fed = own.run.tokens().len().saturating_sub(1);
            sequence.set_aside(|| [&read.prompt.ids, &own.run.tokens()[..n_fed]].concat());
        }
        drop(read.prefilled.take());
        taken.await;
        self.emitter.refilled().await;
    }

    /// Generates all candidates and sends the likeliest, best first.
    async fn send_best(&self, read: &ReadPrompt<'_, M, R>) -> Result<(), CompletionError> {
        let candidates = (0..self.plan.n_candidates).map(async |number| {
            let mut candidate = self.begin(read, number).await?;
            let mut whole = read.echo.clone();
            while whole.finish_reason.is_none() {
                whole.append(self.advance(read, &mut candidate).await?);
            }
            Ok((candidate.run.mean_logprob(), whole))
        });
        let mut candidates = try_join_all(candidates).await?;
        // Stable: equals stay in the order of their numbers.
        candidates.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        for (i, (_, whole)) in (0..self.plan.n).zip(candidates) {
            let choice = self.plan.choice(read.index, i, whole);
            self.emitter.choice(choice).await;
        }
        Ok(())
    }

    /// Starts the choice of this number.
    async fn begin(
        &self,
        read: &ReadPrompt<'_, M, R>,
        number: u32,
    ) -> Result<Candidate<M, R>, CompletionError> {
        let seat = match read.seat.take() {
            Some(seat) => seat,
            None => {
                if self.must_wait(read.prompt) {
                    drop(read.prefilled.take());
                }
                self.take_seat(read.prompt).await
            }
        };
        let prefilled = self.share(read).await.map_err(model_failure)?;
        Ok(Candidate {
            run: self.run_of(read.index, number, read.prompt),
            place: Some(Place {
                seat,
                sequence: prefilled.sequence,
                next: prefilled.next,
            }),
        })
    }

    /// The choice of this number, with nothing generated yet.
    fn run_of(&self, index: u32, number: u32, prompt: &PromptTokens) -> ChoiceRun {
        let sampler = self.plan.sampler(index, number);
        ChoiceRun::new(sampler, self.plan.choice_config(prompt))
    }

    /// Takes a place again for a choice that left its own.
    async fn resume(
        &self,
        read: &ReadPrompt<'_, M, R>,
        run: &ChoiceRun,
    ) -> Result<Place<M, R>, ModelError> {
        let seat = self.take_seat(read.prompt).await;
        let tokens = [&read.prompt.ids, run.tokens()].concat();
        let prefilled = self.reread(&tokens, run.draw()).await?;
        Ok(Place {
            seat,
            sequence: prefilled.sequence,
            next: prefilled.next,
        })
    }

    /// Feeds what was fed before to a sequence of its own.
    async fn reread(
        &self,
        tokens: &[u32],
        draw: Option<Draw>,
    ) -> Result<Prefilled<M, R>, ModelError> {
        let plan = PrefillPlan {
            request: self.id,
            scope: self.scope,
            tokens,
            is_continued: true,
            draw,
        };
        prefill(self.batcher, plan, None::<fn(u32, &[f32])>).await
    }

    /// The prompt for one more candidate. The last takes the prompt's own sequence: a request for one choice never forks.
    async fn share(&self, read: &ReadPrompt<'_, M, R>) -> Result<Prefilled<M, R>, ModelError> {
        let n_left = read.n_left.get().saturating_sub(1);
        read.n_left.set(n_left);
        let kept = read.prefilled.borrow().clone();
        let shared = match kept {
            Some(shared) => shared,
            None => Rc::new(self.reread(&read.prompt.ids, None).await?),
        };
        // Whoever waits for a seat holds nothing; what is kept for prompts like it may still be there later.
        let is_needed = n_left > 0 && !self.must_wait(read.prompt);
        let kept = is_needed.then(|| Rc::clone(&shared));
        read.prefilled.replace(kept);
        // One that still waits for its fork holds the prompt too: the last then forks as the others did.
        match Rc::try_unwrap(shared) {
            Ok(own) => Ok(own),
            Err(shared) => Ok(Prefilled {
                sequence: self.batcher.fork(&shared.sequence).await?,
                next: shared.next.clone(),
            }),
        }
    }

    /// Steps the model until the choice has something to say.
    async fn advance(
        &self,
        read: &ReadPrompt<'_, M, R>,
        candidate: &mut Candidate<M, R>,
    ) -> Result<Delta, CompletionError> {
        let Candidate { run, place } = candidate;
        let place = match place {
            Some(place) => place,
            None => place.insert(self.resume(read, run).await.map_err(model_failure)?),
        };
        loop {
            let started = self.runtime.now_millis();
            let is_first = run.tokens().is_empty();
            let fed = match (place.next.take(), run.tokens()) {
                (None, [.., token]) => {
                    let draws = Draws {
                        next: run.draw(),
                        after: run.draw_after(),
                    };
                    let fed = (self.batcher)
                        .feed_and_draw(self.id, &place.sequence, &[*token], draws)
                        .await;
                    fed.map_err(model_failure)?
                }
                (next, _) => next.unwrap_or(Fed::Logits(Vec::new())),
            };
            let delta = run
                .accept(self.tokenizer, fed)
                .map_err(|error| sample_failure(&error, self.plan.has_bias()))?;
            let now = self.runtime.now_millis();
            let mut meter = self.meter.borrow_mut();
            meter.count_token(is_first, started, now);
            drop(meter);
            if !delta.is_empty() {
                return Ok(delta);
            }
        }
    }
}

/// Adds an entry for a prompt's first token, and then for each token that it is given with the logits before it.
fn scorer<'a>(
    prompt: &PromptTokens,
    tokenizer: &'a Tokenizer,
    n_top: u8,
    entries: &'a mut Vec<TokenEntry>,
) -> impl FnMut(u32, &[f32]) + use<'a> {
    let offsets = prompt.text_offsets(tokenizer);
    let first = prompt.ids.first();
    entries.extend(first.map(|&id| TokenEntry::unpredicted(tokenizer, id)));
    move |id, logits| {
        let offset = offsets.get(entries.len()).copied().unwrap_or_default();
        let own = LogProbabilities::new(logits).report(id, usize::from(n_top));
        entries.push(TokenEntry::new(tokenizer, id, offset, own, n_top));
    }
}
