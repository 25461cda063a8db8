//! Every rule of the contract's request table: here the helpers and what concerns whole requests.

mod compound;
mod scalars;

use std::fmt::Debug;

use cinderlm_protocol::{
    CompletionError, CompletionRequest, ErrorCode, Prompt, PromptItem, RequestLimits, Value,
};
use serde_json::{Value as Json, json};

use ErrorCode::{ConflictingParameters, InvalidType, OutOfRange, UnknownParameter};

/// A JSON value the way a request's values arrive.
fn value(json: Json) -> Value {
    serde_json::from_value(json).expect("JSON of little depth")
}

fn parse(json: Json) -> Result<CompletionRequest, CompletionError> {
    CompletionRequest::from_value(value(json), &RequestLimits::default())
}

/// A request with a model and these fields.
fn parse_with(fields: Json) -> Result<CompletionRequest, CompletionError> {
    let mut request = json!({ "model": "tale" });
    let all = request.as_object_mut().expect("an object");
    all.extend(fields.as_object().expect("an object").clone());
    parse(request)
}

/// A request whose field `name` is something that JSON cannot say.
fn parse_value(name: &str, value: Value) -> Result<CompletionRequest, CompletionError> {
    let model = ("model".to_owned(), Value::String("tale".to_owned()));
    let fields = Value::Object(vec![model, (name.to_owned(), value)]);
    CompletionRequest::from_value(fields, &RequestLimits::default())
}

#[track_caller]
fn accepts<T: PartialEq + Debug>(
    fields: Json,
    field: impl Fn(&CompletionRequest) -> &T,
    expect: impl Into<T>,
) {
    match parse_with(fields.clone()) {
        Ok(request) => assert_eq!(*field(&request), expect.into(), "{fields}"),
        Err(error) => panic!("{fields}: {error}"),
    }
}

#[track_caller]
fn rejects(fields: Json, code: ErrorCode, param: &str) {
    refused(parse_with(fields.clone()), code, param, &fields);
}

#[track_caller]
fn refused(
    result: Result<CompletionRequest, CompletionError>,
    code: ErrorCode,
    param: &str,
    input: &dyn Debug,
) {
    let error = result.expect_err(&format!("{input:?} is wrong"));
    assert_eq!(
        (error.code, error.param.as_deref()),
        (code, Some(param)),
        "{input:?}: {error}"
    );
    assert_eq!(error.status(), 400);
    assert!(
        error.message.contains(&format!("`{param}`")),
        "{input:?}: {error}"
    );
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn defaults() {
    let expect = CompletionRequest {
        model: "tale".to_owned(),
        prompt: Prompt::DocumentStart,
        suffix: None,
        max_tokens: 16,
        n: 1,
        best_of: None,
        echo: false,
        logprobs: None,
        temperature: 1.0,
        top_p: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        logit_bias: vec![],
        seed: None,
        stop: vec![],
        stream: false,
        include_usage: false,
        user: None,
    };
    assert_eq!(parse(json!({ "model": "tale" })), Ok(expect));
}

#[test]
fn null_is_the_default_of_every_field_but_model() {
    let mut request = json!({ "model": "tale" });
    for &name in CompletionRequest::FIELDS
        .iter()
        .filter(|&&name| name != "model")
    {
        request[name] = Json::Null;
    }
    assert_eq!(parse(request), parse(json!({ "model": "tale" })));
}

#[test]
fn a_request_is_an_object() {
    for request in [json!(null), json!([]), json!("tale"), json!(1)] {
        let error = parse(request).expect_err("not an object");
        assert_eq!((error.code, error.param), (InvalidType, None));
    }
}

#[test]
fn unknown_fields_are_named() {
    for name in [
        "messages",
        "max_completion_tokens",
        "top_k",
        "Model",
        "",
        "modèle",
    ] {
        rejects(json!({ name: 1 }), UnknownParameter, name);
        rejects(json!({ name: null }), UnknownParameter, name);
    }
    // Before anything else, so that a mistyped name is what gets reported.
    refused(
        parse(json!({ "modle": "tale" })),
        UnknownParameter,
        "modle",
        &"modle",
    );
}

#[test]
fn fields_that_disagree() {
    let check = |fields: Json, param: Option<&str>| match param {
        Some(param) => rejects(fields, ConflictingParameters, param),
        None => accepts(fields, |request| &request.model, "tale"),
    };
    check(json!({ "max_tokens": 0 }), Some("max_tokens"));
    check(
        json!({ "max_tokens": 0, "echo": false }),
        Some("max_tokens"),
    );
    check(json!({ "max_tokens": 0, "echo": true }), None);
    check(json!({ "n": 2, "best_of": 1 }), Some("best_of"));
    check(json!({ "n": 2, "best_of": 2 }), None);
    check(json!({ "n": 2, "best_of": 3 }), None);
    check(json!({ "n": 21, "best_of": 20 }), Some("best_of"));
    check(json!({ "n": 128 }), None);
    check(
        json!({ "n": 2, "best_of": 3, "stream": true }),
        Some("best_of"),
    );
    check(json!({ "n": 2, "best_of": 2, "stream": true }), None);
    check(json!({ "best_of": 2, "stream": true }), Some("best_of"));
    check(json!({ "stream_options": {} }), Some("stream_options"));
    check(
        json!({ "stream": false, "stream_options": { "include_usage": true } }),
        Some("stream_options"),
    );
    check(json!({ "stream_options": null }), None);
}

#[test]
fn candidates_are_best_of_or_n() {
    let check = |fields: Json, expect: u32| {
        assert_eq!(
            parse_with(fields).map(|request| request.n_candidates()),
            Ok(expect)
        );
    };
    check(json!({}), 1);
    check(json!({ "n": 3 }), 3);
    check(json!({ "n": 3, "best_of": 5 }), 5);
}

#[test]
fn the_last_of_repeated_fields_counts() {
    let parse = |text: &str| {
        let value: Value = serde_json::from_str(text).expect("JSON");
        CompletionRequest::from_value(value, &RequestLimits::default()).map(|request| request.n)
    };
    assert_eq!(parse(r#"{"model": "tale", "n": 2, "n": 3}"#), Ok(3));
    assert_eq!(parse(r#"{"model": "tale", "n": 2, "n": null}"#), Ok(1));
}

#[test]
fn messages_say_what_was_wrong_and_what_was_expected() {
    let check = |fields: Json, expect: &str| {
        let error = parse_with(fields).expect_err("a wrong request");
        assert_eq!(error.message, expect);
    };
    check(
        json!({ "n": 0 }),
        "`n` must be an integer from 1 to 128, but is 0",
    );
    check(
        json!({ "top_p": "x" }),
        "`top_p` must be a number from 0 to 1, but is the string \"x\"",
    );
    check(
        json!({ "stop": ["a", ""] }),
        "`stop[1]` must be a string of at least one character, but is empty",
    );
    check(
        json!({ "stop": ["a", "b", "c", "d", "e"] }),
        "`stop` must be an array of at most 4 strings, but is an array of 5",
    );
    check(
        json!({ "logit_bias": { "a": 1 } }),
        "`logit_bias.a` must be a decimal token id, but is the key \"a\"",
    );
    check(
        json!({ "max_tokens": 0 }),
        "`max_tokens` conflicts with another parameter: \
         0 is allowed only with `echo`, to score the prompt",
    );
}
