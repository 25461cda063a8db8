//! Prompts that begin as an earlier request did.

mod common;

use cinderlm_engine::testing::block_on;
use cinderlm_engine::{CallOptions, EngineOptions, PrefixStats, collect};
use cinderlm_models::ModelError;
use common::{Bench, BenchConfig, request};
use futures::StreamExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};

fn keeping(prefix_tokens: usize) -> Bench {
    Bench::new(&BenchConfig {
        context_length: 256,
        options: EngineOptions {
            prefix_tokens,
            prefill_rows: 8,
            ..EngineOptions::default()
        },
        ..BenchConfig::default()
    })
}

fn fields(prompt: &str) -> Value {
    json!({ "prompt": prompt, "max_tokens": 4, "seed": 1, "temperature": 1.5 })
}

const TEXT: &str = "Once upon a time there was a cinder that slept in the ash of an old stove";

#[test]
fn a_grown_prompt_is_read_from_where_it_grew() {
    let bench = keeping(200);
    bench.completed(fields(TEXT));
    let n_before = bench.probe.n_tokens_fed();
    bench.completed(fields(&format!("{TEXT}, and")));
    // Five new bytes, and three of the four tokens that follow.
    assert_eq!(bench.probe.n_tokens_fed() - n_before, 5 + 3);
    let PrefixStats {
        n_hits,
        n_saved_tokens,
        n_kept_tokens,
    } = bench.engine.prefix_stats();
    assert_eq!((n_hits, n_saved_tokens), (1, TEXT.len() as u64));
    assert!(n_kept_tokens > TEXT.len() && n_kept_tokens <= 200);
}

#[test]
fn the_same_prompt_is_read_from_its_last_token() {
    let bench = keeping(200);
    let first = bench.completed(fields(TEXT)).choices;
    let n_before = bench.probe.n_tokens_fed();
    assert_eq!(bench.completed(fields(TEXT)).choices, first);
    assert_eq!(bench.probe.n_tokens_fed() - n_before, 1 + 3);
}

#[test]
fn a_request_that_was_left_midway_serves_too() {
    let bench = keeping(200);
    let mut stream = bench.stream(
        json!({ "prompt": TEXT, "max_tokens": 50, "stream": true, "logit_bias": { "97": 100 } }),
    );
    assert!(block_on(stream.next()).is_some_and(|item| item.is_ok()));
    drop(stream);
    bench.completed(fields(TEXT));
    assert_eq!(bench.engine.prefix_stats().n_hits, 1);
}

#[test]
fn scopes_do_not_learn_of_each_other() {
    let bench = keeping(200);
    let ask = |scope: &str| {
        let options = CallOptions {
            cache_scope: scope.to_owned(),
        };
        let n_before = bench.probe.n_tokens_fed();
        let stream = bench.engine.complete_for(request(fields(TEXT)), &options);
        block_on(collect(stream)).expect("it succeeds");
        bench.probe.n_tokens_fed() - n_before
    };
    let (first, again) = (ask("one"), ask("one"));
    assert!(again < first);
    assert_eq!(ask("another"), first);
    assert_eq!(ask("another"), again);
}

#[test]
fn a_prompt_that_is_scored_is_read_whole() {
    let bench = keeping(200);
    bench.completed(fields(TEXT));
    let n_before = bench.probe.n_tokens_fed();
    let scored = json!({ "prompt": TEXT, "echo": true, "logprobs": 0, "max_tokens": 0 });
    let choice = &bench.completed(scored).choices[0];
    assert_eq!(
        choice
            .logprobs
            .as_ref()
            .map(|logprobs| logprobs.tokens.len()),
        Some(TEXT.len())
    );
    assert_eq!(bench.probe.n_tokens_fed() - n_before, TEXT.len() - 1);
}

#[test]
fn what_is_kept_is_bounded() {
    let bench = keeping(100);
    for i in 0..40 {
        bench.completed(fields(&format!("{i:02} {TEXT}")[..30]));
        assert!(bench.probe.n_live_sequences() <= 4, "{i}");
        assert!(bench.engine.prefix_stats().n_kept_tokens <= 100, "{i}");
    }
    assert_eq!(bench.engine.prefix_stats().n_hits, 0);
}

#[test]
fn what_is_kept_gives_way_when_memory_is_short() {
    let bench = keeping(200);
    bench.completed(fields(TEXT));
    assert_eq!(bench.probe.n_live_sequences(), 1);
    bench.probe.fail_after(
        0,
        ModelError::OutOfMemory {
            message: "injected".to_owned(),
        },
    );
    bench.completed(fields("short"));
    assert_eq!(bench.probe.n_live_sequences(), 0);
}

proptest! {
    #[test]
    fn what_is_kept_changes_nothing(
        prompts in prop::collection::vec((0..3usize, 10..60usize, "[ab]{0,3}"), 1..8),
        prefix_tokens in 0..300usize,
        n in 1..3u32,
    ) {
        let bench = keeping(prefix_tokens);
        for (variant, length, tail) in prompts {
            let prompt = format!("{}{}{tail}", ["", "The ", "Once upon a time, "][variant], &TEXT[..length]);
            let mut fields = fields(&prompt);
            fields["n"] = json!(n);
            fields["logprobs"] = json!(2);
            prop_assert_eq!(bench.completed(fields.clone()).choices, keeping(0).completed(fields).choices);
        }
    }
}
