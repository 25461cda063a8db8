//! A calibration takes what the clock says is fastest, within its time, and changes nothing but rounding.

mod common;

use std::cell::Cell;

use cinderlm_kernels::Profile;
use cinderlm_models::{CalibrationClock, CausalLm as _, LoadedModel, LogitsFor};
use common::{On, block_on, feed, model, reference};

/// What a calibration may add to a logit.
const TOLERANCE: f32 = 5e-3;

fn calibrate(model: &mut LoadedModel, now: &dyn Fn() -> f64, budget_millis: f64) -> Profile {
    let clock = CalibrationClock {
        now_millis: now,
        budget_millis,
    };
    block_on(model.calibrate(clock)).expect("it can be calibrated")
}

fn logits(model: &mut LoadedModel, ids: &[u32]) -> Vec<f32> {
    let sequence = model.open();
    let mut logits = feed(model, sequence, ids, LogitsFor::All);
    for &token in &ids[..3] {
        logits.extend(feed(model, sequence, &[token], LogitsFor::Last));
    }
    model.close(sequence);
    logits
}

#[test]
fn whatever_is_chosen_logits_stay() {
    let ids = reference("tiny-llama").ids;
    let usual = Profile::software(2);
    let mut n_others = 0;
    for seed in 1..=4u32 {
        let mut model = model("tiny-llama", On::Gpu);
        let expected = logits(&mut model, &ids);
        // Time passes by chance, so that some variants look fast.
        let (time, state) = (Cell::new(0.0), Cell::new(seed));
        let now = || {
            state.set(state.get().wrapping_mul(48_271) % 2_147_483_647);
            time.set(time.get() + 1.0 + f64::from(state.get() % 100));
            time.get()
        };
        let chosen = calibrate(&mut model, &now, f64::INFINITY);
        assert!(usual.family().contains(&chosen), "{chosen:?}");
        n_others += u32::from(chosen != usual);
        assert_eq!(model.kv_bytes(), 0);
        let actual = logits(&mut model, &ids);
        let furthest = (actual.iter().zip(&expected))
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(furthest <= TOLERANCE, "a logit is off by {furthest}");
        assert_eq!(actual.len(), expected.len());
    }
    assert!(n_others > 0, "no variant was ever taken");
}

#[test]
fn a_device_that_becomes_faster_or_slower_decides_nothing() {
    for acceleration in [1.01, 0.99] {
        let mut model = model("tiny-llama", On::Gpu);
        let (time, tick) = (Cell::new(0.0), Cell::new(100.0));
        let now = || {
            tick.set(tick.get() * acceleration);
            time.set(time.get() + tick.get());
            time.get()
        };
        let chosen = calibrate(&mut model, &now, f64::INFINITY);
        assert_eq!(chosen, Profile::software(2), "{acceleration}");
    }
}

#[test]
fn no_variant_is_begun_when_the_time_is_up() {
    let mut model = model("tiny-llama", On::Gpu);
    let calls = Cell::new(0u32);
    let now = || {
        calls.set(calls.get() + 1);
        f64::from(calls.get()) * 100.0
    };
    let chosen = calibrate(&mut model, &now, 50.0);
    assert_eq!(chosen, Profile::software(2));
    // Of the two steps of the profile that there was.
    let n_calls = calls.get();
    assert!(n_calls < 24, "{n_calls} looks at the clock");
}

#[test]
fn the_cpu_has_nothing_to_choose() {
    let mut model = model("tiny-llama", On::Cpu);
    let now = || -> f64 { panic!("nothing is timed") };
    assert_eq!(calibrate(&mut model, &now, 1e9), Profile::cpu());
}
