//! Choices and requests that take their steps together.

mod common;

use std::task::Poll;

use cinderlm_engine::testing::block_on;
use cinderlm_engine::{CompletionStream, EngineOptions, collect};
use cinderlm_protocol::{Choice, ErrorCode};
use common::{Bench, BenchConfig};
use futures::{StreamExt as _, join, poll};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A bench whose engine seats and queues this many.
fn bench(max_batch: usize, max_queue: usize, prefill_rows: usize) -> Bench {
    Bench::new(&BenchConfig {
        options: EngineOptions {
            prefill_rows,
            max_batch,
            max_queue,
            ..EngineOptions::default()
        },
        ..BenchConfig::default()
    })
}

/// A request that always runs to its last token.
fn endless(prompt: &str, n: u32, max_tokens: u64) -> Value {
    json!({ "prompt": prompt, "n": n, "max_tokens": max_tokens, "stream": true, "logit_bias": { "97": 100 } })
}

/// Polls a stream once.
fn poll_once(stream: &mut CompletionStream) -> bool {
    match block_on(async { poll!(stream.next()) }) {
        Poll::Ready(item) => item.expect("it goes on").is_ok(),
        Poll::Pending => false,
    }
}

#[test]
fn choices_take_their_steps_together() {
    for (n, best_of) in [(8, None), (2, Some(8))] {
        let bench = Bench::noisy();
        let mut fields = endless("0123", n, 5);
        fields["best_of"] = json!(best_of);
        fields["stream"] = json!(false);
        let completion = bench.completed(fields);
        assert_eq!(completion.usage.completion_tokens, 8 * 5);
        assert_eq!(bench.probe.n_forward_calls(), 1 + 4);
        assert_eq!(bench.probe.n_tokens_fed(), 4 + 8 * 4);
        assert_eq!(bench.probe.largest_step_tokens(), 8);
    }
}

#[test]
fn prompts_of_a_list_are_read_and_continued_together() {
    let bench = Bench::noisy();
    let mut fields = endless("", 2, 3);
    fields["prompt"] = json!(["abc", "defg", "hi"]);
    fields["stream"] = json!(false);
    assert_eq!(bench.completed(fields).choices.len(), 6);
    assert_eq!(bench.probe.n_forward_calls(), 1 + 2);
}

#[test]
fn requests_take_their_steps_together() {
    let bench = Bench::noisy();
    let streams = ["a", "b", "c", "d"].map(|prompt| bench.stream(endless(prompt, 1, 10)));
    let ended = block_on(futures::future::join_all(
        streams.map(|stream| stream.collect::<Vec<_>>()),
    ));
    assert!(ended.iter().all(|chunks| chunks.len() == 10));
    assert_eq!(bench.probe.n_forward_calls(), 10);
    bench.assert_as_new("after four requests at once");
}

#[test]
fn no_more_choices_run_than_there_are_seats() {
    let bench = bench(2, 8, 64);
    let completion = bench
        .completed(json!({ "prompt": "x", "n": 5, "max_tokens": 4, "logit_bias": { "97": 100 } }));
    assert_eq!(completion.choices.len(), 5);
    assert_eq!(bench.probe.largest_step_tokens(), 2);
    bench.assert_as_new("after more choices than seats");
}

#[test]
fn many_choices_of_many_prompts_all_end() {
    for n_prompts in [1, 40] {
        let bench = bench(16, 8, 64);
        let prompts: Vec<String> = (0..n_prompts).map(|i| format!("prompt {i}")).collect();
        let fields =
            json!({ "prompt": prompts, "n": 64, "max_tokens": 3, "logit_bias": { "97": 100 } });
        let choices = bench.completed(fields).choices;
        assert_eq!(choices.len(), n_prompts * 64);
        assert!(choices.iter().all(|choice| choice.text == "aaa"));
        bench.assert_as_new("after many choices");
    }
}

#[test]
fn requests_past_the_queue_are_refused() {
    let bench = bench(1, 1, 64);
    let mut running = bench.stream(endless("a", 1, 20));
    assert!(block_on(running.next()).is_some_and(|item| item.is_ok()));
    let mut waiting = bench.stream(endless("b", 1, 2));
    assert!(!poll_once(&mut waiting));
    let refused = bench
        .complete(json!({ "prompt": "c" }))
        .expect_err("the queue is full");
    assert_eq!(refused.code, ErrorCode::QueueFull);
    assert!(
        refused.retry_after.is_some_and(|seconds| seconds > 0.0),
        "{refused:?}"
    );
    drop(running);
    assert_eq!(block_on(waiting.count()), 2);
    bench.assert_as_new("after a request that was refused");
}

#[test]
fn a_long_prompt_holds_a_stream_back_by_one_piece() {
    let bench = bench(4, 4, 2);
    let mut stream = bench.stream(endless("a", 1, 40));
    assert!(block_on(stream.next()).is_some_and(|item| item.is_ok()));
    let mut long = bench.stream(endless("0123456789012345678901234567890123456789", 1, 2));
    let mut n_fed = bench.probe.n_tokens_fed();
    let mut n_shared = 0;
    for _ in 0..18 {
        // The long prompt's consumer asks all the time; the stream's takes what there is.
        poll_once(&mut long);
        assert!(block_on(stream.next()).is_some_and(|item| item.is_ok()));
        let n_new = bench.probe.n_tokens_fed() - n_fed;
        assert!(n_new <= 1 + 2, "{n_new} tokens between two of the stream");
        n_shared += usize::from(n_new == 1 + 2);
        n_fed += n_new;
    }
    assert!(
        n_shared >= 15,
        "the prompt was read beside the stream, in {n_shared} steps"
    );
}

#[test]
fn a_stream_that_nobody_reads_keeps_nobody_waiting() {
    let bench = Bench::noisy();
    let mut unread = bench.stream(endless("a", 2, 40));
    assert!(block_on(unread.next()).is_some_and(|item| item.is_ok()));
    // It has a chunk to give, which nobody takes.
    let other =
        bench.completed(json!({ "prompt": "b", "max_tokens": 5, "logit_bias": { "97": 100 } }));
    assert_eq!(other.choices[0].text, "aaaaa");
    assert!(block_on(unread.next()).is_some_and(|item| item.is_ok()));
}

#[test]
fn a_request_dropped_in_a_shared_step_is_freed_by_the_next() {
    let bench = Bench::noisy();
    bench.probe.slow_down(3);
    let mut stays = bench.stream(endless("a", 1, 30));
    let mut goes = bench.stream(endless("b", 2, 30));
    block_on(async {
        for _ in 0..4 {
            let (first, second) = join!(stays.next(), goes.next());
            assert!(first.is_some_and(|item| item.is_ok()) && second.is_some());
        }
    });
    assert!(!poll_once(&mut stays));
    assert!(!poll_once(&mut goes));
    drop(goes);
    for _ in 0..2 {
        assert!(block_on(stays.next()).is_some_and(|item| item.is_ok()));
    }
    assert_eq!(bench.probe.n_live_sequences(), 1);
    assert_eq!(block_on(stays.count()), 30 - 6);
    bench.assert_as_new("after a drop in a shared step");
}

proptest! {
    /// Alone, beside others, and beside others that are dropped midway.
    #[test]
    fn company_changes_nothing(
        seeds in prop::collection::vec(any::<i64>(), 2..6),
        n in 1..4u32,
        max_batch in 1..6usize,
        prefill_rows in 1..5usize,
        n_polls in 0..40usize,
    ) {
        let fields = |seed: &i64| json!({
            "prompt": ["one", "another"], "seed": seed, "n": n, "max_tokens": 9, "logprobs": 1, "temperature": 1.5,
        });
        let alone: Vec<Vec<Choice>> = seeds.iter().map(|seed| Bench::noisy().completed(fields(seed)).choices).collect();
        let bench = bench(max_batch, 64, prefill_rows);
        let mut dropped: Vec<_> = (0..3).map(|seed| bench.stream(fields(&seed))).collect();
        let streams = seeds.iter().map(|seed| collect(bench.stream(fields(seed))));
        let together = async {
            let neighbours = async {
                for _ in 0..n_polls {
                    for stream in &mut dropped {
                        let _ = poll!(stream.next());
                    }
                    // Gives the others their turn.
                    let mut has_waited = false;
                    futures::future::poll_fn(|context| {
                        context.waker().wake_by_ref();
                        match std::mem::replace(&mut has_waited, true) {
                            true => Poll::Ready(()),
                            false => Poll::Pending,
                        }
                    }).await;
                }
                dropped.clear();
            };
            join!(futures::future::join_all(streams), neighbours).0
        };
        let together: Result<Vec<_>, _> = block_on(together).into_iter().collect();
        let together: Vec<_> = together.expect("all succeed").into_iter().map(|completion| completion.choices).collect();
        prop_assert_eq!(together, alone);
        prop_assert_eq!(bench.probe.n_live_sequences(), 0);
    }
}

#[test]
fn steps_and_their_work_are_counted_by_kind() {
    let bench = Bench::noisy();
    let mut fields = endless("0123", 2, 3);
    fields["stream"] = json!(false);
    bench.completed(fields);
    let stats = bench.engine.work_stats();
    let kinds = [stats.prefill, stats.decode];
    assert_eq!(
        kinds.map(|kind| (kind.n_steps, kind.n_tokens)),
        [(1, 4), (2, 4)]
    );
    // The scripted host has one dispatch more to tell of each time, and is asked twice a step.
    assert_eq!(stats.prefill.total.dispatches, 2);
    assert_eq!(stats.decode.total.dispatches, 4 + 6);
    assert_eq!(stats.decode.last.dispatches, 6);
}
