//! What choosing a token costs, over as many logits as SmolLM2 has: `cargo bench -p cinderlm-sampler --bench steps`.

use std::hint::black_box;

use cinderlm_sampler::{LogProbabilities, Sampler, SamplerConfig};
use criterion::{BatchSize, Criterion};

const N_LOGITS: usize = 49152;

/// Logits as peaked as a model's: most are small, few are large. The same every time.
fn logits() -> Vec<f32> {
    let mut state = 1u32;
    (0..N_LOGITS)
        .map(|_| {
            // Numerical Recipes' linear congruential generator.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let unit = (state >> 8) as f32 / 16_777_216.0;
            20.0 * unit.powi(8) - 5.0
        })
        .collect()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let logits = logits();
    let greedy = SamplerConfig {
        temperature: 0.0,
        ..SamplerConfig::default()
    };
    let nucleus = SamplerConfig {
        temperature: 0.8,
        top_p: 0.95,
        ..SamplerConfig::default()
    };
    let configs = [
        ("greedy", greedy),
        ("temperature", SamplerConfig::default()),
        ("top_p", nucleus),
    ];
    for (name, config) in configs {
        let mut sampler = Sampler::new(config, 7, 0);
        criterion.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || logits.clone(),
                |logits| sampler.sample(black_box(logits)),
                BatchSize::LargeInput,
            )
        });
    }
    criterion.bench_function("logprobs", |bencher| {
        bencher.iter(|| {
            let logprobs = LogProbabilities::new(black_box(&logits));
            (logprobs.logprob(7), logprobs.top(5))
        })
    });
    criterion.final_summary();
}
