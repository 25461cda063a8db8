//! Single steps with known outcomes.

use cinderlm_sampler::{DrawPlan, SampleError, Sampler, SamplerConfig};

const INF: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

fn greedy() -> SamplerConfig {
    SamplerConfig {
        temperature: 0.0,
        ..SamplerConfig::default()
    }
}

fn biased(temperature: f32, logit_bias: &[(u32, f32)]) -> SamplerConfig {
    SamplerConfig {
        temperature,
        logit_bias: logit_bias.to_vec(),
        ..SamplerConfig::default()
    }
}

/// The tokens of `n_steps` steps that all see the same logits.
fn run(
    config: &SamplerConfig,
    seed: u64,
    choice: u64,
    logits: &[f32],
    n_steps: usize,
) -> Result<Vec<u32>, SampleError> {
    let mut sampler = Sampler::new(config.clone(), seed, choice);
    (0..n_steps)
        .map(|_| sampler.sample(&mut logits.to_vec()))
        .collect()
}

/// Every token that forty differently seeded first steps give, in order.
fn support(config: &SamplerConfig, logits: &[f32]) -> Result<Vec<u32>, SampleError> {
    let mut tokens = Vec::new();
    for seed in 0..40 {
        tokens.extend(run(config, seed, 0, logits, 1)?);
    }
    tokens.sort_unstable();
    tokens.dedup();
    Ok(tokens)
}

#[test]
fn greedy_takes_the_largest_and_the_lowest_of_equals() {
    let check = |logits: &[f32], expect| {
        assert_eq!(
            run(&greedy(), 1, 0, logits, 2),
            Ok(vec![expect, expect]),
            "{logits:?}"
        )
    };
    check(&[0.0, 2.0, 1.0], 1);
    check(&[1.0, 3.0, 3.0, 3.0], 1);
    check(&[5.0], 0);
    check(&[-0.0, 0.0], 0);
    check(&[NAN, -5.0, NAN], 1);
    check(&[-INF, f32::MIN], 1);
    check(&[f32::MAX, INF, INF], 0);
    check(&[1.0, INF, INF], 1);
}

#[test]
fn drawing_survives_strange_logits() {
    let drawn = SamplerConfig::default();
    let truncated = SamplerConfig {
        top_p: 0.9,
        ..SamplerConfig::default()
    };
    let cold = SamplerConfig {
        temperature: f32::MIN_POSITIVE,
        ..SamplerConfig::default()
    };
    let check = |logits: &[f32], expect: &[u32]| {
        for config in [&drawn, &truncated, &cold] {
            assert_eq!(
                support(config, logits).as_deref(),
                Ok(expect),
                "{logits:?} with {config:?}"
            );
        }
    };
    check(&[NAN, 0.0, NAN], &[1]);
    check(&[-INF, 0.0, -INF], &[1]);
    check(&[0.0, INF, 1.0], &[1]);
    check(&[INF, 1.0, INF], &[0, 2]);
    check(&[f32::MIN, f32::MIN], &[0, 1]);
    check(&[f32::MAX, f32::MIN], &[0]);
    check(&[1e30, 1e30, -1e30], &[0, 1]);
}

#[test]
fn nothing_to_draw_is_an_error() {
    let check = |logits: &[f32], bias: &[(u32, f32)], expect: SampleError| {
        for temperature in [0.0, 1.0] {
            assert_eq!(
                run(&biased(temperature, bias), 1, 0, logits, 1),
                Err(expect),
                "{logits:?} with {bias:?}"
            );
        }
    };
    check(&[], &[], SampleError::NoLogits);
    check(&[], &[(0, 100.0)], SampleError::NoLogits);
    check(&[-INF, NAN], &[], SampleError::NoCandidates { n_logits: 2 });
    check(
        &[1.0, 2.0],
        &[(0, -100.0), (1, -100.0)],
        SampleError::NoCandidates { n_logits: 2 },
    );
    check(
        &[1.0, -INF],
        &[(0, -100.0)],
        SampleError::NoCandidates { n_logits: 2 },
    );
    check(
        &[1.0, 2.0],
        &[(2, 1.0)],
        SampleError::UnknownToken {
            token: 2,
            n_logits: 2,
        },
    );
    check(
        &[1.0, 2.0],
        &[(u32::MAX, 100.0)],
        SampleError::UnknownToken {
            token: u32::MAX,
            n_logits: 2,
        },
    );
}

#[test]
fn bias_adds_forces_and_bans() {
    let check = |logits: &[f32], bias: &[(u32, f32)], expect: &[u32]| {
        assert_eq!(
            support(&biased(1.0, bias), logits).as_deref(),
            Ok(expect),
            "drawn from {logits:?} with {bias:?}"
        );
    };
    check(&[0.0, 50.0], &[(0, 99.0)], &[0]);
    check(&[0.0, 0.0, 0.0], &[(1, -100.0)], &[0, 2]);
    check(&[INF, 0.0], &[(0, -100.0)], &[1]);
    check(&[500.0, -500.0], &[(1, 100.0)], &[1]);
    check(&[INF, -INF], &[(1, 100.0)], &[1]);
    check(&[0.0, NAN], &[(1, 100.0)], &[1]);
    // Several forced tokens compete among themselves.
    check(&[500.0, 1.0, 1.0], &[(1, 100.0), (2, 100.0)], &[1, 2]);
    check(&[500.0, 1.0, -INF], &[(1, 100.0), (2, 100.0)], &[1]);
    check(&[500.0, -INF, -INF], &[(1, 100.0), (2, 100.0)], &[1, 2]);
    // A plain bias does not help against force.
    check(&[0.0, 0.0], &[(0, 99.0), (1, 100.0)], &[1]);
}

#[test]
fn greedy_heeds_bias() {
    let check = |logits: &[f32], bias: &[(u32, f32)], expect| {
        assert_eq!(
            run(&biased(0.0, bias), 1, 0, logits, 1),
            Ok(vec![expect]),
            "{logits:?} with {bias:?}"
        );
    };
    check(&[3.0, 2.0, 1.0], &[(2, 2.5)], 2);
    check(&[3.0, 2.0, 1.0], &[(0, -100.0)], 1);
    check(&[300.0, 2.0, 1.0], &[(1, 100.0), (2, 100.0)], 1);
}

#[test]
fn penalties_count_what_was_generated() {
    let check = |frequency_penalty, presence_penalty, expect: &[u32]| {
        let config = SamplerConfig {
            frequency_penalty,
            presence_penalty,
            ..greedy()
        };
        let logits = [3.0, 2.5, 1.0];
        assert_eq!(
            run(&config, 1, 0, &logits, expect.len()).as_deref(),
            Ok(expect),
            "{frequency_penalty} {presence_penalty}"
        );
    };
    check(0.0, 0.0, &[0, 0, 0, 0]);
    // Once for good: 2, 2.5, 1 then 2, 1.5, 1 for ever.
    check(0.0, 1.0, &[0, 1, 0, 0, 0]);
    // Once each time: 2, 2.5 | 2, 1.5 | 1, 1.5 | 1, 0.5, 1 | 0, 0.5, 1.
    check(1.0, 0.0, &[0, 1, 0, 1, 0, 2]);
    // Both: 1.5, 2.5 | 1.5, 1, 1 | 1, 1, 1 | 0.5, 1, 1 | 0.5, 0.5, 1.
    check(0.5, 1.0, &[0, 1, 0, 0, 1, 2]);
    check(-1.0, 0.0, &[0, 0, 0]);
}

#[test]
fn penalties_come_after_bias_and_apply_among_forced_tokens() {
    let config = SamplerConfig {
        frequency_penalty: 2.0,
        logit_bias: vec![(1, 100.0), (2, 100.0)],
        ..greedy()
    };
    assert_eq!(
        run(&config, 1, 0, &[9.0, 1.0, 0.0], 4),
        Ok(vec![1, 2, 1, 2])
    );
}

#[test]
fn top_p_narrows_the_draw() {
    let check = |top_p, expect: &[u32]| {
        let config = SamplerConfig {
            top_p,
            ..SamplerConfig::default()
        };
        // Probabilities 0.1, 0.6 and 0.3.
        let logits = [0.1f32.ln(), 0.6f32.ln(), 0.3f32.ln()];
        assert_eq!(support(&config, &logits).as_deref(), Ok(expect), "{top_p}");
    };
    check(0.0, &[1]);
    check(0.59, &[1]);
    check(0.61, &[1, 2]);
    check(0.89, &[1, 2]);
    check(0.91, &[0, 1, 2]);
    check(1.0, &[0, 1, 2]);
}

#[test]
fn top_p_of_zero_is_greedy_among_equals_too() {
    let config = SamplerConfig {
        top_p: 0.0,
        temperature: 2.0,
        ..SamplerConfig::default()
    };
    assert_eq!(support(&config, &[1.0, 4.0, 4.0]), Ok(vec![1]));
}

#[test]
fn the_same_seed_and_choice_give_the_same_tokens() {
    let logits: Vec<f32> = (0..1000u16).map(|i| f32::from(i % 37) / 9.0).collect();
    let config = SamplerConfig {
        top_p: 0.95,
        frequency_penalty: 0.5,
        ..SamplerConfig::default()
    };
    let tokens = |seed, choice| run(&config, seed, choice, &logits, 50);
    assert_eq!(tokens(7, 0), tokens(7, 0));
    assert_ne!(tokens(7, 0), tokens(7, 1));
    assert_ne!(tokens(7, 0), tokens(8, 0));
}

#[test]
fn a_choice_does_not_depend_on_its_neighbours() {
    let logits: Vec<f32> = (0..100u8).map(|i| f32::from(i % 7)).collect();
    let config = SamplerConfig::default();
    let alone: Vec<_> = (0..3)
        .map(|choice| run(&config, 5, choice, &logits, 20))
        .collect();
    let mut together: Vec<Sampler> = (0..3)
        .map(|choice| Sampler::new(config.clone(), 5, choice))
        .collect();
    for step in 0..20 {
        for (sampler, alone) in together.iter_mut().zip(&alone).rev() {
            assert_eq!(
                sampler.sample(&mut logits.clone()),
                alone
                    .as_ref()
                    .map(|tokens| tokens[step])
                    .map_err(|&error| error)
            );
        }
    }
}

#[test]
fn a_failed_step_changes_nothing() {
    let config = SamplerConfig {
        presence_penalty: 1.0,
        ..SamplerConfig::default()
    };
    let logits = [1.0, 2.0, 1.5, 0.0];
    let mut sampler = Sampler::new(config.clone(), 3, 0);
    let mut tokens = Vec::new();
    for _ in 0..10 {
        assert_eq!(
            sampler.sample(&mut [NAN, -INF]),
            Err(SampleError::NoCandidates { n_logits: 2 })
        );
        tokens.extend(sampler.sample(&mut logits.to_vec()));
    }
    assert_eq!(run(&config, 3, 0, &logits, 10), Ok(tokens));
}

/// A draw made with a plan, by the definition.
fn drawn_as_planned(logits: &[f32], plan: &DrawPlan) -> u32 {
    let mut logits: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    for &(token, by) in &plan.adjustments {
        logits[token as usize] += f64::from(by);
    }
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    if plan.temperature == 0.0 {
        return order[0] as u32;
    }
    let weight = |token: usize| (logits[token] / f64::from(plan.temperature)).exp();
    let total: f64 = order.iter().map(|&token| weight(token)).sum();
    let mut mass = 0.0;
    if plan.top_p < 1.0 {
        let reached = |&token: &usize| {
            mass += weight(token);
            mass >= f64::from(plan.top_p) * total
        };
        let n_kept = order
            .iter()
            .position(reached)
            .map_or(order.len(), |last| last + 1);
        order.truncate(n_kept);
    } else {
        order.sort_unstable();
        mass = total;
    }
    let mut sum = 0.0;
    let falls_on = |&&token: &&usize| {
        sum += weight(token);
        plan.uniform * mass < sum
    };
    *order.iter().find(falls_on).expect("a token") as u32
}

#[test]
fn plans_foresee_what_is_sampled() {
    let logits = [2.0, 1.0, 0.5, -1.0, f32::NEG_INFINITY];
    for (temperature, top_p) in [(0.0, 1.0), (0.7, 1.0), (1.3, 0.8)] {
        let config = SamplerConfig {
            temperature,
            top_p,
            frequency_penalty: 0.4,
            presence_penalty: 0.3,
            logit_bias: vec![(3, 2.5), (1, -100.0), (0, 0.25)],
        };
        for seed in 0..5 {
            let mut sampler = Sampler::new(config.clone(), seed, 1);
            let mut apart = sampler.clone();
            for step in 0..4 {
                let plan = apart.plan().expect("nothing is forced");
                assert_eq!(apart.plan().as_ref(), Some(&plan), "a plan changes nothing");
                let token = sampler.sample(&mut logits.clone()).expect("a token");
                let what = format!("temperature {temperature}, seed {seed}, step {step}");
                assert_eq!(drawn_as_planned(&logits, &plan), token, "{what}");
                assert!(
                    plan.adjustments.is_sorted_by_key(|&(token, _)| token),
                    "{what}"
                );
                apart.accept(token);
            }
            assert_eq!(sampler.plan(), apart.plan());
        }
    }
    let forced = SamplerConfig {
        logit_bias: vec![(1, 100.0)],
        ..SamplerConfig::default()
    };
    assert_eq!(Sampler::new(forced, 0, 0).plan(), None);
}
