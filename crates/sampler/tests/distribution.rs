//! Sampled frequencies against the distribution that the settings define, computed here a second
//! time in double precision.

use cinderlm_sampler::{Sampler, SamplerConfig};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const N_DRAWS: u32 = 4000;

/// The probabilities of the second of two steps, the first having given `first`, by the contract's
/// definition.
fn expected(config: &SamplerConfig, logits: &[f32], first: u32) -> Vec<f64> {
    let bias_of = |token: usize| {
        config
            .logit_bias
            .iter()
            .find(|&&(id, _)| id as usize == token)
            .map_or(0.0, |&(_, bias)| bias)
    };
    let any_forced = config.logit_bias.iter().any(|&(_, bias)| bias >= 100.0);
    let weights: Vec<f64> = (0..logits.len())
        .map(|token| {
            let bias = bias_of(token);
            if bias <= -100.0 || (any_forced && bias < 100.0) {
                return 0.0;
            }
            let generated = token == first as usize;
            let penalty = if generated {
                config.frequency_penalty + config.presence_penalty
            } else {
                0.0
            };
            let added = if any_forced { 0.0 } else { bias };
            (f64::from(logits[token] + added - penalty) / f64::from(config.temperature)).exp()
        })
        .collect();
    let total: f64 = weights.iter().sum();

    let mut order: Vec<usize> = (0..weights.len())
        .filter(|&token| weights[token] > 0.0)
        .collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let mut kept = vec![0.0; weights.len()];
    let mut mass = 0.0;
    for token in order {
        kept[token] = weights[token];
        mass += weights[token];
        if mass >= f64::from(config.top_p) * total {
            break;
        }
    }
    kept.iter().map(|weight| weight / mass).collect()
}

/// Pearson's statistic over its own standard deviation: about normal, so that 6 is out of reach of
/// chance.
fn chi_square_sigmas(counts: &[u32], probabilities: &[f64], n_draws: f64) -> f64 {
    let (mut statistic, mut n_bins) = (0.0, 0.0);
    let (mut rare_count, mut rare_expected) = (0.0, 0.0);
    let mut add = |count: f64, expected: f64| {
        statistic += (count - expected).powi(2) / expected;
        n_bins += 1.0;
    };
    for (&count, probability) in counts.iter().zip(probabilities) {
        let expected = probability * n_draws;
        // The statistic needs some draws in every bin: the rare ones share one.
        if expected >= 10.0 {
            add(f64::from(count), expected);
        } else {
            rare_count += f64::from(count);
            rare_expected += expected;
        }
    }
    if rare_expected > 1.0 {
        add(rare_count, rare_expected);
    }
    let freedom: f64 = (n_bins - 1.0_f64).max(1.0);
    (statistic - freedom) / (2.0 * freedom).sqrt()
}

fn configs() -> impl Strategy<Value = SamplerConfig> {
    let bias = prop_oneof![4 => -3.0f32..3.0, 1 => Just(-100.0), 1 => Just(100.0)];
    let logit_bias = prop::collection::btree_map(0u32..12, bias, 0..5);
    (
        0.2f32..2.0,
        prop_oneof![Just(1.0f32), 0.05f32..1.0],
        -2.0f32..2.0,
        -2.0f32..2.0,
        logit_bias,
    )
        .prop_map(
            |(temperature, top_p, frequency_penalty, presence_penalty, logit_bias)| SamplerConfig {
                temperature,
                top_p,
                frequency_penalty,
                presence_penalty,
                logit_bias: logit_bias.into_iter().collect(),
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        rng_seed: RngSeed::Fixed(2),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn frequencies_match_the_distribution(
        config in configs(),
        logits in prop::collection::vec(-4.0f32..4.0, 12..40),
        first in 0u32..12,
    ) {
        let probabilities = expected(&config, &logits, first);
        // Where a probability is a hair from top_p, rounding decides who is in the set; such a case
        // tests nothing.
        prop_assume!(!on_the_edge(&config, &logits, first));
        let mut counts = vec![0u32; logits.len()];
        let mut drawn = 0u32;
        for choice in 0..N_DRAWS {
            let mut sampler = Sampler::new(config.clone(), 99, u64::from(choice));
            // The first step leaves `first` as the only token, so that the second has it to
            // penalise. Banned and outbid tokens cannot come first.
            let mut only = vec![f32::NEG_INFINITY; logits.len()];
            only[first as usize] = 0.0;
            if sampler.sample(&mut only) != Ok(first) {
                continue;
            }
            let token = sampler.sample(&mut logits.clone()).expect("something to draw");
            counts[token as usize] += 1;
            drawn += 1;
        }
        prop_assume!(drawn == N_DRAWS);
        for (token, probability) in probabilities.iter().enumerate() {
            let count = counts[token];
            prop_assert!(*probability > 0.0 || count == 0, "{token} must not be drawn");
        }
        let sigmas = chi_square_sigmas(&counts, &probabilities, f64::from(drawn));
        prop_assert!(sigmas < 6.0, "{sigmas} off: {counts:?} against {probabilities:?}");
    }
}

fn on_the_edge(config: &SamplerConfig, logits: &[f32], first: u32) -> bool {
    let nudged = |by: f32| SamplerConfig {
        top_p: (config.top_p + by).min(1.0),
        ..config.clone()
    };
    let support = |config: &SamplerConfig| {
        expected(config, logits, first)
            .iter()
            .filter(|&&p| p > 0.0)
            .count()
    };
    config.top_p < 1.0 && support(&nudged(-1e-5)) != support(&nudged(1e-5))
}
