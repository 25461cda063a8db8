//! What answers are made of: streams and wholes, seeds, rankings, scores, counts.

mod common;

use cinderlm_engine::testing::{ScriptedModel, TinyVocabulary};
use cinderlm_protocol::{ChunkUsage, CompletionRequest, Logprobs, Usage};
use cinderlm_sampler::LogProbabilities;
use common::{Bench, BenchConfig, CONTEXT_LENGTH, chunks, request};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Requests on the noisy model, which writes all sorts of bytes.
fn any_request() -> impl Strategy<Value = Value> {
    let prompts = prop_oneof![
        Just(json!("")),
        Just(json!("one")),
        Just(json!(["two", "three"])),
        Just(json!([104, 105, 226])),
    ];
    let stops = prop_oneof![
        Just(json!(null)),
        Just(json!(["a", "e", " ", "\n"])),
        Just(json!("\u{fffd}"))
    ];
    let logprobs = prop_oneof![Just(json!(null)), Just(json!(0)), Just(json!(3))];
    let temperature = prop_oneof![Just(0.0), Just(1.0), Just(2.0)];
    (prompts, stops, logprobs, temperature, 1..4u32, 0..12u64, any::<i64>(), any::<bool>()).prop_map(
        |(prompt, stop, logprobs, temperature, n, max_tokens, seed, echo)| {
            json!({
                "prompt": prompt, "stop": stop, "logprobs": logprobs, "temperature": temperature, "n": n,
                "max_tokens": max_tokens, "seed": seed, "echo": echo || max_tokens == 0,
            })
        },
    )
}

proptest! {
    #[test]
    fn a_stream_adds_up_to_the_whole(fields in any_request()) {
        let bench = Bench::noisy();
        let whole = bench.completed(fields.clone());
        let mut texts = vec![String::new(); whole.choices.len()];
        let mut logprobs = vec![Logprobs::default(); whole.choices.len()];
        let request = CompletionRequest { stream: true, ..request(fields.clone()) };
        for chunk in chunks(bench.engine.complete(request)) {
            prop_assert_eq!(chunk.usage, ChunkUsage::NotAsked);
            for choice in chunk.choices {
                let index = choice.index as usize;
                texts[index].push_str(&choice.text);
                let part = choice.logprobs.unwrap_or_default();
                logprobs[index].tokens.extend(part.tokens);
                logprobs[index].token_logprobs.extend(part.token_logprobs);
                logprobs[index].text_offset.extend(part.text_offset);
            }
        }
        for ((choice, text), part) in whole.choices.iter().zip(&texts).zip(&logprobs) {
            prop_assert_eq!(&choice.text, text);
            let whole = choice.logprobs.clone().unwrap_or_default();
            prop_assert_eq!(&whole.tokens, &part.tokens);
            prop_assert_eq!(&whole.token_logprobs, &part.token_logprobs);
            prop_assert_eq!(&whole.text_offset, &part.text_offset);
        }
        prop_assert_eq!(bench.probe.n_live_sequences(), 0);
    }

    #[test]
    fn the_size_of_prompt_chunks_changes_nothing(fields in any_request(), prefill_rows in 1..6usize) {
        let bench = Bench::reading_by(prefill_rows);
        let (found, expect) = (bench.completed(fields.clone()), Bench::noisy().completed(fields));
        prop_assert!(bench.probe.largest_step_tokens() <= prefill_rows + expect.choices.len());
        prop_assert_eq!(found.choices, expect.choices);
    }

    #[test]
    fn offsets_point_at_the_tokens_text(seed in any::<i64>(), prompt in "[aé😀]{0,3}") {
        let bench = Bench::noisy();
        let whole = bench.completed(json!({
            "prompt": prompt, "seed": seed, "logprobs": 0, "echo": true, "max_tokens": 8, "temperature": 2,
        }));
        let text: Vec<u16> = whole.choices[0].text.encode_utf16().collect();
        let logprobs = whole.choices[0].logprobs.clone().unwrap_or_default();
        for (token, offset) in logprobs.tokens.iter().zip(&logprobs.text_offset) {
            let is_text = !token.starts_with("bytes:") && !token.starts_with("<|");
            if is_text {
                let rest = String::from_utf16_lossy(&text[*offset as usize..]);
                // An unfinished character before a token shares its offset, and stands in the text as a replacement character.
                let rest = rest.trim_start_matches('\u{fffd}');
                prop_assert!(rest.starts_with(token), "{token:?} is not at {offset} of {:?}", whole.choices[0].text);
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_text_and_another_seed_another() {
    let bench = Bench::noisy();
    let ask = |seed: Value| bench.texts(json!({ "prompt": "x", "seed": seed, "n": 2 }));
    assert_eq!(ask(json!(7)), ask(json!(7)));
    assert_ne!(ask(json!(7)), ask(json!(8)));
    assert_ne!(ask(json!(7)), ask(json!(-7)));
    // Without a seed the runtime gives one, a new one for each request.
    assert_ne!(ask(json!(null)), ask(json!(null)));
    let choices = ask(json!(7));
    assert_ne!(
        choices[0], choices[1],
        "choices draw from streams of their own"
    );
}

#[test]
fn a_choice_does_not_depend_on_how_many_there_are() {
    let bench = Bench::noisy();
    let one = bench.texts(json!({ "prompt": "x", "seed": 3 }));
    let three = bench.texts(json!({ "prompt": "x", "seed": 3, "n": 3 }));
    assert_eq!(one[0], three[0]);
}

#[test]
fn best_of_returns_the_likeliest_best_first() {
    let bench = Bench::noisy();
    let fields = json!({ "prompt": "x", "seed": 5, "logprobs": 0, "max_tokens": 6 });
    let with = |n: u32, best_of: u32| {
        let mut fields = fields.clone();
        fields["n"] = json!(n);
        fields["best_of"] = json!(best_of);
        bench.completed(fields)
    };
    // Unranked, the same six candidates show their log-probabilities. None of them ends early, so each has six.
    let mut all = with(6, 6).choices;
    all.sort_by(|a, b| mean(b.logprobs.as_ref()).total_cmp(&mean(a.logprobs.as_ref())));
    let best = with(2, 6);
    let texts: Vec<&str> = best
        .choices
        .iter()
        .map(|choice| choice.text.as_str())
        .collect();
    assert_eq!(texts, [all[0].text.as_str(), all[1].text.as_str()]);
    assert_eq!(best.choices[0].logprobs, all[0].logprobs);
    let indices: Vec<u32> = best.choices.iter().map(|choice| choice.index).collect();
    assert_eq!(indices, [0, 1]);
    assert_eq!(best.usage, Usage::new(1, 36));
}

fn mean(logprobs: Option<&Logprobs>) -> f64 {
    let logprobs = &logprobs
        .expect("log-probabilities were asked for")
        .token_logprobs;
    assert_eq!(logprobs.len(), 6, "a candidate that did not end early");
    logprobs.iter().flatten().sum::<f64>() / logprobs.len() as f64
}

#[test]
fn a_prompts_scores_are_the_models_own() {
    let model = ScriptedModel::new(
        TinyVocabulary::N_TOKENS,
        CONTEXT_LENGTH,
        BenchConfig::default().model_seed,
    );
    let prompt = b"a prompt longer than a chunk";
    let ids: Vec<u32> = prompt.iter().map(|&byte| u32::from(byte)).collect();
    let expect: Vec<Option<f64>> = std::iter::once(None)
        .chain(
            (1..ids.len())
                .map(|i| LogProbabilities::new(&model.logits_after(&ids[..i])).logprob(ids[i])),
        )
        .collect();
    for (prefill_rows, max_tokens) in [(64, 0), (5, 0), (5, 1), (1, 0), (27, 0), (28, 1)] {
        let bench = Bench::reading_by(prefill_rows);
        let completion = bench.completed(json!({
            "prompt": ids, "echo": true, "max_tokens": max_tokens, "logprobs": 0, "logit_bias": { "98": 50 },
        }));
        let logprobs = completion.choices[0].logprobs.clone().unwrap_or_default();
        assert_eq!(
            logprobs.token_logprobs[..ids.len()],
            expect,
            "in chunks of {prefill_rows}"
        );
        assert_eq!(logprobs.tokens.len(), ids.len() + max_tokens);
    }
}

#[test]
fn a_prompt_is_read_once_for_all_its_choices() {
    let bench = Bench::noisy();
    bench.completed(json!({ "prompt": "0123456789", "n": 3, "max_tokens": 1 }));
    assert_eq!(bench.probe.n_tokens_fed(), 10);
    assert_eq!(bench.probe.n_opened_sequences(), 3);
}

#[test]
fn one_choice_needs_one_sequence() {
    let bench = Bench::noisy();
    bench.completed(json!({ "prompt": "x", "max_tokens": 4 }));
    assert_eq!(bench.probe.n_opened_sequences(), 1);
}

#[test]
fn an_echo_alone_does_not_trouble_the_model() {
    let bench = Bench::noisy();
    assert_eq!(
        bench.texts(json!({ "prompt": "x", "max_tokens": 0, "echo": true })),
        ["x"]
    );
    assert_eq!(bench.probe.n_forward_calls(), 0);
}

#[test]
fn the_host_runs_before_every_step() {
    let bench = Bench::reading_by(2);
    bench.completed(json!({ "prompt": "12345678", "max_tokens": 3, "logit_bias": { "97": 100 } }));
    assert_eq!(bench.probe.n_forward_calls(), 4 + 2);
    assert_eq!(bench.runtime.n_yields(), 6);
}

#[test]
fn without_include_usage_the_last_choice_ends_the_stream() {
    let bench = Bench::scripted(json!([{ "prompt": "hi", "output": ["hello"] }]));
    let chunks = chunks(bench.stream(json!({ "prompt": "hi", "stream": true })));
    let shown: Vec<Value> = chunks
        .iter()
        .map(|chunk| {
            let mut chunk = json!(chunk);
            assert_eq!(chunk["id"], chunks[0].id);
            if let Some(extra) = chunk.get_mut("cinderlm") {
                assert!(extra["timings"]["first_token_millis"].as_f64() > Some(0.0));
                extra["timings"] = json!("…");
            }
            chunk
        })
        .collect();
    let chunk = |text: &str, finish_reason: Value| {
        json!({
            "id": chunks[0].id, "object": "text_completion", "created": 1_800_000_000u64, "model": "tiny",
            "system_fingerprint": "fp_scripted",
            "choices": [{ "index": 0, "text": text, "logprobs": null, "finish_reason": finish_reason }],
        })
    };
    let mut last = chunk("", json!("stop"));
    last["cinderlm"] = json!({ "ran_on": "local", "device": "cpu", "timings": "…" });
    assert_eq!(shown, [chunk("hello", json!(null)), last]);
}

#[test]
fn ids_of_completions_differ() {
    let bench = Bench::noisy();
    let id = || {
        bench
            .completed(json!({ "prompt": "x", "max_tokens": 1 }))
            .id
    };
    assert_ne!(id(), id());
}

/// Offsets were those of the U+FFFD before them, once.
#[test]
fn a_token_after_an_unfinished_character_stands_behind_it() {
    let bench = Bench::scripted(json!([{ "prompt": "x", "output": ["a"] }]));
    // The byte 0xc5 begins a character that `s` does not go on with; 0xc3 and 0xa9 make up an é.
    let ids = [97, 0xc5, 115, 0xc3, 0xa9, 98];
    let fields = json!({ "prompt": ids, "echo": true, "logprobs": 0, "max_tokens": 0 });
    let choice = &bench.completed(fields).choices[0];
    assert_eq!(choice.text, "a\u{fffd}séb");
    let logprobs = choice.logprobs.as_ref().expect("they were asked for");
    assert_eq!(logprobs.text_offset, [0, 1, 2, 3, 3, 4]);
}
