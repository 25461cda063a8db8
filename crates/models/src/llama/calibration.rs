//! Kernel parameters chosen by the clock, on the model's own weights.
//!
//! Two steps stand for all: one token after [`CONTEXT`] others, and a piece of a prompt. For each part of a profile the variants that the device runs
//! are tried in turn; one that is faster takes the place of the best so far, unless its logits differ: a driver that compiles a variant wrongly
//! must not be preferred for its speed.

use cinderlm_kernels::{Profile, ProfilePart, memory_cleanup, read};

use super::model::{LlamaModel, finished, values_of};
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
/// Milliseconds that a timing is to take at least: clocks of browsers tick every tenth of one or more.
const WINDOW_MILLIS: f64 = 15.0;
/// Most steps of a timing.
const MAX_STEPS: f64 = 32.0;
/// What a variant's time may be of the best one's for it to be taken: less than noise makes it.
const GAIN: f64 = 0.97;
/// How far a logit may be off that of the profile that calibration began with.
const TOLERANCE: f32 = 5e-3;

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
        let best = self.fastest(sequence, clock).await;
        self.close(sequence);
        self.profile = best?;
        memory_cleanup(&self.device);
        Ok(self.profile)
    }

    async fn fastest(
        &mut self,
        sequence: SequenceId,
        clock: CalibrationClock<'_>,
    ) -> Result<Profile, ModelError> {
        let start = clock.now();
        let mut best = self.profile;
        // So that there are keys and values to attend to.
        let prompt = self.prompt(sequence)?;
        finished(self.launch(&prompt)).await?;
        // The next variant may take as long as the slowest so far.
        let mut longest = 0.0;
        for part in ProfilePart::ALL {
            let variants: Vec<_> = (best.variants(part).into_iter())
                .filter(|variant| variant.fits(&self.device))
                .collect();
            if variants.is_empty() {
                continue;
            }
            let first = self.trial(part, best, sequence, clock).await?;
            let mut fastest = first.millis;
            for variant in variants {
                let began = clock.now();
                if began - start + longest > clock.budget_millis {
                    return Ok(best);
                }
                match self.trial(part, variant, sequence, clock).await {
                    Ok(trial) if trial.agrees_with(&first) && trial.millis < GAIN * fastest => {
                        (best, fastest) = (variant, trial.millis);
                    }
                    Ok(_) => {}
                    Err(error @ ModelError::DeviceLost { .. }) => return Err(error),
                    // A variant that does not run is not taken.
                    Err(_) => {}
                }
                longest = f64::max(longest, clock.now() - began);
            }
        }
        Ok(best)
    }

    async fn trial(
        &mut self,
        part: ProfilePart,
        profile: Profile,
        sequence: SequenceId,
        clock: CalibrationClock<'_>,
    ) -> Result<Trial, ModelError> {
        match part {
            ProfilePart::Products | ProfilePart::Attention => {
                self.token_trial(profile, sequence, clock).await
            }
            ProfilePart::Prompts => self.prompt_trial(profile, sequence, clock).await,
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
            let replayed = recordings.run(step, |words| {
                let hidden = network.forward(words, caches, profile);
                network.logits(hidden, profile)
            });
            replayed?.ok_or_else(|| ModelError::Execution {
                message: "a step could not be recorded".to_owned(),
            })
        };
        // A step is recorded when it comes the second time.
        let _ = run();
        let logits = values_of(&read(run()?).await?)?.to_vec();
        let mut n_steps = 1.0;
        let mut millis = f64::INFINITY;
        for _ in 0..=WINDOWS {
            let began = clock.now();
            for _ in 1..n_steps as usize {
                run()?;
            }
            read(run()?).await?;
            let took = clock.now() - began;
            millis = millis.min(took / n_steps);
            n_steps = (WINDOW_MILLIS / millis).clamp(1.0, MAX_STEPS).ceil();
        }
        Ok(Trial { logits, millis })
    }

    async fn prompt_trial(
        &mut self,
        profile: Profile,
        sequence: SequenceId,
        clock: CalibrationClock<'_>,
    ) -> Result<Trial, ModelError> {
        let plan = self.prompt(sequence)?;
        let earlier = std::mem::replace(&mut self.profile, profile);
        let trial = self.timed_prompt(&plan, clock).await;
        self.profile = earlier;
        trial
    }

    async fn timed_prompt(
        &mut self,
        plan: &StepPlan,
        clock: CalibrationClock<'_>,
    ) -> Result<Trial, ModelError> {
        let hidden = self.launch(plan);
        let logits = self.logits(hidden, &plan.wanted).await?;
        let mut millis = f64::INFINITY;
        for _ in 0..WINDOWS {
            let began = clock.now();
            finished(self.launch(plan)).await?;
            millis = millis.min(clock.now() - began);
        }
        Ok(Trial { logits, millis })
    }

    fn prompt(&mut self, sequence: SequenceId) -> Result<StepPlan, ModelError> {
        self.step(sequence, PROMPT_TOKENS.min(self.context_length()))
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
