//! The sampler of one choice.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use thiserror::Error;

use crate::cleaned;
use crate::exp::exp;
use crate::nucleus::{Candidate, nucleus};

/// A bias at or above this forces its token; one at or below its negative bans it.
const FORCING_BIAS: f32 = 100.0;

/// How tokens are chosen. Ranges are those of the completion contract.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerConfig {
    /// Divides the logits before the draw, 0 to 2. At 0 the likeliest token is taken, ties to the
    /// lowest id.
    pub temperature: f32,
    /// Draws from the smallest set of the likeliest tokens whose probabilities reach this, 0 to 1.
    /// At 0 only the likeliest is left.
    pub top_p: f32,
    /// Taken off a token's logit once for every time that it was generated, -2 to 2.
    pub frequency_penalty: f32,
    /// Taken off a token's logit once if it was generated at all, -2 to 2.
    pub presence_penalty: f32,
    /// Added to the logits of single tokens, -100 to 100, each id at most once. 100 forces a token,
    /// however unlikely; several forced ones compete by their logits. -100 bans a token.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for SamplerConfig {
    /// The contract's defaults: the model's own distribution.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
        }
    }
}

/// Why no token could be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SampleError {
    /// The slice of logits was empty.
    #[error("there are no logits to sample from")]
    NoLogits,
    /// Every logit is minus infinity or NaN, from the model or because `logit_bias` bans all that
    /// the model allows.
    #[error("none of the {n_logits} tokens can be drawn: each is banned or has no probability")]
    NoCandidates {
        /// How many logits there were.
        n_logits: usize,
    },
    /// `logit_bias` names a token that the logits do not have.
    #[error("logit_bias names token {token}, but there are {n_logits} logits")]
    UnknownToken {
        /// The token as given.
        token: u32,
        /// How many logits there were.
        n_logits: usize,
    },
}

/// The next draw of a [`Sampler`], for whoever draws in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawPlan {
    /// Divides the logits; at 0 the likeliest token is taken.
    pub temperature: f32,
    /// As [`SamplerConfig::top_p`].
    pub top_p: f32,
    /// From 0 up to but not including 1: the share of the weights that lies before the token. 0 where nothing is drawn.
    pub uniform: f64,
    /// What is added to the logits of single tokens, ascending, each token once. Minus infinity bans one.
    pub adjustments: Vec<(u32, f32)>,
}

/// Draws the tokens of one choice.
///
/// # Elsewhere
/// Where the logits are not at hand, [`plan`](Self::plan) tells all that a draw needs, and [`accept`](Self::accept) takes the token that
/// came of it. `sample` is the two in one.
///
/// # Randomness
/// The generator is ChaCha with 8 rounds. Its key is the seed (eight bytes, little-endian, then
/// zeros), its stream number the choice. A draw takes one 64-bit word; a greedy step takes none. A
/// choice's tokens therefore depend on its own logits, seed and number alone, not on which other
/// choices are generated with it or in what order.
#[derive(Clone, Debug)]
pub struct Sampler {
    temperature: f32,
    top_p: f32,
    frequency_penalty: f32,
    presence_penalty: f32,
    /// By token. Bans are minus infinity here.
    biases: Vec<(u32, f32)>,
    forced: Vec<u32>,
    /// How often each token was generated in this choice, by token. Kept only if a penalty needs
    /// it.
    counts: Vec<(u32, u32)>,
    rng: ChaCha8Rng,
    /// Kept from step to step so that a step does not allocate.
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler for choice number `choice` of a request with this `seed`, with nothing generated
    /// yet.
    pub fn new(config: SamplerConfig, seed: u64, choice: u64) -> Self {
        let (forced, biases): (Vec<_>, Vec<_>) = config
            .logit_bias
            .into_iter()
            .partition(|&(_, bias)| bias >= FORCING_BIAS);
        let banned_or_biased = |(token, bias)| {
            (
                token,
                if bias <= -FORCING_BIAS {
                    f32::NEG_INFINITY
                } else {
                    bias
                },
            )
        };
        let mut biases: Vec<_> = biases.into_iter().map(banned_or_biased).collect();
        biases.sort_by_key(|&(token, _)| token);
        Self {
            temperature: config.temperature,
            top_p: config.top_p,
            frequency_penalty: config.frequency_penalty,
            presence_penalty: config.presence_penalty,
            biases,
            forced: forced.into_iter().map(|(token, _)| token).collect(),
            counts: Vec::new(),
            rng: stream(seed, choice),
            candidates: Vec::new(),
        }
    }

    /// Chooses the next token, `logits[token]` being its logit, and counts it as generated.
    ///
    /// Applies, in this order: `logit_bias`, penalties, temperature, top-p, the draw. `logits` is
    /// used as working space and holds nothing of use afterwards.
    ///
    /// # Errors
    /// When there is nothing to draw from, or `logit_bias` names a token beyond the logits. The
    /// sampler is unchanged then.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<u32, SampleError> {
        if logits.is_empty() {
            return Err(SampleError::NoLogits);
        }
        for logit in logits.iter_mut() {
            *logit = cleaned(*logit);
        }
        self.apply_bias(logits)?;
        self.apply_penalties(logits);
        let (likeliest, max) = argmax(logits).ok_or(SampleError::NoCandidates {
            n_logits: logits.len(),
        })?;
        let token = if self.temperature > 0.0 {
            self.draw(logits, max).unwrap_or(likeliest)
        } else {
            likeliest
        };
        self.count(token);
        Ok(token)
    }

    /// What [`sample`](Self::sample) would do to the next row of logits; `None` where tokens are forced, which takes all of them into account.
    pub fn plan(&self) -> Option<DrawPlan> {
        self.plan_with(self.rng.clone())
    }

    /// What [`plan`](Self::plan) will say once the next token is known, whichever it is; `None` where that makes a difference, or tokens are forced.
    pub fn plan_after(&self) -> Option<DrawPlan> {
        if self.frequency_penalty != 0.0 || self.presence_penalty != 0.0 {
            return None;
        }
        let mut rng = self.rng.clone();
        if self.temperature > 0.0 {
            rng.next_u64();
        }
        self.plan_with(rng)
    }

    fn plan_with(&self, mut rng: ChaCha8Rng) -> Option<DrawPlan> {
        if !self.forced.is_empty() {
            return None;
        }
        let uniform = match self.temperature > 0.0 {
            true => unit_interval(rng.next_u64()),
            false => 0.0,
        };
        let mut adjustments = self.biases.clone();
        for &(token, count) in &self.counts {
            let penalty = self.penalty(count);
            match adjustments.binary_search_by_key(&token, |&(token, _)| token) {
                Ok(at) => adjustments[at].1 -= penalty,
                Err(at) => adjustments.insert(at, (token, -penalty)),
            }
        }
        Some(DrawPlan {
            temperature: self.temperature,
            top_p: self.top_p,
            uniform,
            adjustments,
        })
    }

    /// Counts a token that was drawn as the last [`plan`](Self::plan) says.
    pub fn accept(&mut self, token: u32) {
        if self.temperature > 0.0 {
            self.rng.next_u64();
        }
        self.count(token);
    }

    fn penalty(&self, count: u32) -> f32 {
        count as f32 * self.frequency_penalty + self.presence_penalty
    }

    fn apply_bias(&mut self, logits: &mut [f32]) -> Result<(), SampleError> {
        let n_logits = logits.len();
        let unknown = |token| SampleError::UnknownToken { token, n_logits };
        for &(token, bias) in &self.biases {
            *logits.get_mut(token as usize).ok_or(unknown(token))? += bias;
        }
        if self.forced.is_empty() {
            return Ok(());
        }
        self.candidates.clear();
        for &token in &self.forced {
            let logit = *logits.get(token as usize).ok_or(unknown(token))?;
            // A forced token wins even if the model gives it no probability at all.
            self.candidates.push(Candidate {
                token,
                weight: logit.max(f32::MIN),
            });
        }
        logits.fill(f32::NEG_INFINITY);
        for forced in &self.candidates {
            logits[forced.token as usize] = forced.weight;
        }
        Ok(())
    }

    fn apply_penalties(&self, logits: &mut [f32]) {
        for &(token, count) in &self.counts {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= self.penalty(count);
            }
        }
    }

    /// Draws from `exp((logit - max) / temperature)`. `None` only if rounding leaves nothing to
    /// draw.
    fn draw(&mut self, logits: &mut [f32], max: f32) -> Option<u32> {
        let temperature = self.temperature;
        for logit in logits.iter_mut() {
            // The difference first: dividing a large logit could overflow, and the largest must
            // come out as exactly 1.
            *logit = exp((*logit - max) / temperature);
        }
        let weights = logits;
        let total = sum(weights);
        let uniform = unit_interval(self.rng.next_u64());
        if self.top_p < 1.0 {
            let mass = nucleus(weights, f64::from(self.top_p), total, &mut self.candidates);
            pick(self.candidates.iter().copied(), uniform * mass)
        } else {
            let all = (0u32..).zip(weights.iter());
            pick(
                all.map(|(token, &weight)| Candidate { token, weight }),
                uniform * total,
            )
        }
    }

    fn count(&mut self, token: u32) {
        if self.frequency_penalty == 0.0 && self.presence_penalty == 0.0 {
            return;
        }
        match self
            .counts
            .binary_search_by_key(&token, |&(token, _)| token)
        {
            Ok(at) => self.counts[at].1 += 1,
            Err(at) => self.counts.insert(at, (token, 1)),
        }
    }
}

/// The generator of one choice, as documented at [`Sampler`].
fn stream(seed: u64, choice: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(choice);
    rng
}

/// A uniform number in `[0, 1)` from the upper 53 bits, all that a double's significand holds.
fn unit_interval(word: u64) -> f64 {
    (word >> 11) as f64 / (1u64 << 53) as f64
}

/// The sum of weights, in eight lanes that are added up in the end.
fn sum(weights: &[f32]) -> f64 {
    let (groups, rest) = weights.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for group in groups {
        for (sum, weight) in lanes.iter_mut().zip(group) {
            *sum += f64::from(*weight);
        }
    }
    let rest = rest.iter().map(|weight| f64::from(*weight));
    lanes.into_iter().chain(rest).sum()
}

/// The largest logit and its lowest token; `None` if all are minus infinity. First the largest in several lanes, then where it is.
fn argmax(logits: &[f32]) -> Option<(u32, f32)> {
    let larger = |max: f32, logit: f32| if logit > max { logit } else { max };
    let (groups, rest) = logits.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for group in groups {
        for (max, &logit) in lanes.iter_mut().zip(group) {
            *max = larger(*max, logit);
        }
    }
    let max = lanes
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |max, &logit| larger(max, logit));
    if max == f32::NEG_INFINITY {
        return None;
    }
    // In groups, for which no branch is taken at each logit.
    let holds = |group: &[f32; 16]| {
        group
            .iter()
            .fold(false, |holds, logit| holds | (*logit == max))
    };
    let start = 16 * groups.iter().position(holds).unwrap_or(groups.len());
    let place = logits[start..].iter().position(|&logit| logit == max)?;
    Some(((start + place) as u32, max))
}

/// The candidate in whose share of the summed weights `target` falls; the last with any weight if
/// rounding puts it beyond the end.
fn pick(candidates: impl Iterator<Item = Candidate>, target: f64) -> Option<u32> {
    let mut sum = 0.0;
    let mut last = None;
    for candidate in candidates.filter(|candidate| candidate.weight > 0.0) {
        sum += f64::from(candidate.weight);
        last = Some(candidate.token);
        if target < sum {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_interval_excludes_one() {
        assert_eq!(unit_interval(0), 0.0);
        assert!(unit_interval(u64::MAX) < 1.0);
    }

    #[test]
    fn argmax_takes_the_first_of_the_largest() {
        for n in 1..70 {
            let mut logits: Vec<f32> = (0..n).map(|i| -((i * 7 % n) as f32)).collect();
            let first = logits.iter().position(|&logit| logit == 0.0);
            assert_eq!(argmax(&logits), first.map(|i| (i as u32, 0.0)), "of {n}");
            logits[n - 1] = 2.0;
            logits[n / 2] = 2.0;
            assert_eq!(argmax(&logits), Some((n as u32 / 2, 2.0)), "of {n}");
            logits.fill(f32::NEG_INFINITY);
            assert_eq!(argmax(&logits), None);
            logits[n - 1] = f32::MIN;
            assert_eq!(argmax(&logits), Some((n as u32 - 1, f32::MIN)));
        }
        assert_eq!(argmax(&[]), None);
        assert_eq!(argmax(&[-0.0, 0.0]), Some((0, 0.0)));
    }

    #[test]
    fn pick_falls_into_shares() {
        let candidates = [(4, 0.0), (7, 1.0), (2, 0.0), (5, 3.0), (1, 0.0)]
            .map(|(token, weight)| Candidate { token, weight });
        let check = |target, expect| {
            assert_eq!(pick(candidates.iter().copied(), target), expect, "{target}")
        };
        check(0.0, Some(7));
        check(0.999, Some(7));
        check(1.0, Some(5));
        check(3.999, Some(5));
        // Beyond the end by rounding: never a token without weight.
        check(4.0, Some(5));
        assert_eq!(pick(std::iter::empty(), 0.0), None);
    }

    #[test]
    fn streams_differ_by_seed_and_by_choice_and_not_by_run() {
        let words = |seed, choice| {
            let mut rng = stream(seed, choice);
            [rng.next_u64(), rng.next_u64()]
        };
        assert_eq!(words(7, 3), words(7, 3));
        assert_ne!(words(7, 3), words(7, 4));
        assert_ne!(words(7, 3), words(8, 3));
        assert_ne!(words(0, 1), words(1, 0));
    }
}
