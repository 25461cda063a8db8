//! Tiny models of every kind against float32 logits from `transformers`, on both devices.

mod common;

use cinderlm_models::{CausalLm, LogitsFor};
use common::{On, argmax, feed, max_difference, model, reference};

/// Float weights, and quantised ones on the GPU, which computes in single precision: rounding only.
const EXACT: f32 = 1e-4;

/// Quantised weights on the CPU, where activations are rounded to 16 bits per block of 32. The logits of these random models have a
/// standard deviation of 1.
const ROUNDED: f32 = 2e-3;

/// Every fixture, and its largest absolute difference on the CPU.
const FIXTURES: [(&str, f32); 10] = [
    ("tiny-llama", EXACT),
    ("llama-untied-biases", EXACT),
    ("llama-rope-freqs", EXACT),
    ("llama-rope-linear", EXACT),
    ("llama-rope-yarn", EXACT),
    ("qwen2-biases", EXACT),
    ("qwen3-head-norms", EXACT),
    ("llama-q4_1-q8_0", ROUNDED),
    ("llama-q4_0-q5", ROUNDED),
    ("llama-k-quants", ROUNDED),
];

fn check(name: &str, on: On, tolerance: f32) {
    let reference = reference(name);
    let mut model = model(name, on);
    assert_eq!(model.vocab_size(), reference.vocab_size);
    let sequence = model.open();
    let all = feed(&mut model, sequence, &reference.ids, LogitsFor::All);
    let rows = all.chunks(reference.vocab_size);
    let picked: Vec<f32> = rows
        .enumerate()
        .filter(|(position, _)| reference.positions.contains(position))
        .flat_map(|(_, row)| row)
        .copied()
        .collect();
    let difference = max_difference(&picked, &reference.logits());
    assert!(
        difference <= tolerance,
        "{name} on {on:?} is off by {difference}"
    );
    // One by one, as steps that are recorded and then replayed.
    let (start, last) = reference.ids.split_at(reference.ids.len() - 6);
    let sequence = model.open();
    feed(&mut model, sequence, start, LogitsFor::None);
    let expected = all.chunks(reference.vocab_size).skip(start.len());
    for (token, expected) in last.iter().zip(expected) {
        let logits = feed(&mut model, sequence, &[*token], LogitsFor::Last);
        assert!(logits == expected, "{name} on {on:?}, a token alone");
    }
}

#[test]
fn cpu_logits_match_transformers() {
    for (name, tolerance) in FIXTURES {
        check(name, On::Cpu, tolerance);
    }
}

#[test]
fn gpu_logits_match_transformers() {
    for (name, _) in FIXTURES {
        check(name, On::Gpu, EXACT);
    }
}

#[test]
fn greedy_continuations_match_transformers() {
    for on in On::BOTH {
        let mut model = model("tiny-llama", on);
        for greedy in reference("tiny-llama").greedy {
            let sequence = model.open();
            let mut logits = feed(&mut model, sequence, &greedy.prompt, LogitsFor::Last);
            let mut tokens = Vec::new();
            while tokens.len() < greedy.tokens.len() {
                tokens.push(argmax(&logits));
                logits = feed(
                    &mut model,
                    sequence,
                    &tokens[tokens.len() - 1..],
                    LogitsFor::Last,
                );
            }
            assert_eq!(tokens, greedy.tokens, "{on:?}");
            model.close(sequence);
        }
    }
}
