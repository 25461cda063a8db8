//! Kernel parameters chosen by the clock, on the model's own weights.
//!
//! Two steps stand for all: one token at the end of [`CONTEXT`], and a piece of a prompt. For each part of a profile the variants that the device runs
//! are tried in turn; one that is faster takes the place of the best so far, unless its logits differ at either step from those at the beginning: a
//! driver that compiles a variant wrongly must not be preferred for its speed.

use cinderlm_kernels::{Profile, ProfilePart, memory_cleanup, read};

use super::model::{LlamaModel, finished, into_values};
use super::recordings::{Recordable, Recordings};
use crate::kv::StepPlan;
use crate::{
    BLOCK_TOKENS, CalibrationClock, CausalLm as _, Feed, LogitsFor, ModelError, SequenceId,
};

/// Positions that the single token attends to, where the model's context has as many.
const CONTEXT: usize = 1024;
/// Tokens of the piece of a prompt.
const PROMPT_TOKENS: usize = BLOCK_TOKENS;
/// How often a step is timed; the shortest counts.
const WINDOWS: usize = 3;
/// Milliseconds that a timing is to take at least: some browsers' clocks tick once in a millisecond.
const WINDOW_MILLIS: f64 = 30.0;
/// Most steps of a timing.
const MAX_STEPS: f64 = 64.0;
/// What a variant's time may be of the best one's for it to be taken.
const GAIN: f64 = 0.95;
/// How far a logit may be off that of the profile that calibration began with.
const TOLERANCE: f32 = 5e-3;

/// One of the two steps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Workload {
    Token,
    Prompt,
}

impl Workload {
    /// The step that tells of a part's speed.
    fn of(part: ProfilePart) -> Self {
        match part {
            ProfilePart::Products | ProfilePart::Attention => Self::Token,
            ProfilePart::Prompts => Self::Prompt,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Token => Self::Prompt,
            Self::Prompt => Self::Token,
        }
    }
}

/// How a profile did at a step.
struct Trial {
    logits: Vec<f32>,
    /// Of one step.
    millis: f64,
}

impl Trial {
    fn agrees_with(&self, other: &Self) -> bool {
        let is_near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE;
        self.logits.len() == other.logits.len()
            && self.logits.iter().zip(&other.logits).all(is_near)
    }
}

impl LlamaModel {
    /// See [`LoadedModel::calibrate`](crate::LoadedModel::calibrate).
    pub(crate) async fn calibrate(
        &mut self,
        clock: CalibrationClock<'_>,
    ) -> Result<Profile, ModelError> {
        if self.profile.family().len() == 1 {
            return Ok(self.profile);
        }
        let sequence = self.open();
        let mut best = self.profile;
        let searched = self.search(&mut best, sequence, clock).await;
        self.close(sequence);
        self.profile = best;
        memory_cleanup(&self.device);
        match searched {
            Err(error @ ModelError::DeviceLost { .. }) => Err(error),
            // What cannot be tried is not taken; if the device has no room for a step, the first request tells.
            Ok(()) | Err(_) => Ok(best),
        }
    }

    async fn search(
        &mut self,
        best: &mut Profile,
        sequence: SequenceId,
        clock: CalibrationClock<'_>,
    ) -> Result<(), ModelError> {
        let start = clock.now();
        // First the prompt, so that there are keys and values to attend to.
        let prompt = self.trial(Workload::Prompt, *best, sequence, clock).await?;
        let token = self.trial(Workload::Token, *best, sequence, clock).await?;
        let usual = |workload| match workload {
            Workload::Token => &token,
            Workload::Prompt => &prompt,
        };
        // Any trial may take as long as the slowest so far.
        let mut longest = clock.now() - start;
        for part in ProfilePart::ALL {
            let workload = Workload::of(part);
            // What the best took when it was timed last, for this part.
            let mut before = None;
            for variant in best.variants(part) {
                let began = clock.now();
                if began - start + longest > clock.budget_millis {
                    return Ok(());
                }
                if variant.fits(&self.device) {
                    let earlier = match before {
                        Some(millis) => millis,
                        None => self.trial(workload, *best, sequence, clock).await?.millis,
                    };
                    let trial = self.trial(workload, variant, sequence, clock).await?;
                    // The best on both sides of it: a GPU may have become faster meanwhile, or slower.
                    let later = self.trial(workload, *best, sequence, clock).await?.millis;
                    before = Some(later);
                    let is_faster = trial.millis < GAIN * earlier.min(later);
                    if is_faster && trial.agrees_with(usual(workload)) {
                        let other = workload.other();
                        let trial = self.trial(other, variant, sequence, clock).await?;
                        if trial.agrees_with(usual(other)) {
                            (*best, before) = (variant, None);
                        }
                    }
                }
                longest = f64::max(longest, clock.now() - began);
            }
        }
        Ok(())
    }

    async fn trial(
        &mut self,
        workload: Workload,
        profile: Profile,
        sequence: SequenceId,
        clock: CalibrationClock<'_>,
    ) -> Result<Trial, ModelError> {
        match workload {
            Workload::Token => self.token_trial(profile, sequence, clock).await,
            Workload::Prompt => {
                let plan = self.step(sequence, PROMPT_TOKENS.min(self.context_length()))?;
                let earlier = std::mem::replace(&mut self.profile, profile);
                let trial = self.prompt_trial(&plan, clock).await;
                self.profile = earlier;
                trial
            }
        }
    }

    /// The step of a token after many others, replayed as when a text is written.
    async fn token_trial(
        &mut self,
        profile: Profile,
        sequence: SequenceId,
        clock: CalibrationClock<'_>,
    ) -> Result<Trial, ModelError> {
        let mut plan = self.step(sequence, 1)?;
        self.pretend_context(&mut plan);
        let mut recordings = Recordings::default();
        let (network, caches) = (&self.network, self.kv.caches_mut());
        let step = Recordable {
            plan: &plan,
            draws: None,
            max_table: plan.tables.len(),
            device: &self.device,
            profile,
        };
        let mut run = || {
            recordings.run(step, caches, |words, caches| {
                let hidden = network.forward(words, caches, profile);
                network.logits(hidden, profile)
            })
        };
        // A step is recorded when it comes the second time.
        run()?;
        let mut replay = || {
            run()?.ok_or_else(|| ModelError::Execution {
                message: "a step could not be recorded".to_owned(),
            })
        };
        let logits = into_values(read(replay()?).await?)?;
        let steps = async |n_steps| {
            for _ in 1..n_steps {
                replay()?;
            }
            read(replay()?).await?;
            Ok(())
        };
        let millis = shortest(clock, steps).await?;
        Ok(Trial { logits, millis })
    }

    async fn prompt_trial(
        &mut self,
        plan: &StepPlan,
        clock: CalibrationClock<'_>,
    ) -> Result<Trial, ModelError> {
        let hidden = self.launch(plan);
        let logits = self.logits(hidden, &plan.wanted).await?;
        let steps = async |n_steps| {
            for _ in 1..n_steps {
                self.launch(plan);
            }
            finished(self.launch(plan)).await
        };
        let millis = shortest(clock, steps).await?;
        Ok(Trial { logits, millis })
    }

    /// Lays out a step of the first tokens of the vocabulary, which the sequence does not keep.
    fn step(&mut self, sequence: SequenceId, n_tokens: usize) -> Result<StepPlan, ModelError> {
        let vocab_size = self.vocab_size() as u32;
        let tokens: Vec<u32> = (0..n_tokens as u32).map(|i| i % vocab_size).collect();
        self.plan(&[Feed {
            sequence,
            tokens: &tokens,
            logits: LogitsFor::Last,
        }])
    }

    /// Moves the one token of a step behind many others: the first block over and over.
    fn pretend_context(&self, plan: &mut StepPlan) {
        let position = CONTEXT.min(self.context_length()) - 1;
        plan.rows[0].position = position as u32;
        plan.tables = vec![plan.tables[0]; position / BLOCK_TOKENS + 1];
    }
}

/// The least time of a step among several timings; `run` runs so many and waits for the last.
async fn shortest(
    clock: CalibrationClock<'_>,
    mut run: impl AsyncFnMut(usize) -> Result<(), ModelError>,
) -> Result<f64, ModelError> {
    let mut timed = async |n_steps| {
        let began = clock.now();
        run(n_steps).await?;
        Ok::<_, ModelError>(clock.now() - began)
    };
    // One alone, of which a coarse clock may tell little, says how many make a timing.
    let millis = timed(1).await?.max(WINDOW_MILLIS / MAX_STEPS);
    let n_steps = (WINDOW_MILLIS / millis).ceil().max(1.0) as usize;
    let mut shortest = f64::INFINITY;
    for _ in 0..WINDOWS {
        shortest = shortest.min(timed(n_steps).await? / n_steps as f64);
    }
    Ok(shortest)
}
