//! What a request comes to on a given model: the last validation, and everything that is settled before the first step.

use cinderlm_protocol::{Choice, CompletionError, CompletionRequest, Prompt};
use cinderlm_sampler::{Sampler, SamplerConfig};
use cinderlm_tokenizer::Tokenizer;

use crate::choice::{ChoiceConfig, Delta};
use crate::logprobs::utf16_length;
use crate::prompt::PromptTokens;
use crate::stop::StopMatcher;

/// The limits of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModelLimits {
    pub(crate) vocab_size: usize,
    pub(crate) context_length: usize,
    /// Tokens that key-value memory is taken for at a time.
    pub(crate) kv_granularity: usize,
}

/// A request made ready for a model.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) prompts: Vec<PromptTokens>,
    /// Choices to return for each prompt.
    pub(crate) n: u32,
    /// Choices to generate for each prompt, at least `n`.
    pub(crate) n_candidates: u32,
    pub(crate) max_tokens: u64,
    pub(crate) echo: bool,
    /// Alternatives to report at each token; `None` reports no log-probabilities.
    pub(crate) n_top: Option<u8>,
    sampling: SamplerConfig,
    seed: u64,
    stops: StopMatcher,
    kv_granularity: usize,
}

impl Plan {
    /// Checks the request against the model. `random_seed` is asked only if the request has no seed.
    ///
    /// # Errors
    /// `out_of_range` for an id that the vocabulary does not have, `context_length_exceeded`, and `unsupported_parameter` for what
    /// this vocabulary cannot do.
    pub(crate) fn new(
        request: &CompletionRequest,
        limits: ModelLimits,
        tokenizer: &Tokenizer,
        random_seed: impl FnOnce() -> u64,
    ) -> Result<Self, CompletionError> {
        request.check_vocabulary(limits.vocab_size)?;
        let prompts = PromptTokens::of_request(request, tokenizer)?;
        for (i, prompt) in prompts.iter().enumerate() {
            check_context(request, i, prompt, limits.context_length)?;
        }
        Ok(Self {
            prompts,
            n: request.n,
            n_candidates: request.n_candidates(),
            max_tokens: request.max_tokens,
            echo: request.echo,
            n_top: request.logprobs,
            sampling: SamplerConfig {
                temperature: request.temperature,
                top_p: request.top_p,
                frequency_penalty: request.frequency_penalty,
                presence_penalty: request.presence_penalty,
                logit_bias: request.logit_bias.clone(),
            },
            seed: request.seed.map_or_else(random_seed, i64::cast_unsigned),
            stops: StopMatcher::new(&request.stop),
            kv_granularity: limits.kv_granularity,
        })
    }

    /// Whether more choices are generated than returned, so that the best must be found.
    pub(crate) fn is_ranked(&self) -> bool {
        self.n_candidates > self.n
    }

    /// Whether `logit_bias` has a part in what can be drawn.
    pub(crate) fn has_bias(&self) -> bool {
        !self.sampling.logit_bias.is_empty()
    }

    /// The sampler of one candidate: its random stream depends on the seed and its number alone.
    pub(crate) fn sampler(&self, prompt_index: u32, candidate: u32) -> Sampler {
        let choice = u64::from(prompt_index) * u64::from(self.n_candidates) + u64::from(candidate);
        Sampler::new(self.sampling.clone(), self.seed, choice)
    }

    /// A part of a choice as it is sent.
    pub(crate) fn choice(&self, prompt_index: u32, number: u32, delta: Delta) -> Choice {
        delta.into_choice(prompt_index * self.n + number, self.n_top)
    }

    /// Tokens that the sequence of one choice may come to, and what of its memory stays empty.
    pub(crate) fn n_tokens(&self, prompt: &PromptTokens) -> usize {
        let max_tokens = usize::try_from(self.max_tokens).unwrap_or(usize::MAX);
        let n_tokens = prompt.ids.len().saturating_add(max_tokens);
        let is_countable = n_tokens.checked_next_multiple_of(self.kv_granularity.max(1));
        is_countable.unwrap_or(usize::MAX)
    }

    /// What the choices of a prompt have in common.
    pub(crate) fn choice_config(&self, prompt: &PromptTokens) -> ChoiceConfig {
        ChoiceConfig {
            max_tokens: self.max_tokens,
            stops: self.stops.clone(),
            n_top: self.n_top,
            is_ranked: self.is_ranked(),
            text_offset: utf16_length(&prompt.text),
        }
    }
}

fn check_context(
    request: &CompletionRequest,
    index: usize,
    prompt: &PromptTokens,
    context_length: usize,
) -> Result<(), CompletionError> {
    let (n_prompt, limit) = (prompt.ids.len() as u64, context_length as u64);
    if n_prompt.saturating_add(request.max_tokens) <= limit {
        return Ok(());
    }
    let error = CompletionError::context_length_exceeded(n_prompt, request.max_tokens, limit);
    Err(match request.prompt {
        Prompt::Texts(_) | Prompt::TokenLists(_) => {
            error.with_param(format_args!("prompt[{index}]"))
        }
        Prompt::DocumentStart | Prompt::Text(_) | Prompt::Tokens(_) => error,
    })
}
