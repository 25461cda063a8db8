//! A model that draws tokens itself changes nothing of what requests get.

mod common;

use cinderlm_engine::collect;
use cinderlm_engine::testing::block_on;
use cinderlm_protocol::{Choice, CompletionError};
use common::Bench;
use futures::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

/// Requests that use all that a draw depends on.
fn any_request() -> impl Strategy<Value = Value> {
    let bias = prop_oneof![
        Just(json!(null)),
        Just(json!({ "97": 4.5, "10": -3, "101": -100 })),
        Just(json!({ "98": 100, "99": 100 })),
    ];
    let logprobs = prop_oneof![Just(json!(null)), Just(json!(0)), Just(json!(4))];
    let temperature = prop_oneof![Just(0.0), Just(0.7), Just(2.0)];
    let top_p = prop_oneof![Just(1.0), Just(0.8), Just(0.0)];
    let penalty = prop_oneof![Just(0.0), Just(1.5), Just(-0.5)];
    (bias, logprobs, temperature, top_p, penalty, 1..4u32, 1..4u32, any::<i64>()).prop_map(
        |(logit_bias, logprobs, temperature, top_p, penalty, n, more, seed)| {
            json!({
                "prompt": "abc", "logit_bias": logit_bias, "logprobs": logprobs, "temperature": temperature, "top_p": top_p,
                "frequency_penalty": penalty, "presence_penalty": penalty / 2.0, "n": n, "best_of": n + more - 1,
                "max_tokens": 9, "seed": seed,
            })
        },
    )
}

/// What requests get side by side.
fn answers(bench: &Bench, requests: &[Value]) -> Vec<Result<Vec<Choice>, CompletionError>> {
    let answer = async |fields: &Value| {
        let completion = collect(bench.engine.complete(common::request(fields.clone()))).await?;
        Ok(completion.choices)
    };
    block_on(join_all(requests.iter().map(answer)))
}

/// The log-probabilities of choices, of which single precision leaves some six digits, and the texts of the tokens that have them.
fn logprobs(choices: &[Choice]) -> (Vec<f64>, Vec<String>) {
    let (mut numbers, mut tokens) = (Vec::new(), Vec::new());
    for logprobs in choices.iter().filter_map(|choice| choice.logprobs.as_ref()) {
        numbers.extend(logprobs.token_logprobs.iter().flatten());
        tokens.extend(logprobs.tokens.clone());
        for top in logprobs.top_logprobs.iter().flatten() {
            let top = serde_json::to_value(top).expect("serialisable");
            for (token, logprob) in top.as_object().into_iter().flatten() {
                tokens.push(token.clone());
                numbers.extend(logprob.as_f64());
            }
        }
    }
    (numbers, tokens)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        rng_seed: RngSeed::Fixed(5),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_model_that_draws_gives_the_same_choices(
        requests in prop::collection::vec(any_request(), 1..4),
        prefill_rows in prop_oneof![Just(2), Just(512)],
    ) {
        let [drawing, plain] = [0, 1].map(|_| Bench::reading_by(prefill_rows));
        drawing.probe.let_draw();
        let (found, expected) = (answers(&drawing, &requests), answers(&plain, &requests));
        for (found, expected) in found.into_iter().zip(expected) {
            let (found, expected) = (found.expect("a completion"), expected.expect("a completion"));
            let (found_numbers, found_tokens) = logprobs(&found);
            let (expected_numbers, expected_tokens) = logprobs(&expected);
            prop_assert_eq!(found_tokens, expected_tokens);
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert_eq!(&found.text, &expected.text);
                prop_assert_eq!(found.finish_reason, expected.finish_reason);
            }
            prop_assert_eq!(found_numbers.len(), expected_numbers.len());
            for (found, expected) in found_numbers.iter().zip(&expected_numbers) {
                prop_assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
            }
        }
        let forces = |fields: &Value| fields["logit_bias"]["98"] == json!(100);
        if requests.iter().all(forces) {
            prop_assert_eq!(drawing.probe.n_drawn(), 0, "forced tokens need all logits");
        }
        prop_assert_eq!(plain.probe.n_drawn(), 0);
        prop_assert_eq!(drawing.probe.n_foreseen().1, 0, "draws other than they were told");
    }
}

#[test]
fn tokens_are_drawn_while_another_prompt_is_read() {
    let bench = Bench::reading_by(2);
    bench.probe.let_draw();
    let bias = json!({ "0": -100 });
    let requests = [("abc", 8), ("abcabcabcabcabc", 2)].map(|(prompt, max_tokens)| {
        json!({ "prompt": prompt, "max_tokens": max_tokens, "seed": 4, "logit_bias": bias })
    });
    let complete = async |fields: &Value| {
        let completion = collect(bench.engine.complete(common::request(fields.clone()))).await;
        completion.expect("a completion").usage.completion_tokens
    };
    let n_tokens: u64 = block_on(join_all(requests.iter().map(complete)))
        .iter()
        .sum();
    assert!(n_tokens > 2);
    assert_eq!(bench.probe.n_drawn() as u64, n_tokens);
}

#[test]
fn a_single_choice_is_drawn_from_its_first_token_on() {
    let bench = Bench::noisy();
    bench.probe.let_draw();
    let completion = bench.completed(
        json!({ "prompt": "abc", "max_tokens": 6, "seed": 4, "logit_bias": { "0": -100 } }),
    );
    let n_tokens = completion.usage.completion_tokens;
    assert!(n_tokens > 1);
    assert_eq!(bench.probe.n_drawn() as u64, n_tokens);
}

#[test]
fn draws_are_told_a_step_before_unless_they_depend_on_it() {
    for (penalty, expected) in [(0.0, 4), (0.5, 0)] {
        let bench = Bench::noisy();
        bench.probe.let_draw();
        let completion = bench.completed(json!({
            "prompt": "abc", "max_tokens": 6, "seed": 4, "logit_bias": { "0": -100 }, "presence_penalty": penalty,
        }));
        assert_eq!(completion.usage.completion_tokens, 6);
        // The first comes with the prompt, and the second is the first to be told of another.
        assert_eq!(bench.probe.n_foreseen(), (expected, 0));
    }
}
