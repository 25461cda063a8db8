//! Requests: every field read strictly.

mod prompt;
mod read;

use std::collections::BTreeMap;
use std::fmt::Display;

pub use prompt::{Prompt, PromptItem};

use crate::{CompletionError, ErrorCode, Value};
use read::{boolean, integer, number, string};

/// The largest value that [`RequestLimits::max_logprobs`] can take.
pub const MAX_LOGPROBS_CAP: u8 = 20;

/// The largest `max_tokens`: the largest integer that JavaScript represents exactly.
const MAX_MAX_TOKENS: i64 = read::MAX_SAFE_INTEGER;
const MAX_STOPS: usize = 4;
const DEFAULT_MAX_TOKENS: u64 = 16;

/// What the owner of the engine allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// The largest `logprobs` that a request may ask for; above [`MAX_LOGPROBS_CAP`] it counts as
    /// that.
    pub max_logprobs: u8,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { max_logprobs: 5 }
    }
}

/// A request whose every field is of the right type and in its range, and whose fields agree.
///
/// Token ids, in `prompt` and `logit_bias`, are not yet compared with a vocabulary: see
/// [`check_vocabulary`](Self::check_vocabulary).
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRequest {
    /// The id of a registered model.
    pub model: String,
    /// What to continue.
    pub prompt: Prompt,
    /// What comes after the text to be generated.
    pub suffix: Option<String>,
    /// How many tokens to generate at most; 0 only with `echo`. May be far beyond any context.
    pub max_tokens: u64,
    /// How many choices to return for each prompt, 1 to 128.
    pub n: u32,
    /// How many choices to generate for each prompt, to return the best `n`; at least `n`.
    pub best_of: Option<u32>,
    /// Whether choices begin with the prompt.
    pub echo: bool,
    /// How many alternatives to report at each token; `None` reports no log-probabilities at all.
    pub logprobs: Option<u8>,
    /// 0 (greedy) to 2.
    pub temperature: f32,
    /// 0 to 1.
    pub top_p: f32,
    /// -2 to 2.
    pub frequency_penalty: f32,
    /// -2 to 2.
    pub presence_penalty: f32,
    /// Added to the logits of these token ids, -100 to 100; ascending, each id once.
    pub logit_bias: Vec<(u32, f32)>,
    /// Makes the result repeatable. If absent, the caller draws one at random.
    pub seed: Option<i64>,
    /// Texts that end generation: at most four, none empty.
    pub stop: Vec<String>,
    /// Whether to answer in chunks.
    pub stream: bool,
    /// Whether the stream ends with a chunk that has the usage.
    pub include_usage: bool,
    /// Who asked, for hooks that count and limit.
    pub user: Option<String>,
}

impl CompletionRequest {
    /// The names of all fields.
    pub const FIELDS: &[&str] = &[
        "model",
        "prompt",
        "suffix",
        "max_tokens",
        "n",
        "best_of",
        "echo",
        "logprobs",
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "user",
    ];

    /// Reads and checks a request. Null counts as absent, except for `model`.
    ///
    /// # Errors
    /// The first fault found: unknown fields, then each field in the order of [`Self::FIELDS`],
    /// then combinations. `param` names the field down to the element.
    pub fn from_value(value: Value, limits: &RequestLimits) -> Result<Self, CompletionError> {
        let mut fields = Fields::of_request(value)?;
        let max_logprobs = i64::from(limits.max_logprobs.min(MAX_LOGPROBS_CAP));
        let has_stream_options = fields.has("stream_options");
        let request = Self {
            model: fields.required("model", string)?,
            prompt: fields
                .optional("prompt", Prompt::read)?
                .unwrap_or(Prompt::DocumentStart),
            suffix: fields.optional("suffix", string)?,
            max_tokens: fields
                .integer("max_tokens", 0, MAX_MAX_TOKENS)?
                .unwrap_or(DEFAULT_MAX_TOKENS),
            n: fields.integer("n", 1, 128)?.unwrap_or(1),
            best_of: fields.integer("best_of", 1, 20)?,
            echo: fields.optional("echo", boolean)?.unwrap_or(false),
            logprobs: fields.integer("logprobs", 0, max_logprobs)?,
            temperature: fields.number("temperature", 0.0, 2.0)?.unwrap_or(1.0),
            top_p: fields.number("top_p", 0.0, 1.0)?.unwrap_or(1.0),
            frequency_penalty: fields
                .number("frequency_penalty", -2.0, 2.0)?
                .unwrap_or(0.0),
            presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
            logit_bias: fields
                .optional("logit_bias", read_logit_bias)?
                .unwrap_or_default(),
            seed: fields.integer("seed", i64::MIN, i64::MAX)?,
            stop: fields.optional("stop", read_stop)?.unwrap_or_default(),
            stream: fields.optional("stream", boolean)?.unwrap_or(false),
            include_usage: fields
                .optional("stream_options", read_include_usage)?
                .unwrap_or(false),
            user: fields.optional("user", string)?,
        };
        request.check_combinations(has_stream_options)?;
        Ok(request)
    }

    /// How many choices to generate for each prompt: `best_of`, or `n` without it.
    pub fn n_candidates(&self) -> u32 {
        self.best_of.unwrap_or(self.n)
    }

    /// Checks every token id of the request against a model's vocabulary.
    ///
    /// # Errors
    /// `out_of_range`, naming the first id that is not below `vocab_size`.
    pub fn check_vocabulary(&self, vocab_size: usize) -> Result<(), CompletionError> {
        self.prompt.check_vocabulary(vocab_size)?;
        match self
            .logit_bias
            .iter()
            .find(|&&(token, _)| token as usize >= vocab_size)
        {
            Some(&(token, _)) => {
                let param = format_args!("logit_bias.{token}");
                Err(CompletionError::token_out_of_range(
                    param, token, vocab_size,
                ))
            }
            None => Ok(()),
        }
    }

    fn check_combinations(&self, has_stream_options: bool) -> Result<(), CompletionError> {
        let conflict = |param, rule| Err(CompletionError::conflicting(param, rule));
        if self.max_tokens == 0 && !self.echo {
            return conflict(
                "max_tokens",
                "0 is allowed only with `echo`, to score the prompt",
            );
        }
        if self.best_of.is_some_and(|best_of| best_of < self.n) {
            return conflict("best_of", "it must be at least `n`");
        }
        if self.stream && self.best_of.is_some_and(|best_of| best_of > self.n) {
            return conflict("best_of", "with `stream` it cannot be greater than `n`");
        }
        if has_stream_options && !self.stream {
            return conflict("stream_options", "it is allowed only with `stream`");
        }
        Ok(())
    }
}

/// The fields of a request that are there and not null.
struct Fields {
    by_name: BTreeMap<String, Value>,
}

impl Fields {
    fn of_request(value: Value) -> Result<Self, CompletionError> {
        let Value::Object(entries) = value else {
            let message = format!("a request must be an object, but is {value}");
            return Err(CompletionError::new(ErrorCode::InvalidType, message));
        };
        let known = CompletionRequest::FIELDS;
        if let Some((name, _)) = entries
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            return Err(CompletionError::unknown_parameter(name, known));
        }
        // Collected first, so that a later null overrides an earlier value like any other would.
        let mut by_name: BTreeMap<String, Value> = entries.into_iter().collect();
        by_name.retain(|_, value| *value != Value::Null);
        Ok(Self { by_name })
    }

    fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'static str, Value) -> Result<T, CompletionError>,
    ) -> Result<T, CompletionError> {
        // Null goes through the reader too, so that its message says what is expected.
        read(name, self.by_name.remove(name).unwrap_or(Value::Null))
    }

    fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'static str, Value) -> Result<T, CompletionError>,
    ) -> Result<Option<T>, CompletionError> {
        self.by_name
            .remove(name)
            .map(|value| read(name, value))
            .transpose()
    }

    /// An integer from `min` to `max`, both of which `T` must hold.
    fn integer<T: TryFrom<i64>>(
        &mut self,
        name: &'static str,
        min: i64,
        max: i64,
    ) -> Result<Option<T>, CompletionError> {
        self.optional(name, |name, value| integer(name, value, min, max))
    }

    fn number(
        &mut self,
        name: &'static str,
        min: f32,
        max: f32,
    ) -> Result<Option<f32>, CompletionError> {
        self.optional(name, |name, value| number(name, value, min, max))
    }
}

fn read_logit_bias(name: &str, value: Value) -> Result<Vec<(u32, f32)>, CompletionError> {
    let Value::Object(entries) = value else {
        let expected = "an object from token ids to numbers";
        return Err(CompletionError::invalid_type(name, expected, value));
    };
    let mut biases = BTreeMap::new();
    for (key, bias) in entries {
        let token = read_token_key(name, &key)?;
        biases.insert(
            token,
            number(format_args!("{name}.{token}"), bias, -100.0, 100.0)?,
        );
    }
    Ok(biases.into_iter().collect())
}

/// A token id as an object's key. Only the plain decimal form is taken, so that no two keys mean
/// one token.
fn read_token_key(name: &str, key: &str) -> Result<u32, CompletionError> {
    let is_plain = !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_digit())
        && (key == "0" || !key.starts_with('0'));
    let param = format_args!("{name}.{key}");
    if !is_plain {
        let found = format_args!("the key {key:?}");
        return Err(CompletionError::invalid_type(
            param,
            "a decimal token id",
            found,
        ));
    }
    key.parse().map_err(|_| {
        let expected = format_args!("a token id, at most {}", u32::MAX);
        CompletionError::out_of_range(param, expected, key)
    })
}

fn read_stop(name: &str, value: Value) -> Result<Vec<String>, CompletionError> {
    match value {
        Value::String(stop) => Ok(vec![read_stop_text(name, Value::String(stop))?]),
        Value::Array(stops) if stops.len() > MAX_STOPS => {
            let expected = format_args!("an array of at most {MAX_STOPS} strings");
            let found = format_args!("an array of {}", stops.len());
            Err(CompletionError::out_of_range(name, expected, found))
        }
        Value::Array(stops) => stops
            .into_iter()
            .enumerate()
            .map(|(i, stop)| read_stop_text(format_args!("{name}[{i}]"), stop))
            .collect(),
        other => Err(CompletionError::invalid_type(
            name,
            "a string or an array of strings",
            other,
        )),
    }
}

fn read_stop_text(param: impl Display, value: Value) -> Result<String, CompletionError> {
    let stop = string(&param, value)?;
    if stop.is_empty() {
        let expected = "a string of at least one character";
        return Err(CompletionError::out_of_range(param, expected, "empty"));
    }
    Ok(stop)
}

/// Reads `stream_options`. Of its two fields only `include_usage` changes anything.
fn read_include_usage(name: &str, value: Value) -> Result<bool, CompletionError> {
    const KNOWN: &[&str] = &[
        "stream_options.include_usage",
        "stream_options.include_obfuscation",
    ];
    let Value::Object(entries) = value else {
        return Err(CompletionError::invalid_type(name, "an object", value));
    };
    let mut include_usage = false;
    for (key, option) in entries {
        let param = format!("{name}.{key}");
        if !KNOWN.contains(&param.as_str()) {
            return Err(CompletionError::unknown_parameter(&param, KNOWN));
        }
        let is_set = option != Value::Null && boolean(param, option)?;
        if key == "include_usage" {
            include_usage = is_set;
        }
    }
    Ok(include_usage)
}
