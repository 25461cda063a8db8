//! Log-probabilities of the model's own distribution.

use crate::cleaned;

/// What is reported for a token that cannot be drawn: JSON has no minus infinity. Smaller values
/// are raised to it, so that order is kept.
pub const MIN_LOG_PROBABILITY: f64 = -9999.0;

/// What is reported of one token of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Reported {
    /// The token's log-probability.
    pub logprob: f64,
    /// The likeliest tokens with theirs, best first.
    pub top: Vec<(u32, f64)>,
}

impl Reported {
    /// From a token's logit, the largest of its row, the row's sum of `exp(logit - largest)` and the likeliest tokens with their logits, as
    /// whoever has the row gives them.
    pub fn from_parts(logit: f32, largest: f32, sum: f32, top: &[(u32, f32)]) -> Self {
        let row = LogProbabilities {
            logits: &[],
            max: f64::from(largest),
            ln_sum: f64::from(sum).ln(),
        };
        let top = top.iter();
        Self {
            logprob: row.of_logit(logit),
            top: top
                .map(|&(token, logit)| (token, row.of_logit(logit)))
                .collect(),
        }
    }
}

/// Natural log-probabilities over one row of raw logits, from `logit - max - ln(sum(exp(logit -
/// max)))` in double precision.
///
/// Made from the logits before [`Sampler::sample`](crate::Sampler::sample) changes them.
#[derive(Clone, Copy, Debug)]
pub struct LogProbabilities<'a> {
    logits: &'a [f32],
    max: f64,
    ln_sum: f64,
}

impl<'a> LogProbabilities<'a> {
    /// Computes the normaliser: one pass for the maximum and one for the sum.
    pub fn new(logits: &'a [f32]) -> Self {
        let max = logits
            .iter()
            .fold(f32::NEG_INFINITY, |max, &logit| max.max(cleaned(logit)));
        let max = f64::from(max);
        let sum: f64 = logits
            .iter()
            .map(|&logit| (f64::from(cleaned(logit)) - max).exp())
            .sum();
        Self {
            logits,
            max,
            ln_sum: sum.ln(),
        }
    }

    /// The log-probability of `token`, at least [`MIN_LOG_PROBABILITY`]; `None` when the row has no
    /// such token.
    pub fn logprob(&self, token: u32) -> Option<f64> {
        let logit = *self.logits.get(usize::try_from(token).ok()?)?;
        Some(self.of_logit(cleaned(logit)))
    }

    /// The `n` likeliest tokens with their log-probabilities, best first, ties to the lowest id.
    /// Shorter than `n` only when the row is.
    pub fn top(&self, n: usize) -> Vec<(u32, f64)> {
        // Insertion into a short sorted list: n is at most twenty or so, and nearly every token
        // fails the first comparison.
        let mut best: Vec<(u32, f32)> = Vec::with_capacity(n.min(self.logits.len()) + 1);
        for (token, &logit) in (0u32..).zip(self.logits) {
            let logit = cleaned(logit);
            if best.len() == n && best.last().is_none_or(|&(_, worst)| logit <= worst) {
                continue;
            }
            let at = best.partition_point(|&(_, better)| better >= logit);
            best.insert(at, (token, logit));
            best.truncate(n);
        }
        best.into_iter()
            .map(|(token, logit)| (token, self.of_logit(logit)))
            .collect()
    }

    /// What is reported of `token` beside the `n_top` likeliest; `None` when the row has no such token.
    pub fn report(&self, token: u32, n_top: usize) -> Option<Reported> {
        Some(Reported {
            logprob: self.logprob(token)?,
            top: self.top(n_top),
        })
    }

    fn of_logit(&self, logit: f32) -> f64 {
        // A row of nothing but minus infinity gives NaN here, which `max` drops.
        (f64::from(logit) - self.max - self.ln_sum).max(MIN_LOG_PROBABILITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INF: f32 = f32::INFINITY;

    #[test]
    fn log_probabilities_of_known_rows() {
        let check = |logits: &[f32], expect: &[f64]| {
            let found = LogProbabilities::new(logits);
            for (token, &expect) in (0u32..).zip(expect) {
                let logprob = found.logprob(token).expect("a token of the row");
                assert!(
                    (logprob - expect).abs() < 1e-6,
                    "{logits:?}[{token}]: {logprob}, expected {expect}"
                );
            }
        };
        let ln = f64::ln;
        check(&[0.0, 0.0], &[ln(0.5), ln(0.5)]);
        check(&[1.0, 2.0, 3.0], &[-2.407_606, -1.407_606, -0.407_606]);
        // Far beyond what `exp` can hold.
        check(&[1e4, 1e4 - 1.0], &[-0.313_262, -1.313_262]);
        check(&[-1e30, -1e30], &[ln(0.5), ln(0.5)]);
        check(
            &[0.0, -INF, f32::NAN],
            &[0.0, MIN_LOG_PROBABILITY, MIN_LOG_PROBABILITY],
        );
        check(&[INF, 3.0, INF], &[ln(0.5), MIN_LOG_PROBABILITY, ln(0.5)]);
        check(&[0.0, -20_000.0], &[0.0, MIN_LOG_PROBABILITY]);
        check(
            &[-INF, f32::NAN],
            &[MIN_LOG_PROBABILITY, MIN_LOG_PROBABILITY],
        );
    }

    #[test]
    fn a_token_beyond_the_row_has_no_log_probability() {
        assert_eq!(LogProbabilities::new(&[0.0, 1.0]).logprob(2), None);
        assert_eq!(LogProbabilities::new(&[]).logprob(0), None);
    }

    #[test]
    fn top_is_best_first_with_ties_to_the_lowest_id() {
        let check = |logits: &[f32], n: usize, expect: &[u32]| {
            let top = LogProbabilities::new(logits).top(n);
            let ids: Vec<u32> = top.iter().map(|&(id, _)| id).collect();
            assert_eq!(ids, expect, "top {n} of {logits:?}");
        };
        check(&[0.0, 3.0, 1.0, 2.0], 2, &[1, 3]);
        check(&[1.0, 2.0, 2.0, 1.0, 2.0], 4, &[1, 2, 4, 0]);
        check(&[f32::NAN, -INF, 0.0], 3, &[2, 0, 1]);
        check(&[0.0, INF, INF], 1, &[1]);
        check(&[1.0], 5, &[0]);
        check(&[1.0], 0, &[]);
        check(&[], 3, &[]);
    }

    #[test]
    fn top_agrees_with_single_tokens() {
        let logits: Vec<f32> = (0..500u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as f32 / 100.0)
            .collect();
        let found = LogProbabilities::new(&logits);
        let mut expect: Vec<(u32, f64)> = (0..500)
            .filter_map(|token| Some((token, found.logprob(token)?)))
            .collect();
        expect.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        assert_eq!(found.top(20), expect[..20]);
        let mass: f64 = expect.iter().map(|&(_, logprob)| logprob.exp()).sum();
        assert!((mass - 1.0).abs() < 1e-9, "probabilities add up to {mass}");
    }
}
