//! However a sequence's tokens arrive (chunks, batches, forks), its logits are the same.

mod common;

use cinderlm_models::{
    BLOCK_TOKENS, CausalLm, Draw, Feed, LoadedModel, LogitsFor, MAX_STEP_TOKENS, ModelError,
    SequenceId,
};
use common::{On, argmax, block_on, feed, model, reference, try_feed};

/// A model and some tokens for it.
fn subject(on: On) -> (LoadedModel, Vec<u32>) {
    (model("tiny-llama", on), reference("tiny-llama").ids)
}

fn replay(model: &mut LoadedModel, ids: &[u32]) -> Vec<f32> {
    let sequence = model.open();
    let logits = feed(model, sequence, ids, LogitsFor::Last);
    model.close(sequence);
    logits
}

#[test]
fn chunked_prompts_equal_whole_ones() {
    for on in On::BOTH {
        let (mut model, ids) = subject(on);
        let whole = model.open();
        let expected = feed(&mut model, whole, &ids, LogitsFor::All);
        for chunk_len in [1, 7, 64, 100] {
            let chunked = model.open();
            let mut actual = Vec::new();
            for chunk in ids.chunks(chunk_len) {
                actual.extend(feed(&mut model, chunked, chunk, LogitsFor::All));
            }
            assert!(actual == expected, "chunks of {chunk_len} on {on:?}");
            assert_eq!(model.len(chunked), ids.len());
            model.close(chunked);
        }
    }
}

#[test]
fn tokens_one_by_one_equal_prompts_where_a_context_is_cut() {
    for on in On::BOTH {
        let (mut model, ids) = subject(on);
        let ids: Vec<u32> = ids.iter().copied().cycle().take(280).collect();
        let (start, added) = ids.split_at(250);
        let whole = model.open();
        feed(&mut model, whole, start, LogitsFor::None);
        let expected = feed(&mut model, whole, added, LogitsFor::All);
        let grown = model.open();
        feed(&mut model, grown, start, LogitsFor::None);
        let actual: Vec<f32> = added
            .iter()
            .flat_map(|&token| feed(&mut model, grown, &[token], LogitsFor::Last))
            .collect();
        assert!(actual == expected, "on {on:?}");
    }
}

#[test]
fn logits_come_for_wanted_rows_in_feed_order() {
    for on in On::BOTH {
        let (mut model, ids) = subject(on);
        let vocab_size = model.vocab_size();
        let (first, second, third) = (&ids[..70], &ids[20..23], &ids[5..9]);
        let expected: Vec<f32> = [
            replay(&mut model, first),
            replay(&mut model, &second[..1]),
            replay(&mut model, &second[..2]),
            replay(&mut model, second),
        ]
        .concat();
        let sequences: Vec<SequenceId> = (0..4).map(|_| model.open()).collect();
        let feeds = [
            (first, LogitsFor::Last),
            (third, LogitsFor::None),
            (&[][..], LogitsFor::All),
            (second, LogitsFor::All),
        ];
        let feeds: Vec<Feed<'_>> = sequences
            .iter()
            .zip(feeds)
            .map(|(sequence, (tokens, logits))| Feed {
                sequence: *sequence,
                tokens,
                logits,
            })
            .collect();
        let actual = block_on(model.forward(&feeds)).expect("the step runs");
        assert_eq!(actual.len(), 4 * vocab_size);
        assert!(actual == expected, "{on:?}");
        let lengths: Vec<usize> = sequences.iter().map(|id| model.len(*id)).collect();
        assert_eq!(lengths, [70, 4, 0, 3]);
    }
}

#[test]
fn forks_equal_replays() {
    for on in On::BOTH {
        let (mut model, ids) = subject(on);
        // Within the first block, at its end, and within the second.
        for n_shared in [5, BLOCK_TOKENS, 100] {
            let first = model.open();
            feed(&mut model, first, &ids[..n_shared], LogitsFor::None);
            let second = model.fork(first).expect("it is open");
            let third = model.fork(second).expect("it is open");
            assert_eq!(model.len(third), n_shared);
            for (sequence, start) in [(second, 1), (first, 9), (third, 30)] {
                let added = &ids[start..start + 20];
                let actual = feed(&mut model, sequence, added, LogitsFor::Last);
                let expected = replay(&mut model, &[&ids[..n_shared], added].concat());
                assert!(actual == expected, "fork at {n_shared} on {on:?}");
            }
            for sequence in [first, second, third] {
                model.close(sequence);
            }
            assert_eq!(model.kv_bytes(), 0);
        }
    }
}

#[test]
fn forks_of_a_beginning_equal_replays() {
    for on in On::BOTH {
        let (mut model, ids) = subject(on);
        let first = model.open();
        feed(&mut model, first, &ids[..100], LogitsFor::None);
        // Nothing, within the first block, at its end, within the second, and more than there is.
        for n_shared in [0, 5, BLOCK_TOKENS, 90, 1000] {
            let second = model.fork_at(first, n_shared).expect("it is open");
            let n_shared = n_shared.min(100);
            assert_eq!(model.len(second), n_shared);
            let added = &ids[20..30];
            let actual = feed(&mut model, second, added, LogitsFor::Last);
            let expected = replay(&mut model, &[&ids[..n_shared], added].concat());
            assert!(actual == expected, "fork at {n_shared} on {on:?}");
            model.close(second);
        }
        let actual = feed(&mut model, first, &ids[..3], LogitsFor::Last);
        let expected = replay(&mut model, &[&ids[..100], &ids[..3]].concat());
        assert!(actual == expected, "what was forked has changed on {on:?}");
    }
}

#[test]
fn refused_feeds_change_nothing() {
    let (mut model, ids) = subject(On::Cpu);
    let (vocab_size, context_length) = (model.vocab_size(), model.context_length());
    let sequence = model.open();
    feed(&mut model, sequence, &ids[..10], LogitsFor::None);

    let token = vocab_size as u32;
    assert_eq!(
        try_feed(&mut model, sequence, &[1, token], LogitsFor::Last),
        Err(ModelError::TokenOutOfRange { token, vocab_size })
    );
    let too_many = vec![1; context_length - 9];
    assert_eq!(
        try_feed(&mut model, sequence, &too_many, LogitsFor::Last),
        Err(ModelError::ContextExceeded {
            n_tokens: context_length + 1,
            context_length
        })
    );
    let twice = Feed {
        sequence,
        tokens: &ids[..1],
        logits: LogitsFor::None,
    };
    assert_eq!(
        block_on(model.forward(&[twice, twice])),
        Err(ModelError::SequenceFedTwice { sequence })
    );
    let closed = model.open();
    model.close(closed);
    let unknown = ModelError::UnknownSequence { sequence: closed };
    assert_eq!(model.fork(closed), Err(unknown.clone()));
    assert_eq!(
        try_feed(&mut model, closed, &ids[..1], LogitsFor::Last),
        Err(unknown)
    );

    let other = model.open();
    let many = vec![1; MAX_STEP_TOKENS];
    let feeds = [(sequence, &ids[..1]), (other, &many[..])].map(|(sequence, tokens)| Feed {
        sequence,
        tokens,
        logits: LogitsFor::None,
    });
    assert_eq!(
        block_on(model.forward(&feeds)),
        Err(ModelError::TooManyRows {
            n_rows: MAX_STEP_TOKENS + 1,
            max: MAX_STEP_TOKENS
        })
    );

    assert_eq!((model.len(sequence), model.len(other)), (10, 0));
    let actual = feed(&mut model, sequence, &ids[10..20], LogitsFor::Last);
    assert!(actual == replay(&mut model, &ids[..20]));
}

#[test]
fn tokens_are_drawn_beside_feeds_that_ask_for_nothing() {
    let (mut model, ids) = subject(On::Gpu);
    let expected = [
        argmax(&replay(&mut model, &ids[..11])),
        argmax(&replay(&mut model, &ids[5..9])),
    ];
    let sequences: Vec<SequenceId> = (0..3).map(|_| model.open()).collect();
    feed(&mut model, sequences[1], &ids[..10], LogitsFor::None);
    let feeds = [
        (&ids[..9], LogitsFor::None),
        (&ids[10..11], LogitsFor::Last),
        (&ids[5..9], LogitsFor::Last),
    ];
    let feeds: Vec<Feed<'_>> = (sequences.iter().zip(feeds))
        .map(|(&sequence, (tokens, logits))| Feed {
            sequence,
            tokens,
            logits,
        })
        .collect();
    let greedy = Draw::default();
    let drawn = block_on(model.forward_drawn(&feeds, &[greedy.clone(), greedy.clone()]));
    let drawn = drawn.expect("the step runs").expect("a GPU draws");
    assert_eq!(
        drawn
            .iter()
            .filter_map(|drawn| drawn.token)
            .collect::<Vec<_>>(),
        expected
    );
    let actual = feed(&mut model, sequences[0], &ids[9..20], LogitsFor::Last);
    assert!(
        actual == replay(&mut model, &ids[..20]),
        "the other feed was appended"
    );

    let too_few = block_on(model.forward_drawn(&feeds, &[greedy]));
    assert_eq!(too_few, Ok(None));
    let rows_of_all = Feed {
        logits: LogitsFor::All,
        ..feeds[2]
    };
    let draws = vec![Draw::default(); rows_of_all.tokens.len()];
    let of_all = block_on(model.forward_drawn(&[rows_of_all], &draws));
    assert_eq!(of_all, Ok(None));
    let lengths: Vec<usize> = sequences.iter().map(|&id| model.len(id)).collect();
    assert_eq!(lengths, [20, 11, 4]);
}

#[test]
fn more_rows_are_drawn_for_than_are_recorded() {
    let (mut model, ids) = subject(On::Gpu);
    let sequences: Vec<SequenceId> = (0..20).map(|_| model.open()).collect();
    for at in 0..3 {
        let tokens: Vec<u32> = (0..20).map(|i| ids[at + i]).collect();
        let feeds: Vec<Feed<'_>> = (sequences.iter().zip(&tokens))
            .map(|(&sequence, token)| Feed {
                sequence,
                tokens: std::slice::from_ref(token),
                logits: LogitsFor::Last,
            })
            .collect();
        let drawn = block_on(model.forward_drawn(&feeds, &vec![Draw::default(); 20]));
        let drawn = drawn.expect("the step runs").expect("a GPU draws");
        for (i, drawn) in drawn.iter().enumerate() {
            let expected = argmax(&replay(&mut model, &ids[i..=i + at]));
            assert_eq!(drawn.token, Some(expected), "row {i} after {at} tokens");
        }
    }
}

#[test]
fn a_dropped_step_leaves_the_sequence_as_it_was() {
    let (mut model, ids) = subject(On::Cpu);
    let sequence = model.open();
    feed(&mut model, sequence, &ids[..60], LogitsFor::None);
    drop(model.forward(&[Feed {
        sequence,
        tokens: &ids[..30],
        logits: LogitsFor::Last,
    }]));
    assert_eq!(model.len(sequence), 60);
    let actual = feed(&mut model, sequence, &ids[60..90], LogitsFor::Last);
    assert!(actual == replay(&mut model, &ids[..90]));
}
