//! What comes back: whole completions, and chunks of them.

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

/// The `object` field, which is the same on every response and chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ObjectKind {
    /// The only kind there is.
    #[default]
    #[serde(rename = "text_completion")]
    TextCompletion,
}

/// The answer to a request without `stream`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Completion {
    /// `cmpl-` and something unique.
    pub id: String,
    /// What this is.
    pub object: ObjectKind,
    /// When the request arrived, in seconds since 1970.
    pub created: u64,
    /// The model's id, as in the request.
    pub model: String,
    /// Changes with all that may change results for the same seed.
    pub system_fingerprint: String,
    /// `n` choices for each prompt, by `index`.
    pub choices: Vec<Choice>,
    /// Tokens read and generated.
    pub usage: Usage,
    /// Where and how fast it ran.
    pub cinderlm: Extra,
}

/// A part of the answer to a request with `stream`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chunk {
    /// As in [`Completion::id`], the same for the whole stream.
    pub id: String,
    /// What this is.
    pub object: ObjectKind,
    /// As in [`Completion::created`], the same for the whole stream.
    pub created: u64,
    /// The model's id, as in the request.
    pub model: String,
    /// As in [`Completion::system_fingerprint`].
    pub system_fingerprint: String,
    /// New text of one choice or more; empty on the last chunk if that has the usage.
    pub choices: Vec<Choice>,
    /// Absent, null or the totals.
    #[serde(skip_serializing_if = "ChunkUsage::is_not_asked")]
    pub usage: ChunkUsage,
    /// Where and how fast it ran, on the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cinderlm: Option<Extra>,
}

/// A chunk's `usage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChunkUsage {
    /// The request has no `include_usage`: the field is absent.
    #[default]
    NotAsked,
    /// Asked for, and still to come: the field is null.
    Pending,
    /// The totals, on the last chunk.
    Total(Usage),
}

impl ChunkUsage {
    fn is_not_asked(&self) -> bool {
        matches!(self, Self::NotAsked)
    }
}

impl Serialize for ChunkUsage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::NotAsked | Self::Pending => serializer.serialize_none(),
            Self::Total(usage) => usage.serialize(serializer),
        }
    }
}

/// One generated text, or in a chunk the new part of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// The prompt's index times `n`, plus the choice's number within the prompt.
    pub index: u32,
    /// The text, with the prompt before it if the request has `echo`.
    pub text: String,
    /// One entry for each token of `text`, if the request has `logprobs`.
    pub logprobs: Option<Logprobs>,
    /// Why generation ended; `None` only in chunks before a choice's last.
    pub finish_reason: Option<FinishReason>,
}

/// Why generation of a choice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended the text, or one of the request's stops came up.
    Stop,
    /// `max_tokens` were generated.
    Length,
}

/// Log-probabilities of a text's tokens: four arrays of one length, in the legacy shape.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Logprobs {
    /// Each token's text; `bytes:\xe2\x80` for one that is not valid UTF-8 by itself.
    pub tokens: Vec<String>,
    /// Natural logarithms, in the model's own distribution; `None` for the first token of an
    /// echoed prompt, which nothing predicts. Finite: -9999 stands for minus infinity.
    pub token_logprobs: Vec<Option<f64>>,
    /// The likeliest tokens at each place; `None` if the request has `logprobs: 0`.
    pub top_logprobs: Option<Vec<Option<TopLogprobs>>>,
    /// Where each token starts, in UTF-16 code units of the prompt followed by the text.
    pub text_offset: Vec<u32>,
}

/// The likeliest tokens at one place, and the one that was sampled. Serialises as a map from token
/// text to log-probability, likeliest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopLogprobs {
    entries: Vec<(String, f64)>,
}

impl TopLogprobs {
    /// Orders the entries, equal ones staying as given. Of tokens with the same text the likeliest
    /// is kept, since a map has room for one.
    pub fn new(entries: impl IntoIterator<Item = (String, f64)>) -> Self {
        let mut ordered: Vec<(String, f64)> = entries.into_iter().collect();
        ordered.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        // There are at most 21 of them.
        let mut entries: Vec<(String, f64)> = Vec::with_capacity(ordered.len());
        for (text, logprob) in ordered {
            if entries.iter().all(|(kept, _)| *kept != text) {
                entries.push((text, logprob));
            }
        }
        Self { entries }
    }

    /// Token texts with their log-probabilities, likeliest first.
    pub fn entries(&self) -> &[(String, f64)] {
        &self.entries
    }
}

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.entries.len()))?;
        for (text, logprob) in &self.entries {
            map.serialize_entry(text, logprob)?;
        }
        map.end()
    }
}

/// Tokens read and generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Of all prompts, each counted once.
    pub prompt_tokens: u64,
    /// Of all choices that were generated, those that `best_of` discards included.
    pub completion_tokens: u64,
    /// Both together.
    pub total_tokens: u64,
}

impl Usage {
    /// Both counts and their sum.
    pub const fn new(prompt_tokens: u64, completion_tokens: u64) -> Self {
        let total_tokens = prompt_tokens.saturating_add(completion_tokens);
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens,
        }
    }
}

/// What goes beyond the API that the contract follows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extra {
    /// Where the text was generated.
    pub ran_on: RanOn,
    /// What computed it.
    pub device: Device,
    /// How long it took.
    pub timings: Timings,
}

/// Where a text was generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RanOn {
    /// In this browser.
    Local,
    /// On the server that the page's owner has set.
    Remote,
}

/// What a model runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// A GPU, through WebGPU.
    Webgpu,
    /// The CPU, in WebAssembly.
    Cpu,
}

/// How long the parts of a request took, in wall-clock time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Waiting for requests that came before.
    pub queue_millis: f64,
    /// Loading the model; 0 if it was loaded already.
    pub load_millis: f64,
    /// Feeding the prompts to the model.
    pub prompt_millis: f64,
    /// From the request's arrival to its first token; `None` if none was generated.
    pub first_token_millis: Option<f64>,
    /// Generating the tokens after each choice's first.
    pub decode_millis: f64,
    /// Tokens generated in `decode_millis`, by the second; `None` if there were none.
    pub tokens_per_second: Option<f64>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chunk(usage: ChunkUsage) -> Chunk {
        Chunk {
            id: "cmpl-1".to_owned(),
            object: ObjectKind::default(),
            created: 1_700_000_000,
            model: "tale".to_owned(),
            system_fingerprint: "fp".to_owned(),
            choices: vec![Choice {
                index: 0,
                text: " upon".to_owned(),
                logprobs: None,
                finish_reason: None,
            }],
            usage,
            cinderlm: None,
        }
    }

    #[test]
    fn a_completion_has_the_shape_of_the_contract() {
        let completion = Completion {
            id: "cmpl-1".to_owned(),
            object: ObjectKind::default(),
            created: 1_700_000_000,
            model: "tale".to_owned(),
            system_fingerprint: "fp".to_owned(),
            choices: vec![Choice {
                index: 0,
                text: "é!".to_owned(),
                logprobs: Some(Logprobs {
                    tokens: vec!["é".to_owned(), "!".to_owned()],
                    token_logprobs: vec![None, Some(-0.5)],
                    top_logprobs: Some(vec![
                        None,
                        Some(TopLogprobs::new([("!".to_owned(), -0.5)])),
                    ]),
                    text_offset: vec![0, 1],
                }),
                finish_reason: Some(FinishReason::Length),
            }],
            usage: Usage::new(1, 1),
            cinderlm: Extra {
                ran_on: RanOn::Local,
                device: Device::Webgpu,
                timings: Timings {
                    queue_millis: 0.5,
                    ..Timings::default()
                },
            },
        };
        let expect = json!({
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 1_700_000_000,
            "model": "tale",
            "system_fingerprint": "fp",
            "choices": [{
                "index": 0,
                "text": "é!",
                "logprobs": {
                    "tokens": ["é", "!"],
                    "token_logprobs": [null, -0.5],
                    "top_logprobs": [null, { "!": -0.5 }],
                    "text_offset": [0, 1],
                },
                "finish_reason": "length",
            }],
            "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 },
            "cinderlm": {
                "ran_on": "local",
                "device": "webgpu",
                "timings": {
                    "queue_millis": 0.5,
                    "load_millis": 0.0,
                    "prompt_millis": 0.0,
                    "first_token_millis": null,
                    "decode_millis": 0.0,
                    "tokens_per_second": null,
                },
            },
        });
        assert_eq!(
            serde_json::to_value(&completion).expect("serialisable"),
            expect
        );
    }

    #[test]
    fn usage_of_a_chunk_is_absent_null_or_the_totals() {
        let usage = |usage| {
            let chunk = serde_json::to_value(chunk(usage)).expect("serialisable");
            chunk.get("usage").cloned()
        };
        assert_eq!(usage(ChunkUsage::NotAsked), None);
        assert_eq!(usage(ChunkUsage::Pending), Some(json!(null)));
        let totals = json!({ "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7 });
        assert_eq!(usage(ChunkUsage::Total(Usage::new(3, 4))), Some(totals));
    }

    #[test]
    fn a_chunk_says_null_until_its_choice_ends() {
        let chunk = serde_json::to_value(chunk(ChunkUsage::NotAsked)).expect("serialisable");
        let expect =
            json!([{ "index": 0, "text": " upon", "logprobs": null, "finish_reason": null }]);
        assert_eq!(chunk["choices"], expect);
        assert!(chunk.get("cinderlm").is_none());
    }

    #[test]
    fn no_top_logprobs_are_null() {
        let logprobs = serde_json::to_value(Logprobs::default()).expect("serialisable");
        let expect = json!({
            "tokens": [], "token_logprobs": [], "top_logprobs": null, "text_offset": [],
        });
        assert_eq!(logprobs, expect);
    }

    #[test]
    fn top_logprobs_come_likeliest_first_and_once_each() {
        let check = |entries: &[(&str, f64)], expect: &str| {
            let entries = entries
                .iter()
                .map(|&(text, logprob)| (text.to_owned(), logprob));
            let json = serde_json::to_string(&TopLogprobs::new(entries)).expect("serialisable");
            assert_eq!(json, expect);
        };
        check(&[], "{}");
        check(
            &[("b", -1.0), ("a", -0.5), ("c", -9999.0)],
            r#"{"a":-0.5,"b":-1.0,"c":-9999.0}"#,
        );
        check(&[("b", -1.0), ("a", -1.0)], r#"{"b":-1.0,"a":-1.0}"#);
        // Two ids can have one text; the less likely must not overwrite the other.
        check(
            &[("a", -0.5), ("b", -1.0), ("a", -3.0)],
            r#"{"a":-0.5,"b":-1.0}"#,
        );
    }
}
