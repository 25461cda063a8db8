//! One request, from its turn at the model to its last token.

use cinderlm_models::{CausalLm, LogitsFor};
use cinderlm_protocol::{CompletionError, FinishReason};
use cinderlm_sampler::LogProbabilities;
use cinderlm_tokenizer::Tokenizer;

use crate::choice::{ChoiceRun, Delta};
use crate::emitter::Emitter;
use crate::failure::{model_failure, sample_failure};
use crate::logprobs::TokenEntry;
use crate::meter::Meter;
use crate::plan::Plan;
use crate::prefill::{PrefillPlan, Prefilled, prefill};
use crate::prompt::PromptTokens;
use crate::runtime::Runtime;
use crate::session::ModelSession;

/// A request at work. Choices are generated one after another; all that one choice needs is in its [`ChoiceRun`].
pub(crate) struct Generation<'a, M: CausalLm, R> {
    pub(crate) session: ModelSession<'a, M, R>,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) runtime: &'a R,
    pub(crate) plan: &'a Plan,
    pub(crate) meter: &'a mut Meter,
    /// Prompt tokens of one step.
    pub(crate) prefill_rows: usize,
}

/// A prompt that is ready to be continued.
struct ReadPrompt<'a> {
    index: u32,
    prompt: &'a PromptTokens,
    /// What every choice begins with.
    echo: Delta,
    prefilled: Prefilled,
}

/// A choice on its way.
struct Candidate {
    run: ChoiceRun,
    /// The logits of its first step, which the prompt has left.
    first_logits: Option<Vec<f32>>,
}

impl<'a, M: CausalLm, R: Runtime> Generation<'a, M, R> {
    /// Generates and sends every choice of the request.
    pub(crate) async fn run(mut self, emitter: &mut Emitter<'_>) -> Result<(), CompletionError> {
        for (index, prompt) in (0..).zip(&self.plan.prompts) {
            let (echo, prefilled) = self.read(prompt).await?;
            let Some(prefilled) = prefilled else {
                self.send_echoes(index, &echo, emitter).await;
                continue;
            };
            let read = ReadPrompt {
                index,
                prompt,
                echo,
                prefilled,
            };
            if self.plan.is_ranked() {
                self.send_best(read, emitter).await?;
            } else {
                self.send_all(read, emitter).await?;
            }
        }
        Ok(())
    }

    /// Feeds a prompt to the model, as far as anything is to be learned from it. Gives what choices begin with, and what they go on
    /// from if any token is wanted.
    async fn read(
        &mut self,
        prompt: &PromptTokens,
    ) -> Result<(Delta, Option<Prefilled>), CompletionError> {
        let started = self.runtime.now_millis();
        let mut echo = Delta::default();
        if self.plan.echo {
            echo.text.clone_from(&prompt.text);
        }
        let scored = self.plan.n_top.filter(|_| self.plan.echo);
        let score = scored.map(|n_top| scorer(prompt, self.tokenizer, n_top, &mut echo.entries));
        let is_continued = self.plan.max_tokens > 0;
        let mut prefilled = match (is_continued, score) {
            (false, None) => None,
            (_, score) => {
                let plan = PrefillPlan {
                    tokens: &prompt.ids,
                    chunk_rows: self.prefill_rows,
                    is_continued,
                };
                let read = prefill(&mut self.session, plan, score).await;
                Some(read.map_err(model_failure)?)
            }
        };
        if let Some(only_scored) = prefilled.take_if(|_| !is_continued) {
            self.session.close(only_scored.sequence);
        }
        let now = self.runtime.now_millis();
        self.meter.count_prompt(prompt.ids.len(), started, now);
        Ok((echo, prefilled))
    }

    /// Sends choices that are nothing but the prompt.
    async fn send_echoes(&self, prompt_index: u32, echo: &Delta, emitter: &mut Emitter<'_>) {
        for i in 0..self.plan.n {
            let mut whole = echo.clone();
            whole.finish_reason = Some(FinishReason::Length);
            emitter
                .choice(self.plan.choice(prompt_index, i, whole))
                .await;
        }
    }

    /// Sends each choice as it is generated.
    async fn send_all(
        &mut self,
        mut read: ReadPrompt<'_>,
        emitter: &mut Emitter<'_>,
    ) -> Result<(), CompletionError> {
        for i in 0..self.plan.n {
            let mut candidate = self.begin(&mut read, i)?;
            let mut delta = read.echo.clone();
            loop {
                let is_over = delta.finish_reason.is_some();
                if !delta.is_empty() {
                    emitter.choice(self.plan.choice(read.index, i, delta)).await;
                }
                if is_over {
                    break;
                }
                delta = self.advance(&mut candidate).await?;
            }
        }
        Ok(())
    }

    /// Generates all candidates and sends the likeliest, best first.
    async fn send_best(
        &mut self,
        mut read: ReadPrompt<'_>,
        emitter: &mut Emitter<'_>,
    ) -> Result<(), CompletionError> {
        let mut candidates = Vec::new();
        for i in 0..self.plan.n_candidates {
            let mut candidate = self.begin(&mut read, i)?;
            let mut whole = read.echo.clone();
            while whole.finish_reason.is_none() {
                whole.append(self.advance(&mut candidate).await?);
            }
            candidates.push((candidate.run.mean_logprob(), whole));
        }
        // Stable: equals stay in the order of their numbers.
        candidates.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        for (i, (_, whole)) in (0..self.plan.n).zip(candidates) {
            emitter.choice(self.plan.choice(read.index, i, whole)).await;
        }
        Ok(())
    }

    /// Starts the choice of this number.
    fn begin(
        &mut self,
        read: &mut ReadPrompt<'_>,
        number: u32,
    ) -> Result<Candidate, CompletionError> {
        let prefilled = &mut read.prefilled;
        // The last takes the prompt's own sequence: a request for one choice never forks.
        let (sequence, logits) = if number + 1 == self.plan.n_candidates {
            (prefilled.sequence, std::mem::take(&mut prefilled.logits))
        } else {
            let sequence = self
                .session
                .fork(prefilled.sequence)
                .map_err(model_failure)?;
            (sequence, prefilled.logits.clone())
        };
        let sampler = self.plan.sampler(read.index, number);
        let config = self.plan.choice_config(read.prompt);
        Ok(Candidate {
            run: ChoiceRun::new(sequence, sampler, config),
            first_logits: Some(logits),
        })
    }

    /// Steps the model until the choice has something to say, and closes its sequence once it has said all.
    async fn advance(&mut self, candidate: &mut Candidate) -> Result<Delta, CompletionError> {
        let run = &mut candidate.run;
        loop {
            let started = self.runtime.now_millis();
            let is_first = candidate.first_logits.is_some();
            let mut logits = match candidate.first_logits.take() {
                Some(logits) => logits,
                None => {
                    let token = [run.last_token()];
                    let step = self.session.feed(run.sequence(), &token, LogitsFor::Last);
                    step.await.map_err(model_failure)?
                }
            };
            let delta = run
                .accept(self.tokenizer, &mut logits)
                .map_err(|error| sample_failure(&error, self.plan.has_bias()))?;
            self.meter
                .count_token(is_first, started, self.runtime.now_millis());
            if delta.finish_reason.is_some() {
                self.session.close(run.sequence());
            }
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
        let own = LogProbabilities::new(logits);
        entries.push(TokenEntry::new(tokenizer, id, offset, &own, n_top));
    }
}
