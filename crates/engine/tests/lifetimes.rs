//! Requests that are dropped, fail, wait or are read slowly.

mod common;

use std::task::Poll;

use cinderlm_engine::testing::{block_on, run_host};
use cinderlm_engine::{CompletionStream, collect};
use cinderlm_models::ModelError;
use cinderlm_protocol::{Chunk, ErrorCode};
use common::Bench;
use futures::{FutureExt as _, StreamExt as _, poll};
use serde_json::json;

/// Polls until the condition holds; the stream's first items until then.
fn poll_until(stream: &mut CompletionStream, mut is_met: impl FnMut() -> bool) -> Vec<Chunk> {
    block_on(async {
        let mut chunks = Vec::new();
        for _ in 0..10_000 {
            if is_met() {
                return chunks;
            }
            match poll!(stream.next()) {
                Poll::Ready(Some(item)) => chunks.push(item.expect("no error")),
                Poll::Ready(None) => panic!("the stream ended first"),
                Poll::Pending => {
                    run_host();
                }
            }
        }
        panic!("it never came to that");
    })
}

fn long_request() -> serde_json::Value {
    json!({ "prompt": "0123456789", "n": 3, "max_tokens": 20, "stream": true, "logit_bias": { "97": 100 } })
}

#[test]
fn a_stream_that_is_never_polled_does_nothing() {
    let bench = Bench::noisy();
    drop(bench.stream(long_request()));
    assert_eq!(bench.probe.n_forward_calls(), 0);
    bench.assert_as_new("after a stream that was not polled");
}

#[test]
fn dropping_a_stream_frees_its_memory_at_any_step() {
    // Ten tokens of prompt in five steps, then three choices of twenty tokens side by side, the prompt's logits serving for the first.
    for n_calls in 1..5 + 19 {
        for pauses in [0, 3] {
            let bench = Bench::reading_by(2);
            bench.probe.slow_down(pauses);
            let mut stream = bench.stream(long_request());
            poll_until(&mut stream, || bench.probe.n_forward_calls() == n_calls);
            assert!(bench.probe.n_live_sequences() > 0);
            drop(stream);
            assert_eq!(
                bench.probe.n_forward_calls(),
                n_calls,
                "no step follows the drop"
            );
            bench.assert_as_new(&format!("after a drop in step {n_calls}"));
        }
    }
}

#[test]
fn a_queued_request_can_be_dropped() {
    let bench = Bench::noisy();
    let mut first = bench.stream(long_request());
    poll_until(&mut first, || bench.probe.n_live_sequences() > 0);
    let mut queued = bench.stream(long_request());
    let mut last =
        bench.stream(json!({ "prompt": "x", "max_tokens": 1, "temperature": 0, "stream": true }));
    assert!(queued.next().now_or_never().is_none());
    assert!(last.next().now_or_never().is_none());
    drop(queued);
    drop(first);
    let chunk = block_on(last.next()).expect("a chunk").expect("no error");
    assert_eq!(chunk.choices.len(), 1);
    drop(last);
    bench.assert_as_new("after a queued request was dropped");
}

#[test]
fn requests_at_once_and_one_by_one_are_answered_alike() {
    let fields = |seed: u64| json!({ "prompt": "x", "seed": seed, "n": 2, "logprobs": 2 });
    let bench = Bench::noisy();
    let alone = [1, 2].map(|seed| bench.completed(fields(seed)).choices);
    let [first, second] = [1, 2].map(|seed| collect(bench.stream(fields(seed))));
    let (first, second) = block_on(async { futures::join!(first, second) });
    let together = [first, second].map(|completion| completion.expect("it succeeds").choices);
    assert_eq!(together, alone);
}

#[test]
fn a_slow_consumer_holds_the_model_back() {
    let bench = Bench::noisy();
    let mut stream = bench.stream(long_request());
    let mut n_calls = Vec::new();
    for _ in 0..5 {
        let chunk = block_on(stream.next()).expect("a chunk").expect("no error");
        assert_eq!(chunk.choices[0].text, "a");
        // Nothing happens while nobody asks, and one step at most for each chunk that is asked for.
        n_calls.push(bench.probe.n_forward_calls());
    }
    assert_eq!(n_calls, [1, 2, 3, 4, 5]);
}

#[test]
fn a_consumer_that_rests_after_the_last_text_keeps_nobody_waiting() {
    let bench = Bench::scripted(json!([{ "prompt": "hi", "output": ["hello"] }]));
    let mut stream = bench.stream(json!({ "prompt": "hi", "stream": true }));
    let chunk = block_on(stream.next()).expect("a chunk").expect("no error");
    assert_eq!(chunk.choices[0].text, "hello");
    let last = block_on(stream.next()).expect("a chunk").expect("no error");
    assert!(last.choices[0].finish_reason.is_some());
    // The stream has not been asked for its end yet.
    bench.assert_as_new("while another stream rests");
    assert!(block_on(stream.next()).is_none());
}

#[test]
fn a_stream_that_has_ended_stays_ended() {
    let bench = Bench::noisy();
    let mut stream = bench.stream(json!({ "prompt": "x", "max_tokens": 1, "stream": true }));
    while block_on(stream.next()).is_some() {}
    assert!(block_on(stream.next()).is_none());

    let mut failing = bench.stream(json!({ "prompt": [9999], "stream": true }));
    assert!(block_on(failing.next()).is_some_and(|item| item.is_err()));
    assert!(block_on(failing.next()).is_none());
}

#[test]
fn a_failing_step_is_an_error_and_leaves_the_engine_usable() {
    let message = || "injected".to_owned();
    let failures = [
        (
            ModelError::DeviceLost { message: message() },
            ErrorCode::DeviceLost,
        ),
        (
            ModelError::OutOfMemory { message: message() },
            ErrorCode::OutOfMemory,
        ),
        (
            ModelError::Execution { message: message() },
            ErrorCode::Internal,
        ),
    ];
    for (failure, code) in failures {
        for n_calls in 0..8 {
            let bench = Bench::reading_by(3);
            bench.probe.fail_after(n_calls, failure.clone());
            let error = bench.complete(long_request()).expect_err("a step fails");
            assert_eq!(error.code, code);
            assert!(error.message.contains("injected"), "{error}");
            assert_eq!(bench.probe.n_forward_calls(), n_calls + 1);
            bench.assert_as_new("after a failed step");
        }
    }
}

#[test]
fn a_failing_request_does_not_disturb_those_beside_it() {
    let injected = || ModelError::OutOfMemory {
        message: "injected".to_owned(),
    };
    let bench = Bench::noisy();
    bench.probe.slow_down(2);
    // The step that they share, and then the first request's part of it.
    bench.probe.fail_after(0, injected());
    bench.probe.fail_after(1, injected());
    let failing = collect(bench.stream(long_request()));
    let next = collect(bench.stream(json!({ "prompt": "x", "max_tokens": 3 })));
    let invalid = collect(bench.stream(json!({ "prompt": "x", "max_tokens": 1000 })));
    let (failing, next, invalid) = block_on(async { futures::join!(failing, next, invalid) });
    assert_eq!(
        failing.map_err(|error| error.code),
        Err(ErrorCode::OutOfMemory)
    );
    assert_eq!(
        invalid.map_err(|error| error.code),
        Err(ErrorCode::ContextLengthExceeded)
    );
    assert!(next.is_ok());
    bench.assert_as_new("after a request between two that fail");
}

#[test]
fn an_invalid_request_is_refused_without_waiting() {
    let bench = Bench::noisy();
    let mut running = bench.stream(long_request());
    poll_until(&mut running, || bench.probe.n_live_sequences() > 0);
    let refused = bench.complete(json!({ "prompt": "x", "max_tokens": 1000 }));
    assert_eq!(
        refused.map_err(|error| error.code),
        Err(ErrorCode::ContextLengthExceeded)
    );
    assert!(block_on(running.next()).is_some_and(|item| item.is_ok()));
}

#[test]
fn streams_outlive_their_engine() {
    let bench = Bench::noisy();
    let stream = bench.stream(json!({ "prompt": "x", "max_tokens": 2 }));
    let Bench { engine, probe, .. } = bench;
    drop(engine);
    assert!(block_on(collect(stream)).is_ok());
    assert_eq!(probe.n_live_sequences(), 0);
}
