//! Fields that hold one text, flag or number.

use super::*;

#[test]
fn model_is_required() {
    assert_eq!(
        parse(json!({ "model": "" })).map(|request| request.model),
        Ok(String::new())
    );
    for request in [json!({}), json!({ "model": null }), json!({ "model": 3 })] {
        refused(parse(request.clone()), InvalidType, "model", &request);
    }
}

#[test]
fn text_fields() {
    accepts(
        json!({ "suffix": "." }),
        |request| &request.suffix,
        ".".to_owned(),
    );
    accepts(
        json!({ "suffix": "" }),
        |request| &request.suffix,
        String::new(),
    );
    accepts(
        json!({ "user": "ada" }),
        |request| &request.user,
        "ada".to_owned(),
    );
    for name in ["suffix", "user"] {
        for wrong in [json!(1), json!(false), json!(["a"]), json!({})] {
            rejects(json!({ name: wrong }), InvalidType, name);
        }
    }
}

#[test]
fn flags() {
    accepts(json!({ "echo": true }), |request| &request.echo, true);
    accepts(json!({ "echo": false }), |request| &request.echo, false);
    accepts(json!({ "stream": true }), |request| &request.stream, true);
    for name in ["echo", "stream"] {
        for wrong in [json!(1), json!(0), json!("true"), json!([])] {
            rejects(json!({ name: wrong }), InvalidType, name);
        }
    }
}

#[test]
fn integers() {
    accepts(
        json!({ "max_tokens": 1 }),
        |request| &request.max_tokens,
        1u64,
    );
    accepts(
        json!({ "max_tokens": 3.0 }),
        |request| &request.max_tokens,
        3u64,
    );
    // Too long for any context, which is for the engine to say with all the counts.
    accepts(
        json!({ "max_tokens": 1e12 }),
        |request| &request.max_tokens,
        10u64.pow(12),
    );
    accepts(json!({ "n": 1 }), |request| &request.n, 1u32);
    accepts(json!({ "n": 128 }), |request| &request.n, 128u32);
    accepts(json!({ "best_of": 1 }), |request| &request.best_of, 1u32);
    accepts(json!({ "best_of": 20 }), |request| &request.best_of, 20u32);
    accepts(json!({ "logprobs": 0 }), |request| &request.logprobs, 0u8);
    accepts(json!({ "logprobs": 5 }), |request| &request.logprobs, 5u8);
    rejects(json!({ "max_tokens": -1 }), OutOfRange, "max_tokens");
    rejects(json!({ "n": 0 }), OutOfRange, "n");
    rejects(json!({ "n": 129 }), OutOfRange, "n");
    rejects(json!({ "best_of": 0 }), OutOfRange, "best_of");
    rejects(json!({ "best_of": 21 }), OutOfRange, "best_of");
    rejects(json!({ "logprobs": -1 }), OutOfRange, "logprobs");
    rejects(json!({ "logprobs": 6 }), OutOfRange, "logprobs");
    for name in ["max_tokens", "n", "best_of", "logprobs", "seed"] {
        for wrong in [json!("1"), json!(true), json!([1]), json!({}), json!(1.5)] {
            rejects(json!({ name: wrong }), InvalidType, name);
        }
        let nan = parse_value(name, Value::Float(f64::NAN));
        refused(nan, InvalidType, name, &"NaN");
        for huge in [
            Value::Float(f64::INFINITY),
            Value::Float(-1e300),
            Value::UInt(u64::MAX),
        ] {
            refused(parse_value(name, huge.clone()), OutOfRange, name, &huge);
        }
    }
}

#[test]
fn the_owner_may_raise_logprobs_to_twenty() {
    let parse = |max_logprobs, logprobs: u8| {
        let request = value(json!({ "model": "tale", "logprobs": logprobs }));
        CompletionRequest::from_value(request, &RequestLimits { max_logprobs })
    };
    assert_eq!(parse(20, 20).map(|request| request.logprobs), Ok(Some(20)));
    assert_eq!(parse(0, 0).map(|request| request.logprobs), Ok(Some(0)));
    refused(parse(0, 1), OutOfRange, "logprobs", &1);
    refused(parse(20, 21), OutOfRange, "logprobs", &21);
    refused(parse(200, 21), OutOfRange, "logprobs", &21);
}

#[test]
fn numbers() {
    let check = |name: &str, field: fn(&CompletionRequest) -> &f32, min: f32, max: f32| {
        accepts(json!({ name: min }), field, min);
        accepts(json!({ name: max }), field, max);
        accepts(json!({ name: 0.5 }), field, 0.5);
        accepts(json!({ name: 1 }), field, 1.0);
        rejects(json!({ name: min - 0.01 }), OutOfRange, name);
        rejects(json!({ name: max + 0.01 }), OutOfRange, name);
        rejects(json!({ name: 1_000_000 }), OutOfRange, name);
        rejects(json!({ name: u64::MAX }), OutOfRange, name);
        for wrong in [json!("1"), json!(true), json!([0.5]), json!({})] {
            rejects(json!({ name: wrong }), InvalidType, name);
        }
        for strange in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let result = parse_value(name, Value::Float(strange));
            refused(result, OutOfRange, name, &strange);
        }
    };
    check("temperature", |request| &request.temperature, 0.0, 2.0);
    check("top_p", |request| &request.top_p, 0.0, 1.0);
    check(
        "frequency_penalty",
        |request| &request.frequency_penalty,
        -2.0,
        2.0,
    );
    check(
        "presence_penalty",
        |request| &request.presence_penalty,
        -2.0,
        2.0,
    );
}

#[test]
fn a_number_just_past_its_range_is_not_rounded_into_it() {
    rejects(json!({ "top_p": 1.000_000_000_1 }), OutOfRange, "top_p");
    rejects(json!({ "temperature": -1e-300 }), OutOfRange, "temperature");
}

#[test]
fn seed_is_a_signed_64_bit_integer() {
    let check = |seed: Value, expect: i64| {
        let request = parse_value("seed", seed.clone());
        assert_eq!(
            request.map(|request| request.seed),
            Ok(Some(expect)),
            "{seed:?}"
        );
    };
    const MAX_SAFE: f64 = 9_007_199_254_740_991.0;
    check(Value::Int(0), 0);
    check(Value::Int(i64::MAX), i64::MAX);
    check(Value::Int(i64::MIN), i64::MIN);
    check(Value::Float(-3.0), -3);
    check(Value::Float(-0.0), 0);
    check(Value::Float(MAX_SAFE), 9_007_199_254_740_991);
    check(Value::Float(-MAX_SAFE), -9_007_199_254_740_991);
    for unsafe_seed in [MAX_SAFE + 1.0, -MAX_SAFE - 1.0, 1e19] {
        let error = parse_value("seed", Value::Float(unsafe_seed)).expect_err("not exact");
        assert_eq!(
            (error.code, error.param.as_deref()),
            (OutOfRange, Some("seed"))
        );
        assert!(error.message.contains("BigInt"), "{error}");
    }
    refused(
        parse_value("seed", Value::UInt(1 << 63)),
        OutOfRange,
        "seed",
        &"2^63",
    );
}
