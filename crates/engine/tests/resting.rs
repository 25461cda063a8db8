//! Streams whose consumers rest, and the memory of those that run.

mod common;

use std::task::Poll;

use cinderlm_engine::testing::{block_on, run_host};
use cinderlm_engine::{CompletionStream, EngineOptions, StreamHandle, collect};
use cinderlm_protocol::{Chunk, ChunkUsage};
use common::{Bench, BenchConfig};
use futures::{StreamExt as _, poll};
use proptest::prelude::*;
use serde_json::{Value, json};

fn bench(options: EngineOptions) -> Bench {
    Bench::new(&BenchConfig {
        options,
        ..BenchConfig::default()
    })
}

fn fields(prompt: &str, n: u32, seed: u64) -> Value {
    json!({
        "prompt": prompt, "n": n, "seed": seed, "max_tokens": 12, "logprobs": 1, "temperature": 1.5, "stream": true,
        "stream_options": { "include_usage": true },
    })
}

/// Polls streams in turns until none of them gets any further; gives the chunks that each let out.
fn run_all(streams: &mut [CompletionStream]) -> Vec<Vec<Chunk>> {
    let mut chunks = vec![Vec::new(); streams.len()];
    block_on(async {
        let mut n_idle = 0;
        while n_idle < 100 {
            n_idle += 1;
            for (stream, chunks) in streams.iter_mut().zip(&mut chunks) {
                while let Poll::Ready(Some(item)) = poll!(stream.next()) {
                    chunks.push(item.expect("no error"));
                    n_idle = 0;
                }
            }
            run_host();
        }
    });
    chunks
}

/// The whole completion of these chunks.
fn joined(chunks: Vec<Chunk>) -> Value {
    let ends = |chunk: &Chunk| matches!(chunk.usage, ChunkUsage::Total(_));
    assert!(chunks.last().is_some_and(ends), "the stream has ended");
    let items = futures::stream::iter(chunks.into_iter().map(Ok));
    let completion = block_on(collect(items)).expect("the chunks make a whole");
    json!(completion.choices)
}

#[test]
fn streams_that_nobody_reads_leave_their_places_to_others() {
    let bench = bench(EngineOptions {
        max_batch: 2,
        ..EngineOptions::default()
    });
    let alone = |i: u64| json!(bench.completed(fields("an unread one", 2, i)).choices);
    let expected: Vec<Value> = (0..5).map(alone).collect();

    let ask = |i| bench.stream(fields("an unread one", 2, i)).with_window(1);
    let mut unread: Vec<_> = (0..5).map(ask).collect();
    let handles: Vec<_> = unread.iter().map(CompletionStream::handle).collect();
    let mut chunks = run_all(&mut unread);
    assert!(chunks.iter().all(|chunks| chunks.len() == 1));
    let other = async {
        // Those who rest are polled on, as a host does.
        let resting = futures::future::join_all(unread.iter_mut().map(|stream| stream.next()));
        let other = collect(bench.stream(fields("one that is read", 3, 9)));
        match futures::future::select(std::pin::pin!(other), resting).await {
            futures::future::Either::Left((other, _)) => other.expect("it succeeds"),
            futures::future::Either::Right(_) => panic!("a closed window lets nothing out"),
        }
    };
    assert_eq!(block_on(other).choices.len(), 3);

    for handle in handles {
        handle.widen(1000);
    }
    for (chunks, later) in chunks.iter_mut().zip(run_all(&mut unread)) {
        chunks.extend(later);
    }
    let found: Vec<Value> = chunks.into_iter().map(joined).collect();
    assert_eq!(found, expected);
    drop(unread);
    bench.assert_as_new("after streams that rested");
}

#[test]
fn a_stream_that_rests_while_nobody_waits_keeps_its_place() {
    let bench = bench(EngineOptions::default());
    let stream = bench.stream(fields("x", 1, 1)).with_window(2);
    let handle = stream.handle();
    let mut streams = [stream];
    let mut chunks = run_all(&mut streams);
    assert_eq!(chunks[0].len(), 2);
    assert_eq!(bench.probe.n_live_sequences(), 1);
    assert!(handle.usage().completion_tokens >= 2);
    handle.widen(100);
    let later = run_all(&mut streams).remove(0);
    chunks[0].extend(later);
    // The prompt's one token, and each that was generated but the last.
    let n_tokens = bench.completed(fields("x", 1, 1)).usage.completion_tokens as usize;
    assert_eq!(bench.probe.n_tokens_fed(), 2 * n_tokens);
    assert_eq!(
        joined(chunks.remove(0)),
        json!(bench.completed(fields("x", 1, 1)).choices)
    );
}

#[test]
fn a_stream_that_left_its_place_comes_back_for_more_than_a_chunk() {
    let bench = bench(EngineOptions {
        max_batch: 1,
        ..EngineOptions::default()
    });
    let ask = |i| {
        bench
            .stream(fields("a prompt of some length", 1, i))
            .with_window(4)
    };
    let mut streams = [ask(1), ask(2)];
    let mut chunks = run_all(&mut streams);
    // Each has said four chunks, and has the fifth to say; the second left its place to nobody.
    assert!(chunks.iter().all(|chunks| chunks.len() == 4));
    let other = bench.stream(fields("one that waits", 1, 3)).with_window(0);
    let handles = [streams[0].handle(), streams[1].handle()];
    let [first, second] = streams;
    let mut all = [first, second, other];
    chunks.extend(vec![run_all(&mut all).remove(2)]);
    // One more chunk each: what they have to say, and no step of the model for another.
    let n_fed = bench.probe.n_tokens_fed();
    for handle in &handles {
        handle.widen(1);
    }
    let later = run_all(&mut all);
    assert!(later[..2].iter().all(|chunks| chunks.len() == 1));
    assert_eq!(bench.probe.n_tokens_fed(), n_fed);
}

#[test]
fn no_more_tokens_are_held_than_there_is_room_for() {
    let room = 100;
    let bench = bench(EngineOptions {
        kv_tokens: room,
        prefix_tokens: room / 2,
        prefill_rows: 8,
        ..EngineOptions::default()
    });
    let prompts = [
        "once upon a time there was",
        "there was a cinder that",
        "in the ash",
    ];
    let mut streams: Vec<_> = (0..12)
        .map(|i| bench.stream(fields(prompts[i % 3], 1 + i as u32 % 3, i as u64)))
        .collect();
    let mut n_ended = 0;
    let mut most = 0;
    block_on(async {
        while n_ended < streams.len() {
            for stream in &mut streams {
                if let Poll::Ready(Some(item)) = poll!(stream.next()) {
                    let chunk = item.expect("no error");
                    n_ended += usize::from(matches!(chunk.usage, ChunkUsage::Total(_)));
                }
                // The scripted model counts a byte for each token of each sequence.
                most = most.max(bench.engine.kv_bytes().unwrap_or(0));
            }
            run_host();
        }
    });
    assert!(most > room as u64 / 2, "{most}: several run at a time");
    // A prompt is held beside its first choices until the last has begun: the scripted model shares no memory between them.
    let longest = prompts[0].len() as u64;
    assert!(most <= room as u64 + longest, "{most} tokens were held");
    let kept = bench.engine.prefix_stats().n_kept_tokens;
    assert!(kept <= room / 2, "{kept} tokens are kept");
    assert_eq!(bench.engine.kv_bytes(), Some(kept as u64));
}

#[test]
fn a_request_that_needs_more_than_there_is_room_for_runs_alone() {
    let bench = bench(EngineOptions {
        kv_tokens: 4,
        ..EngineOptions::default()
    });
    let completion = bench.completed(fields("more than four tokens", 3, 1));
    assert_eq!(completion.choices.len(), 3);
    assert_eq!(
        bench.probe.largest_step_tokens(),
        "more than four tokens".len()
    );
    bench.assert_as_new("after a large request");
}

proptest! {
    /// However consumers rest and go on, and whatever room there is, every stream says what it says alone.
    #[test]
    fn rests_change_nothing(
        requests in prop::collection::vec((0..3usize, 1..4u32, any::<u8>(), 0..4u64), 1..7),
        max_batch in 1..5usize,
        kv_tokens in 1..200usize,
        prefix_tokens in 0..100usize,
        rounds in prop::collection::vec((0..7usize, 1..5u64), 0..12),
    ) {
        let prompts = ["", "a prompt of some length", "a prompt of another length"];
        let ask = |&(prompt, n, seed, _): &(usize, u32, u8, u64)| fields(prompts[prompt], n, u64::from(seed));
        let alone: Vec<Value> = requests.iter().map(|request| json!(Bench::noisy().completed(ask(request)).choices)).collect();
        let bench = bench(EngineOptions { max_batch, kv_tokens, prefix_tokens, prefill_rows: 5, ..EngineOptions::default() });
        let mut streams: Vec<_> = requests.iter().map(|request| bench.stream(ask(request)).with_window(request.3)).collect();
        let handles: Vec<StreamHandle> = streams.iter().map(CompletionStream::handle).collect();
        let mut chunks = run_all(&mut streams);
        let widened = rounds.into_iter().map(|(i, n)| (Some(i % handles.len()), n));
        for (which, n) in widened.chain([(None, 1000)]) {
            for (i, handle) in handles.iter().enumerate() {
                if which.is_none_or(|which| which == i) {
                    handle.widen(n);
                }
            }
            for (chunks, later) in chunks.iter_mut().zip(run_all(&mut streams)) {
                chunks.extend(later);
            }
        }
        let found: Vec<Value> = chunks.into_iter().map(joined).collect();
        prop_assert_eq!(found, alone);
        drop(streams);
        // The scripted model holds a byte for each token.
        prop_assert_eq!(bench.engine.kv_bytes(), Some(bench.engine.prefix_stats().n_kept_tokens as u64));
    }
}
