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
    let drawn = block_on(model.forward_drawn(&feeds, &[greedy.clone(), greedy.clone()], None));
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

    let too_few = block_on(model.forward_drawn(&feeds, &[greedy], None));
    assert_eq!(too_few, Ok(None));
    let rows_of_all = Feed {
        logits: LogitsFor::All,
        ..feeds[2]
    };
    let draws = vec![Draw::default(); rows_of_all.tokens.len()];
    let of_all = block_on(model.forward_drawn(&[rows_of_all], &draws, None));
    assert_eq!(of_all, Ok(None));
    let lengths: Vec<usize> = sequences.iter().map(|&id| model.len(id)).collect();
    assert_eq!(lengths, [20, 11, 4]);
}

/// Generates some tokens for each sequence, which all go through one step at a time; with `foresight` each step is told of the next.
fn generate(
    model: &mut LoadedModel,
    sequences: &[SequenceId],
    first: &[u32],
    n_tokens: usize,
    foresight: bool,
) -> Vec<Vec<u32>> {
    let draw = |at: usize, row: usize| Draw {
        temperature: [0.0, 0.8][row % 2],
        top_p: 1.0,
        uniform: ((at * 7 + row * 3) % 10) as f64 / 10.0 + 0.05,
        adjustments: vec![(3, -1.0)],
        n_top: 1,
    };
    let mut tokens: Vec<Vec<u32>> = first.iter().map(|&token| vec![token]).collect();
    for at in 0..n_tokens {
        // Who asks first changes from step to step.
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.rotate_left(at % sequences.len());
        let feeds: Vec<Feed<'_>> = (order.iter())
            .map(|&row| Feed {
                sequence: sequences[row],
                tokens: &tokens[row][at..],
                logits: LogitsFor::Last,
            })
            .collect();
        let draws: Vec<Draw> = order.iter().map(|&row| draw(at, row)).collect();
        let after: Vec<Draw> = order.iter().map(|&row| draw(at + 1, row)).collect();
        let after = foresight.then_some(after.as_slice());
        let drawn = block_on(model.forward_drawn(&feeds, &draws, after));
        let drawn = drawn.expect("the step runs").expect("a GPU draws");
        for (&row, drawn) in order.iter().zip(drawn) {
            tokens[row].push(drawn.token.expect("a token"));
        }
    }
    tokens
}

#[test]
fn steps_that_are_begun_ahead_change_nothing() {
    let (mut model, ids) = subject(On::Gpu);
    for n_sequences in [1, 3] {
        let texts = [false, true].map(|foresight| {
            let sequences: Vec<SequenceId> = (0..n_sequences).map(|_| model.open()).collect();
            let first: Vec<u32> = (0..n_sequences).map(|i| ids[60 + i]).collect();
            for (i, &sequence) in sequences.iter().enumerate() {
                feed(&mut model, sequence, &ids[i..i + 55], LogitsFor::None);
            }
            // Past the end of a block.
            let text = generate(&mut model, &sequences, &first, 20, foresight);
            let lengths: Vec<usize> = sequences.iter().map(|&id| model.len(id)).collect();
            assert_eq!(lengths, vec![75; n_sequences]);
            sequences.into_iter().for_each(|id| model.close(id));
            text
        });
        assert_eq!(texts[0], texts[1]);
    }
}

#[test]
fn a_step_that_was_begun_for_nothing_leaves_no_trace() {
    let (mut model, ids) = subject(On::Gpu);
    let sequence = model.open();
    feed(&mut model, sequence, &ids[..20], LogitsFor::None);
    let drawn = generate(&mut model, &[sequence], &[ids[20]], 5, true);
    let fed: Vec<u32> = [&ids[..20], &drawn[0][..5]].concat();

    // Another token than the one that was drawn, a fork before that, and another sequence.
    let fork = model.fork(sequence).expect("a fork");
    let other = ids[30];
    assert_ne!(drawn[0][5], other);
    let actual = feed(&mut model, sequence, &[other], LogitsFor::Last);
    assert!(actual == replay(&mut model, &[&fed[..], &[other]].concat()));
    let again = generate(&mut model, &[fork], &[drawn[0][5]], 4, true);
    let expected = model.open();
    feed(&mut model, expected, &fed, LogitsFor::None);
    let expected = generate(&mut model, &[expected], &[drawn[0][5]], 4, false);
    assert_eq!(again, expected);

    // A feed of nothing, in a step that is replayed.
    let nothing = model.open();
    feed(&mut model, nothing, &ids[..3], LogitsFor::None);
    for at in 0..4 {
        let feeds =
            [(nothing, &[][..]), (sequence, &ids[at..=at])].map(|(sequence, tokens)| Feed {
                sequence,
                tokens,
                logits: LogitsFor::Last,
            });
        let drawn = block_on(model.forward_drawn(&feeds, &[Draw::default()], None));
        let drawn = drawn.expect("the step runs").expect("a GPU draws");
        assert_eq!((drawn.len(), model.len(sequence)), (1, fed.len() + at + 2));
    }

    // The blocks of a sequence that is closed while a step of it is under way go to others.
    model.close(fork);
    let other = model.open();
    let actual = feed(&mut model, other, &ids[..30], LogitsFor::Last);
    assert!(actual == replay(&mut model, &ids[..30]));
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
        let drawn = block_on(model.forward_drawn(&feeds, &vec![Draw::default(); 20], None));
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
