//! `complete` and `serve`: the package in a real browser.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use crate::setup::browsers::Browser;
use crate::setup::model;
use crate::shell::hand_over;
use crate::workspace::Workspace;
use crate::{build, setup};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The text to go on from. Several make a list of prompts.
    #[arg(required = true)]
    prompt: Vec<String>,
    /// An id that is known here (smollm2-135m), a GGUF file, or the address of one.
    #[arg(long, default_value = model::ID)]
    model: String,
    /// Where the model runs.
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    device: Device,
    /// Where the page is opened.
    #[arg(long, value_enum, default_value_t = Browser::Chromium)]
    browser: Browser,
    /// Print only the final completion object, on standard output.
    #[arg(long)]
    json: bool,
    /// Use the quickly compiled wasm module.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    fields: Fields,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Device {
    Auto,
    Webgpu,
    Cpu,
}

/// The request's fields. A value that is not of its field's type goes to the engine as it is: the contract's own error is the
/// one to show.
#[derive(Args, Default)]
#[command(next_help_heading = "Request fields")]
struct Fields {
    /// What follows the completion; only for models with fill-in-the-middle tokens.
    #[arg(long)]
    suffix: Option<String>,
    /// Tokens to generate at most.
    #[arg(long, alias = "max_tokens", allow_hyphen_values = true)]
    max_tokens: Option<String>,
    /// Choices per prompt.
    #[arg(long, allow_hyphen_values = true)]
    n: Option<String>,
    /// Generate this many and return the n likeliest.
    #[arg(long, alias = "best_of", allow_hyphen_values = true)]
    best_of: Option<String>,
    /// Put the prompt before the completion.
    #[arg(long)]
    echo: bool,
    /// Report log-probabilities, and those of this many likeliest tokens.
    #[arg(long, allow_hyphen_values = true)]
    logprobs: Option<String>,
    /// 0 is greedy.
    #[arg(long, allow_hyphen_values = true)]
    temperature: Option<String>,
    /// Sample from the smallest set of tokens with this mass.
    #[arg(long, alias = "top_p", allow_hyphen_values = true)]
    top_p: Option<String>,
    /// Per earlier occurrence of a token.
    #[arg(long, alias = "frequency_penalty", allow_hyphen_values = true)]
    frequency_penalty: Option<String>,
    /// Once for a token that occurred.
    #[arg(long, alias = "presence_penalty", allow_hyphen_values = true)]
    presence_penalty: Option<String>,
    /// A JSON object from token id to bias, as '{"1": -100}'.
    #[arg(long, alias = "logit_bias")]
    logit_bias: Option<String>,
    /// Makes sampling repeatable.
    #[arg(long, allow_hyphen_values = true)]
    seed: Option<String>,
    /// May be given several times; \n, \t, \r, \\, \xHH and \u{…} are understood.
    #[arg(long, allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Whether to ask for a stream; the default is yes, unless --json is given or best_of is greater than n.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    stream: Option<String>,
    /// A JSON object, as '{"include_usage": true}'.
    #[arg(long, alias = "stream_options")]
    stream_options: Option<String>,
    /// Name of the end user.
    #[arg(long)]
    user: Option<String>,
}

impl Fields {
    fn into_request(self) -> Result<BTreeMap<&'static str, Value>> {
        let values = [
            ("max_tokens", self.max_tokens),
            ("n", self.n),
            ("best_of", self.best_of),
            ("logprobs", self.logprobs),
            ("temperature", self.temperature),
            ("top_p", self.top_p),
            ("frequency_penalty", self.frequency_penalty),
            ("presence_penalty", self.presence_penalty),
            ("logit_bias", self.logit_bias),
            ("seed", self.seed),
            ("stream", self.stream),
            ("stream_options", self.stream_options),
        ];
        let mut request: BTreeMap<_, _> = values
            .into_iter()
            .filter_map(|(name, text)| text.map(|text| (name, value_or_text(text))))
            .collect();
        for (name, text) in [("suffix", self.suffix), ("user", self.user)] {
            if let Some(text) = text {
                request.insert(name, Value::String(text));
            }
        }
        if self.echo {
            request.insert("echo", Value::Bool(true));
        }
        if !self.stop.is_empty() {
            let stops = self
                .stop
                .iter()
                .map(|text| unescape(text).map(Value::String))
                .collect::<Result<_>>()?;
            request.insert("stop", Value::Array(stops));
        }
        Ok(request)
    }
}

fn value_or_text(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

/// What tests/e2e/complete.mjs is told.
#[derive(Serialize)]
struct Task {
    browser: &'static str,
    device: Device,
    json: bool,
    model: Model,
    request: BTreeMap<&'static str, Value>,
}

#[derive(Serialize)]
struct Model {
    id: String,
    #[serde(flatten)]
    source: Source,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    File(PathBuf),
    Url(String),
}

/// Builds what is missing and completes the prompt.
pub(crate) fn run(workspace: &Workspace, arguments: Arguments) -> Result<()> {
    let Arguments {
        mut prompt,
        model,
        device,
        browser,
        json,
        quick,
        fields,
    } = arguments;
    let model = find_model(workspace, model)?;
    let mut request = fields.into_request()?;
    let prompt = if prompt.len() == 1 {
        Value::String(prompt.remove(0))
    } else {
        prompt.into()
    };
    request.insert("prompt", prompt);
    build::package(workspace, build::Profile::new(quick))?;
    let program = browser.provide(workspace)?;
    let task = Task {
        browser: browser.name(),
        device,
        json,
        model,
        request,
    };

    let mut node = Command::new("node");
    node.arg(workspace.e2e().join("complete.mjs"))
        .arg(serde_json::to_string(&task)?);
    hand_over(node.env(browser.variable(), program))
}

/// Serves what has been built, and the models.
pub(crate) fn serve(workspace: &Workspace, port: u16) -> Result<()> {
    ensure!(
        workspace.dist().is_dir(),
        "www/package/dist/ is not there; run `cargo xtask build` first"
    );
    setup::npm::install(workspace)?;
    let mut node = Command::new("node");
    node.arg(workspace.e2e().join("serve.mjs"))
        .args(["--port", &port.to_string()])
        .arg("--models")
        .arg(workspace.models());
    hand_over(&mut node)
}

fn find_model(workspace: &Workspace, name: String) -> Result<Model> {
    if name == model::ID {
        return Ok(Model {
            id: name,
            source: Source::File(model::provide(workspace)?),
        });
    }
    if name.starts_with("https://") || name.starts_with("http://") {
        let path = name.split(['?', '#']).next().unwrap_or_default();
        let id = stem(Path::new(path))?;
        return Ok(Model {
            id,
            source: Source::Url(name),
        });
    }
    let path = env::current_dir()?.join(&name);
    ensure!(
        path.is_file(),
        "the model `{name}` is neither a known id ({}), nor a file, nor an http(s) address",
        model::ID
    );
    Ok(Model {
        id: stem(&path)?,
        source: Source::File(path),
    })
}

fn stem(path: &Path) -> Result<String> {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    Ok(stem
        .with_context(|| format!("{} has no file name to call the model by", path.display()))?
        .to_owned())
}

/// Resolves C-style escapes.
fn unescape(text: &str) -> Result<String> {
    let mut result = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            result.push(character);
            continue;
        }
        let rest = characters.as_str();
        let (resolved, n_bytes) =
            escape(rest).with_context(|| format!("`\\{rest}` is no escape that --stop knows"))?;
        result.push(resolved);
        characters = rest[n_bytes..].chars();
    }
    Ok(result)
}

/// The character that an escape stands for and the escape's length in bytes, both without the backslash.
fn escape(rest: &str) -> Option<(char, usize)> {
    let simple = match rest.chars().next()? {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        '0' => '\0',
        quoted @ ('\\' | '"' | '\'') => quoted,
        'x' => {
            return u8::from_str_radix(rest.get(1..3)?, 16)
                .ok()
                .filter(u8::is_ascii)
                .map(|byte| (char::from(byte), 3));
        }
        'u' => {
            let digits = rest.get(1..)?.strip_prefix('{')?.split_once('}')?.0;
            return u32::from_str_radix(digits, 16)
                .ok()
                .and_then(char::from_u32)
                .map(|found| (found, digits.len() + 3));
        }
        _ => return None,
    };
    Some((simple, 1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn escapes_resolve_as_in_c() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(unescape(text).ok().as_deref(), expect, "{text}")
        };
        check("plain", Some("plain"));
        check(r"\n\n", Some("\n\n"));
        check(r"a\tb\\n", Some("a\tb\\n"));
        check(r"\x41\u{e9}\u{1F525}é", Some("Aé🔥é"));
        check(r"\q", None);
        check(r"ends with \", None);
        check(r"\x4", None);
        check(r"\xff", None);
        check(r"\u{d800}", None);
        check(r"\u41", None);
    }

    #[test]
    fn fields_take_the_types_of_the_contract() -> Result<()> {
        let fields = Fields {
            max_tokens: Some("32".to_owned()),
            temperature: Some("0.5".to_owned()),
            n: Some("many".to_owned()),
            logit_bias: Some(r#"{"1": -100}"#.to_owned()),
            stop: vec![r"\n".to_owned()],
            user: Some("7".to_owned()),
            echo: true,
            ..Fields::default()
        };
        let expect = json!({
            "max_tokens": 32, "temperature": 0.5, "n": "many", "logit_bias": { "1": -100 }, "stop": ["\n"], "user": "7", "echo": true,
        });
        assert_eq!(serde_json::to_value(fields.into_request()?)?, expect);
        Ok(())
    }
}
