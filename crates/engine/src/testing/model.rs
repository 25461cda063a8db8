//! A language model that follows a script.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use cinderlm_models::{CausalLm, Draw, Drawn, Feed, LogitsFor, ModelError, SequenceId};

/// What a sequence that begins with `prompt` gives next, step by step, whichever tokens are sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// The tokens a sequence must begin with. Of several scripts that fit, the one with the longest prompt speaks.
    pub prompt: Vec<u32>,
    /// One distribution for each step after the prompt. After the last, the model is certain of `end`.
    pub steps: Vec<Distribution>,
    /// The token that follows the script, an end-of-generation token as a rule.
    pub end: u32,
}

/// Tokens and their probabilities, which should add up to 1. Every other token is impossible.
pub type Distribution = Vec<(u32, f32)>;

/// A deterministic fake: scripted distributions where a script fits, seeded noise elsewhere.
///
/// Its scripted logits are natural logarithms of probabilities, so a test can tell by hand which log-probabilities must be
/// reported.
#[derive(Debug)]
pub struct ScriptedModel {
    vocab_size: usize,
    context_length: usize,
    seed: u64,
    scripts: Vec<Script>,
    sequences: BTreeMap<SequenceId, Vec<u32>>,
    n_opened: u64,
    /// Of sequences that were told how the token after the next will be drawn.
    foreseen: BTreeMap<SequenceId, Draw>,
    probe: Probe,
}

/// Watches and disturbs a [`ScriptedModel`] that an engine owns.
#[derive(Clone, Debug, Default)]
pub struct Probe(Rc<ProbeState>);

#[derive(Debug, Default)]
struct ProbeState {
    n_live: Cell<usize>,
    n_opened: Cell<u64>,
    n_forwards: Cell<usize>,
    n_tokens_fed: Cell<usize>,
    largest_step_tokens: Cell<usize>,
    n_pauses: Cell<usize>,
    is_drawing: Cell<bool>,
    n_drawn: Cell<usize>,
    n_foreseen: Cell<usize>,
    n_mistaken: Cell<usize>,
    failures: RefCell<VecDeque<(usize, ModelError)>>,
}

impl Probe {
    /// Sequences that are open now.
    pub fn n_live_sequences(&self) -> usize {
        self.0.n_live.get()
    }

    /// Sequences that were ever opened or forked.
    pub fn n_opened_sequences(&self) -> u64 {
        self.0.n_opened.get()
    }

    /// Forward calls begun.
    pub fn n_forward_calls(&self) -> usize {
        self.0.n_forwards.get()
    }

    /// Tokens that forward calls appended.
    pub fn n_tokens_fed(&self) -> usize {
        self.0.n_tokens_fed.get()
    }

    /// Most tokens in one forward call.
    pub fn largest_step_tokens(&self) -> usize {
        self.0.largest_step_tokens.get()
    }

    /// Has the model draw tokens itself from now on, where it is let.
    pub fn let_draw(&self) {
        self.0.is_drawing.set(true);
    }

    /// Tokens that the model has drawn itself.
    pub fn n_drawn(&self) -> usize {
        self.0.n_drawn.get()
    }

    /// Draws that came as they had been told of one step before, and those that came otherwise.
    pub fn n_foreseen(&self) -> (usize, usize) {
        (self.0.n_foreseen.get(), self.0.n_mistaken.get())
    }

    /// Makes every forward call from now on suspend `n_pauses` times before it answers.
    pub fn slow_down(&self, n_pauses: usize) {
        self.0.n_pauses.set(n_pauses);
    }

    /// Makes one forward call fail: the next for 0, the one after it for 1 and so on.
    pub fn fail_after(&self, n_calls: usize, error: ModelError) {
        let call = self.n_forward_calls() + n_calls;
        self.0.failures.borrow_mut().push_back((call, error));
    }

    fn failure_of(&self, call: usize) -> Option<ModelError> {
        let mut failures = self.0.failures.borrow_mut();
        let index = failures.iter().position(|(at, _)| *at == call)?;
        failures.remove(index).map(|(_, error)| error)
    }
}

impl ScriptedModel {
    /// The most tokens one forward call takes.
    pub const MAX_STEP_TOKENS: usize = 64;

    /// A model with no script: its logits are noise that depends on the seed and on every token of the sequence.
    pub fn new(vocab_size: usize, context_length: usize, seed: u64) -> Self {
        Self {
            vocab_size,
            context_length,
            seed,
            scripts: Vec::new(),
            sequences: BTreeMap::new(),
            n_opened: 0,
            foreseen: BTreeMap::new(),
            probe: Probe::default(),
        }
    }

    /// Adds scripts.
    #[must_use]
    pub fn with_scripts(mut self, scripts: impl IntoIterator<Item = Script>) -> Self {
        self.scripts.extend(scripts);
        self
    }

    fn count_foreseen(&mut self, feeds: &[Feed<'_>], draws: &[Draw], after: Option<&[Draw]>) {
        let asking = (feeds.iter()).filter(|feed| feed.logits != LogitsFor::None);
        let state = &self.probe.0;
        for (feed, draw) in asking.zip(draws) {
            if let Some(foreseen) = self.foreseen.get(&feed.sequence) {
                let counter = match foreseen == draw {
                    true => &state.n_foreseen,
                    false => &state.n_mistaken,
                };
                counter.set(counter.get() + 1);
            }
        }
        let after = after.unwrap_or_default().iter().cloned();
        self.foreseen = (feeds.iter().map(|feed| feed.sequence))
            .zip(after)
            .collect();
    }

    /// A handle that stays useful after an engine has taken the model.
    pub fn probe(&self) -> Probe {
        self.probe.clone()
    }

    /// The logits that follow `tokens`.
    pub fn logits_after(&self, tokens: &[u32]) -> Vec<f32> {
        let script = self
            .scripts
            .iter()
            .filter(|script| tokens.starts_with(&script.prompt))
            .max_by_key(|script| script.prompt.len());
        let Some(script) = script else {
            return self.noise(tokens);
        };
        let mut logits = vec![f32::NEG_INFINITY; self.vocab_size];
        let end = vec![(script.end, 1.0)];
        let step = script
            .steps
            .get(tokens.len() - script.prompt.len())
            .unwrap_or(&end);
        for &(token, probability) in step {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = probability.ln();
            }
        }
        logits
    }

    fn noise(&self, tokens: &[u32]) -> Vec<f32> {
        let context = tokens
            .iter()
            .fold(mix(self.seed), |hash, &token| mix(hash ^ u64::from(token)));
        (0..self.vocab_size as u64)
            .map(|id| (mix(context ^ mix(id)) >> 40) as f32 / (1 << 21) as f32 - 4.0)
            .collect()
    }

    fn insert(&mut self, tokens: Vec<u32>) -> SequenceId {
        let id = SequenceId(self.n_opened);
        self.n_opened += 1;
        self.sequences.insert(id, tokens);
        self.probe.0.n_opened.set(self.n_opened);
        self.probe.0.n_live.set(self.sequences.len());
        id
    }

    fn check(&self, feeds: &[Feed<'_>]) -> Result<(), ModelError> {
        let n_rows = feeds.iter().map(|feed| feed.tokens.len()).sum();
        if n_rows > Self::MAX_STEP_TOKENS {
            let max = Self::MAX_STEP_TOKENS;
            return Err(ModelError::TooManyRows { n_rows, max });
        }
        for feed in feeds {
            let sequence = feed.sequence;
            let held = self
                .sequences
                .get(&sequence)
                .ok_or(ModelError::UnknownSequence { sequence })?;
            let n_tokens = held.len() + feed.tokens.len();
            if n_tokens > self.context_length {
                return Err(ModelError::ContextExceeded {
                    n_tokens,
                    context_length: self.context_length,
                });
            }
            if let Some(&token) = feed
                .tokens
                .iter()
                .find(|&&token| token as usize >= self.vocab_size)
            {
                return Err(ModelError::TokenOutOfRange {
                    token,
                    vocab_size: self.vocab_size,
                });
            }
        }
        Ok(())
    }
}

impl CausalLm for ScriptedModel {
    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn max_step_tokens(&self) -> usize {
        Self::MAX_STEP_TOKENS
    }

    fn open(&mut self) -> SequenceId {
        self.insert(Vec::new())
    }

    fn fork_at(&mut self, from: SequenceId, n_tokens: usize) -> Result<SequenceId, ModelError> {
        let mut tokens = self
            .sequences
            .get(&from)
            .cloned()
            .ok_or(ModelError::UnknownSequence { sequence: from })?;
        tokens.truncate(n_tokens);
        Ok(self.insert(tokens))
    }

    fn close(&mut self, sequence: SequenceId) {
        self.sequences.remove(&sequence);
        self.probe.0.n_live.set(self.sequences.len());
    }

    fn len(&self, sequence: SequenceId) -> usize {
        self.sequences.get(&sequence).map_or(0, Vec::len)
    }

    fn kv_bytes(&self) -> u64 {
        self.sequences
            .values()
            .map(|tokens| tokens.len() as u64)
            .sum()
    }

    async fn forward(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<f32>, ModelError> {
        let state = Rc::clone(&self.probe.0);
        let call = state.n_forwards.get();
        state.n_forwards.set(call + 1);
        pause(state.n_pauses.get()).await;
        if let Some(error) = self.probe.failure_of(call) {
            return Err(error);
        }
        self.check(feeds)?;

        let n_tokens: usize = feeds.iter().map(|feed| feed.tokens.len()).sum();
        state.n_tokens_fed.set(state.n_tokens_fed.get() + n_tokens);
        state
            .largest_step_tokens
            .set(state.largest_step_tokens.get().max(n_tokens));
        let mut logits = Vec::new();
        for feed in feeds {
            let mut tokens = self.sequences.remove(&feed.sequence).unwrap_or_default();
            for (i, &token) in feed.tokens.iter().enumerate() {
                tokens.push(token);
                let wanted = match feed.logits {
                    LogitsFor::None => false,
                    LogitsFor::Last => i + 1 == feed.tokens.len(),
                    LogitsFor::All => true,
                };
                if wanted {
                    logits.extend(self.logits_after(&tokens));
                }
            }
            self.sequences.insert(feed.sequence, tokens);
        }
        Ok(logits)
    }

    async fn forward_drawn(
        &mut self,
        feeds: &[Feed<'_>],
        draws: &[Draw],
        after: Option<&[Draw]>,
    ) -> Result<Option<Vec<Drawn>>, ModelError> {
        if !self.probe.0.is_drawing.get() {
            return Ok(None);
        }
        let logits = self.forward(feeds).await?;
        let rows = logits.chunks_exact(self.vocab_size);
        let drawn: Vec<Drawn> = draws
            .iter()
            .zip(rows)
            .map(|(draw, row)| draw.of(row))
            .collect();
        let n_drawn = &self.probe.0.n_drawn;
        n_drawn.set(n_drawn.get() + drawn.len());
        self.count_foreseen(feeds, draws, after);
        Ok(Some(drawn))
    }
}

/// Suspends `n_times`, asking to be polled again each time.
async fn pause(n_times: usize) {
    let mut left = n_times;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Steele, Lea and Flood's SplitMix64 output function: enough to make noise that is the same everywhere.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
