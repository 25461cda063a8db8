//! One choice while it is generated.

use cinderlm_models::{Draw, Drawn};
use cinderlm_protocol::{Choice, FinishReason};
use cinderlm_sampler::{DrawPlan, LogProbabilities, Reported, SampleError, Sampler};
use cinderlm_tokenizer::{DecodeStream, Tokenizer};

use crate::batch::Fed;
use crate::hold_back::{HoldBack, Release};
use crate::logprobs::{TokenEntry, to_logprobs, utf16_length};
use crate::stop::StopMatcher;

/// What a choice has to say after a step: nothing, some text, its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Delta {
    pub(crate) text: String,
    pub(crate) entries: Vec<TokenEntry>,
    pub(crate) finish_reason: Option<FinishReason>,
}

impl Delta {
    /// Whether there is nothing to say.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.entries.is_empty() && self.finish_reason.is_none()
    }

    /// Appends what came later.
    pub(crate) fn append(&mut self, later: Self) {
        self.text.push_str(&later.text);
        self.entries.extend(later.entries);
        self.finish_reason = later.finish_reason;
    }

    /// The delta as it is sent; `n_top` as in the request's `logprobs`.
    pub(crate) fn into_choice(self, index: u32, n_top: Option<u8>) -> Choice {
        Choice {
            index,
            text: self.text,
            logprobs: n_top.map(|n_top| to_logprobs(self.entries, n_top)),
            finish_reason: self.finish_reason,
        }
    }
}

impl From<Release<TokenEntry>> for Delta {
    fn from(release: Release<TokenEntry>) -> Self {
        Self {
            text: release.text,
            entries: release.entries,
            finish_reason: release.stopped.then_some(FinishReason::Stop),
        }
    }
}

/// What a choice needs to know of its request.
#[derive(Clone, Debug)]
pub(crate) struct ChoiceConfig {
    /// Tokens to generate at most, at least one.
    pub(crate) max_tokens: u64,
    pub(crate) stops: StopMatcher,
    /// Alternatives to report at each token; `None` reports nothing.
    pub(crate) n_top: Option<u8>,
    /// Whether choices will be compared by their log-probabilities.
    pub(crate) is_ranked: bool,
    /// UTF-16 code units of the prompt's text.
    pub(crate) text_offset: u32,
}

/// A choice's whole state apart from the model's: every step takes the logits of its sequence and says what came of them, so any
/// number of choices can advance side by side.
#[derive(Debug)]
pub(crate) struct ChoiceRun {
    sampler: Sampler,
    decoder: DecodeStream,
    hold_back: HoldBack<TokenEntry>,
    max_tokens: u64,
    n_top: Option<u8>,
    is_ranked: bool,
    text_offset: u32,
    tokens: Vec<u32>,
    sum_logprob: f64,
    /// Room for a step's logits, kept from step to step.
    own_logits: Vec<f32>,
}

impl ChoiceRun {
    pub(crate) fn new(sampler: Sampler, config: ChoiceConfig) -> Self {
        Self {
            sampler,
            decoder: DecodeStream::new(true),
            hold_back: HoldBack::new(config.stops),
            max_tokens: config.max_tokens,
            n_top: config.n_top,
            is_ranked: config.is_ranked,
            text_offset: config.text_offset,
            tokens: Vec::new(),
            sum_logprob: 0.0,
            own_logits: Vec::new(),
        }
    }

    /// The tokens that were generated; the last is to be fed before the next step.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The mean log-probability of the generated tokens in the model's own distribution. Only for ranked choices.
    pub(crate) fn mean_logprob(&self) -> f64 {
        self.sum_logprob / self.tokens.len().max(1) as f64
    }

    /// How the next token is to be drawn, where that is done in place of this; `None` where all logits are needed here.
    pub(crate) fn draw(&self) -> Option<Draw> {
        self.sampler.plan().map(|plan| self.draw_of(plan))
    }

    /// What [`draw`](Self::draw) will be once the next token is known, whichever it is; `None` where that makes a difference, and where the next is the
    /// last.
    pub(crate) fn draw_after(&self) -> Option<Draw> {
        if self.tokens.len() as u64 + 1 >= self.max_tokens {
            return None;
        }
        self.sampler.plan_after().map(|plan| self.draw_of(plan))
    }

    fn draw_of(&self, plan: DrawPlan) -> Draw {
        Draw {
            temperature: plan.temperature,
            top_p: plan.top_p,
            uniform: plan.uniform,
            adjustments: plan.adjustments,
            // One alone brings what a log-probability is made of.
            n_top: self.n_reported().map_or(0, |n_top| n_top.max(1)),
        }
    }

    /// Likeliest tokens to report at each step; `None` if not even the token's own probability is.
    fn n_reported(&self) -> Option<usize> {
        let n_top = self.n_top.or(self.is_ranked.then_some(0))?;
        Some(usize::from(n_top))
    }

    /// Takes one step: the next token as it was drawn, or from its logits. Once the returned delta has a finish reason the choice is over.
    pub(crate) fn accept(&mut self, tokenizer: &Tokenizer, fed: Fed) -> Result<Delta, SampleError> {
        let (token, own) = match fed {
            Fed::Logits(logits) => self.sample(logits)?,
            Fed::Drawn(drawn) => self.take(&drawn, tokenizer.n_tokens())?,
        };
        self.tokens.push(token);
        self.sum_logprob += own.as_ref().map_or(0.0, |own| own.logprob);

        if tokenizer.is_end_of_generation(token) {
            return Ok(self.finish(FinishReason::Stop));
        }
        let ruled_out = u32::from(self.decoder.is_ruled_out_by(tokenizer, token));
        let offset = self.text_offset.saturating_add(ruled_out);
        let entry = self
            .n_top
            .map(|n_top| TokenEntry::new(tokenizer, token, offset, own, n_top));
        let text = self.decoder.push(tokenizer, token);
        self.text_offset = self.text_offset.saturating_add(utf16_length(&text));
        let mut delta: Delta = self
            .hold_back
            .push(&text, entry, self.decoder.is_pending())
            .into();
        if delta.finish_reason.is_none() && self.tokens.len() as u64 >= self.max_tokens {
            delta.append(self.finish(FinishReason::Length));
        }
        Ok(delta)
    }

    /// Draws from logits. Gives the token and what is reported of it.
    fn sample(&mut self, mut logits: Vec<f32>) -> Result<(u32, Option<Reported>), SampleError> {
        let n_reported = self.n_reported();
        // The model's own logits, kept where they are needed after sampling has used them up.
        self.own_logits.clear();
        if n_reported.is_some() {
            self.own_logits.extend_from_slice(&logits);
        }
        let token = self.sampler.sample(&mut logits)?;
        let own = n_reported
            .and_then(|n_top| LogProbabilities::new(&self.own_logits).report(token, n_top));
        Ok((token, own))
    }

    /// Takes what the model has drawn, among `n_logits` tokens.
    fn take(
        &mut self,
        drawn: &Drawn,
        n_logits: usize,
    ) -> Result<(u32, Option<Reported>), SampleError> {
        let token = drawn.token.ok_or(SampleError::NoCandidates { n_logits })?;
        self.sampler.accept(token);
        let own = self.n_reported().map(|n_top| {
            let top = &drawn.top[..n_top.min(drawn.top.len())];
            Reported::from_parts(drawn.logit, drawn.largest, drawn.sum, top)
        });
        Ok((token, own))
    }

    /// Releases what was held back. Even now it can turn out to hold a stop.
    fn finish(&mut self, reason: FinishReason) -> Delta {
        let tail = self.decoder.finish();
        let mut delta: Delta = self.hold_back.finish(&tail).into();
        delta.finish_reason.get_or_insert(reason);
        delta
    }
}
