//! Fields that hold lists and maps.

use super::*;

#[test]
fn prompt_forms() {
    let check = |prompt: Json, expect: Prompt, n_prompts: usize| {
        assert_eq!(expect.n_prompts(), n_prompts);
        assert_eq!(expect.items().count(), n_prompts);
        accepts(
            json!({ "prompt": prompt }),
            |request| &request.prompt,
            expect,
        );
    };
    check(json!(null), Prompt::DocumentStart, 1);
    check(json!(""), Prompt::Text(String::new()), 1);
    check(json!("Once"), Prompt::Text("Once".to_owned()), 1);
    check(json!(["Once"]), Prompt::Texts(strings(&["Once"])), 1);
    check(
        json!(["Once", "", "upon"]),
        Prompt::Texts(strings(&["Once", "", "upon"])),
        3,
    );
    check(json!([0]), Prompt::Tokens(vec![0]), 1);
    check(
        json!([5.0, 4_294_967_295u32]),
        Prompt::Tokens(vec![5, u32::MAX]),
        1,
    );
    check(
        json!([[1, 2], [3]]),
        Prompt::TokenLists(vec![vec![1, 2], vec![3]]),
        2,
    );
}

#[test]
fn prompt_faults() {
    let check = |prompt: Json, code, param| rejects(json!({ "prompt": prompt }), code, param);
    check(json!([]), OutOfRange, "prompt");
    check(json!([[]]), OutOfRange, "prompt[0]");
    check(json!([[1], []]), OutOfRange, "prompt[1]");
    check(json!(3), InvalidType, "prompt");
    check(json!(true), InvalidType, "prompt");
    check(json!({ "text": "Once" }), InvalidType, "prompt");
    check(json!([null]), InvalidType, "prompt[0]");
    check(json!([{}]), InvalidType, "prompt[0]");
    check(json!(["a", 1]), InvalidType, "prompt[1]");
    check(json!(["a", null]), InvalidType, "prompt[1]");
    check(json!([1, "a"]), InvalidType, "prompt[1]");
    check(json!([1, [2]]), InvalidType, "prompt[1]");
    check(json!([[1], 2]), InvalidType, "prompt[1]");
    check(json!([[1], "a"]), InvalidType, "prompt[1]");
    check(json!([[1], [2, "a"]]), InvalidType, "prompt[1][1]");
    check(json!([[1], [2, [3]]]), InvalidType, "prompt[1][1]");
    check(json!([["a"]]), InvalidType, "prompt[0][0]");
    check(json!([1, 2.5]), InvalidType, "prompt[1]");
    check(json!([-1]), OutOfRange, "prompt[0]");
    check(json!([1, 4_294_967_296u64]), OutOfRange, "prompt[1]");
    check(
        json!([[1, 2], [3, 4, 5, 1e300]]),
        OutOfRange,
        "prompt[1][3]",
    );
    check(json!([u64::MAX]), OutOfRange, "prompt[0]");
}

#[test]
fn empty_texts_mean_the_document_start() {
    let items = |prompt: Json| {
        let request = parse_with(json!({ "prompt": prompt })).expect("a good prompt");
        request
            .prompt
            .items()
            .map(|item| format!("{item:?}"))
            .collect::<Vec<_>>()
    };
    let shown = |expect: &[PromptItem]| -> Vec<String> {
        expect.iter().map(|item| format!("{item:?}")).collect()
    };
    assert_eq!(items(json!(null)), shown(&[PromptItem::DocumentStart]));
    assert_eq!(items(json!("")), shown(&[PromptItem::DocumentStart]));
    assert_eq!(
        items(json!(["a", ""])),
        shown(&[PromptItem::Text("a"), PromptItem::DocumentStart])
    );
    assert_eq!(items(json!([1, 2])), shown(&[PromptItem::Tokens(&[1, 2])]));
    assert_eq!(
        items(json!([[1], [2]])),
        shown(&[PromptItem::Tokens(&[1]), PromptItem::Tokens(&[2])])
    );
}

#[test]
fn logit_bias() {
    let check = |bias: Json, expect: &[(u32, f32)]| {
        accepts(
            json!({ "logit_bias": bias }),
            |request| &request.logit_bias,
            expect.to_vec(),
        );
    };
    check(json!({}), &[]);
    check(json!({ "50256": -100 }), &[(50256, -100.0)]);
    check(
        json!({ "10": 0.5, "9": 100, "0": 0 }),
        &[(0, 0.0), (9, 100.0), (10, 0.5)],
    );
    check(json!({ "4294967295": 1 }), &[(u32::MAX, 1.0)]);

    let check = |bias: Json, code, param| rejects(json!({ "logit_bias": bias }), code, param);
    check(json!([]), InvalidType, "logit_bias");
    check(json!("5"), InvalidType, "logit_bias");
    check(json!({ "a": 1 }), InvalidType, "logit_bias.a");
    check(json!({ "": 1 }), InvalidType, "logit_bias.");
    check(json!({ "-1": 1 }), InvalidType, "logit_bias.-1");
    check(json!({ "+1": 1 }), InvalidType, "logit_bias.+1");
    check(json!({ "01": 1 }), InvalidType, "logit_bias.01");
    check(json!({ "1.0": 1 }), InvalidType, "logit_bias.1.0");
    check(
        json!({ "4294967296": 1 }),
        OutOfRange,
        "logit_bias.4294967296",
    );
    check(json!({ "5": 100.5 }), OutOfRange, "logit_bias.5");
    check(json!({ "5": -101 }), OutOfRange, "logit_bias.5");
    check(json!({ "4": 1, "5": "1" }), InvalidType, "logit_bias.5");
    check(json!({ "5": null }), InvalidType, "logit_bias.5");
    let nan = Value::Object(vec![("5".to_owned(), Value::Float(f64::NAN))]);
    refused(
        parse_value("logit_bias", nan),
        OutOfRange,
        "logit_bias.5",
        &"NaN",
    );
}

#[test]
fn stop() {
    let check = |stop: Json, expect: &[&str]| {
        accepts(
            json!({ "stop": stop }),
            |request| &request.stop,
            strings(expect),
        );
    };
    check(json!("\n"), &["\n"]);
    check(json!([]), &[]);
    check(json!(["a", "b", "c", "d"]), &["a", "b", "c", "d"]);

    let check = |stop: Json, code, param| rejects(json!({ "stop": stop }), code, param);
    check(json!(""), OutOfRange, "stop");
    check(json!(["a", "b", ""]), OutOfRange, "stop[2]");
    check(json!(["a", "b", "c", "d", "e"]), OutOfRange, "stop");
    check(json!(1), InvalidType, "stop");
    check(json!({}), InvalidType, "stop");
    check(json!(["a", 1]), InvalidType, "stop[1]");
    check(json!(["a", null]), InvalidType, "stop[1]");
}

#[test]
fn stream_options() {
    let check = |options: Json, expect: bool| {
        let fields = json!({ "stream": true, "stream_options": options });
        accepts(fields, |request| &request.include_usage, expect);
    };
    check(json!(null), false);
    check(json!({}), false);
    check(json!({ "include_usage": true }), true);
    check(json!({ "include_usage": false }), false);
    check(json!({ "include_usage": null }), false);
    check(json!({ "include_obfuscation": true }), false);
    check(
        json!({ "include_usage": true, "include_obfuscation": false }),
        true,
    );

    let check = |options: Json, code, param| {
        rejects(
            json!({ "stream": true, "stream_options": options }),
            code,
            param,
        );
    };
    check(json!(true), InvalidType, "stream_options");
    check(json!([]), InvalidType, "stream_options");
    check(
        json!({ "include_usage": 1 }),
        InvalidType,
        "stream_options.include_usage",
    );
    check(
        json!({ "include_obfuscation": "" }),
        InvalidType,
        "stream_options.include_obfuscation",
    );
    check(
        json!({ "usage": true }),
        UnknownParameter,
        "stream_options.usage",
    );
}

#[test]
fn ids_beyond_the_vocabulary_are_named() {
    let check = |fields: Json, param: Option<&str>| {
        let request = parse_with(fields.clone()).expect("a good request");
        let found = request
            .check_vocabulary(100)
            .map_err(|error| (error.code, error.param));
        let expect = param.map_or(Ok(()), |param| Err((OutOfRange, Some(param.to_owned()))));
        assert_eq!(found, expect, "{fields}");
    };
    check(json!({ "prompt": "Once" }), None);
    check(json!({ "prompt": [0, 99] }), None);
    check(json!({ "prompt": [0, 100] }), Some("prompt[1]"));
    check(
        json!({ "prompt": [[0], [99, 5, 101]] }),
        Some("prompt[1][2]"),
    );
    check(json!({ "logit_bias": { "99": 1 } }), None);
    check(
        json!({ "logit_bias": { "99": 1, "100": 1 } }),
        Some("logit_bias.100"),
    );
    check(
        json!({ "prompt": [100], "logit_bias": { "100": 1 } }),
        Some("prompt[0]"),
    );
}
