//! Memory is taken as sequences grow and comes back when they end. A process of its own, since the device counts for all tests.

mod common;

use cinderlm_kernels::{gpu_bytes_in_use, gpu_bytes_reserved};
use cinderlm_models::{BLOCK_TOKENS, CalibrationClock, CausalLm, LoadedModel, LogitsFor};
use common::{On, block_on, feed, model, reference};

/// One completion with a fork, as an engine would run it.
fn complete(model: &mut LoadedModel, ids: &[u32]) {
    let block_bytes = model.info().kv_bytes_per_token * BLOCK_TOKENS as u64;
    let sequence = model.open();
    assert_eq!(model.kv_bytes(), 0);
    feed(model, sequence, &ids[..1], LogitsFor::Last);
    assert_eq!(model.kv_bytes(), block_bytes);
    feed(model, sequence, &ids[..2 * BLOCK_TOKENS], LogitsFor::Last);
    assert_eq!(model.kv_bytes(), 3 * block_bytes);
    let fork = model.fork(sequence).expect("it is open");
    assert_eq!(model.kv_bytes(), 3 * block_bytes, "nothing is copied yet");
    feed(model, fork, &ids[..1], LogitsFor::Last);
    assert_eq!(
        model.kv_bytes(),
        4 * block_bytes,
        "only the block written to"
    );
    model.close(sequence);
    assert_eq!(model.kv_bytes(), 3 * block_bytes);
    model.close(fork);
    model.close(fork);
    assert_eq!((model.kv_bytes(), model.len(fork)), (0, 0));
}

#[test]
fn memory_does_not_grow_with_calls_or_loads() {
    let ids = reference("tiny-llama").ids;
    for on in On::BOTH {
        let (device, _) = on.device();
        let after_loads: Vec<_> = (0..4)
            .map(|_| {
                let mut model = model("tiny-llama", on);
                let in_use: Vec<_> = (0..12)
                    .map(|_| {
                        complete(&mut model, &ids);
                        gpu_bytes_in_use(&device)
                    })
                    .collect();
                assert_eq!(in_use[3], in_use[11], "{on:?}");
                // A time that stands still has every trial made, and none won.
                let clock = CalibrationClock {
                    now_millis: &|| 0.0,
                    budget_millis: 1.0,
                };
                block_on(model.calibrate(clock)).expect("the device is there");
                (0..4).for_each(|_| complete(&mut model, &ids));
                assert!(gpu_bytes_in_use(&device) <= in_use[11], "{on:?}");
                drop(model);
                gpu_bytes_reserved(&device)
            })
            .collect();
        assert_eq!(after_loads[1], after_loads[3], "{on:?}");
    }
}
