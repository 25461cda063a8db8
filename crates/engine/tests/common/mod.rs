//! Engines on the scripted model, and requests for them.

#![allow(dead_code, reason = "each test file uses a part of this")]

use cinderlm_engine::testing::block_on;
use cinderlm_engine::testing::{
    Probe, Script, ScriptedModel, ScriptedRuntime, TinyVocabulary, read_script,
};
use cinderlm_engine::{CompletionStream, Engine, EngineOptions, Identity, collect};
use cinderlm_protocol::{
    Chunk, Completion, CompletionError, CompletionRequest, Device, RequestLimits,
};
use futures::StreamExt as _;
use serde::Deserialize as _;
use serde_json::{Value, json};

pub(crate) type TinyEngine = Engine<ScriptedModel, ScriptedRuntime>;

pub(crate) const CONTEXT_LENGTH: usize = 64;
pub(crate) const FINGERPRINT: &str = "fp_scripted";

/// An engine and what tests watch it with.
pub(crate) struct Bench {
    pub(crate) engine: TinyEngine,
    pub(crate) probe: Probe,
    pub(crate) runtime: ScriptedRuntime,
}

/// How a bench differs from the usual one.
pub(crate) struct BenchConfig {
    pub(crate) can_fill_in: bool,
    pub(crate) context_length: usize,
    pub(crate) options: EngineOptions,
    pub(crate) model_seed: u64,
    /// Pairs of a prompt and the tokens that follow it for certain, by name.
    pub(crate) scripts: Vec<Value>,
}

impl Default for BenchConfig {
    fn default() -> Self {
        Self {
            can_fill_in: false,
            context_length: CONTEXT_LENGTH,
            options: EngineOptions::default(),
            model_seed: 1,
            scripts: Vec::new(),
        }
    }
}

impl Bench {
    pub(crate) fn new(config: &BenchConfig) -> Self {
        let vocabulary = TinyVocabulary {
            can_fill_in: config.can_fill_in,
        };
        let tokenizer = vocabulary
            .tokenizer()
            .expect("the tiny vocabulary is sound");
        let scripts: Vec<Script> = config
            .scripts
            .iter()
            .map(|script| read_script(&tokenizer, script).expect("a script"))
            .collect();
        let model = ScriptedModel::new(
            TinyVocabulary::N_TOKENS,
            config.context_length,
            config.model_seed,
        )
        .with_scripts(scripts);
        let probe = model.probe();
        let runtime = ScriptedRuntime::default();
        let identity = Identity {
            model: "tiny".to_owned(),
            system_fingerprint: FINGERPRINT.to_owned(),
            device: Device::Cpu,
        };
        let engine = Engine::new(model, tokenizer, identity, runtime.clone(), config.options);
        Self {
            engine,
            probe,
            runtime,
        }
    }

    /// On a model without scripts, with prompts read in pieces of `prefill_rows`.
    pub(crate) fn reading_by(prefill_rows: usize) -> Self {
        let options = EngineOptions {
            prefill_rows,
            ..EngineOptions::default()
        };
        Self::new(&BenchConfig {
            options,
            ..BenchConfig::default()
        })
    }

    /// On a model without scripts.
    pub(crate) fn noisy() -> Self {
        Self::new(&BenchConfig::default())
    }

    /// On a model that follows these scripts.
    pub(crate) fn scripted(scripts: Value) -> Self {
        let scripts = scripts.as_array().expect("a list of scripts").clone();
        Self::new(&BenchConfig {
            scripts,
            ..BenchConfig::default()
        })
    }

    pub(crate) fn stream(&self, fields: Value) -> CompletionStream {
        self.engine.complete(request(fields))
    }

    pub(crate) fn complete(&self, fields: Value) -> Result<Completion, CompletionError> {
        block_on(collect(self.stream(fields)))
    }

    /// The completion of a request that must succeed.
    pub(crate) fn completed(&self, fields: Value) -> Completion {
        self.complete(fields).expect("the request succeeds")
    }

    /// The texts of a completion's choices.
    pub(crate) fn texts(&self, fields: Value) -> Vec<String> {
        let choices = self.completed(fields).choices;
        choices.into_iter().map(|choice| choice.text).collect()
    }

    /// Asserts that nothing is left of earlier requests, and that another one works.
    pub(crate) fn assert_as_new(&self, after: &str) {
        assert_eq!(
            self.probe.n_live_sequences(),
            0,
            "sequences are left {after}"
        );
        let texts = self.texts(json!({ "prompt": "next", "max_tokens": 2, "temperature": 0 }));
        assert_eq!(texts.len(), 1, "no completion {after}");
        assert_eq!(
            self.probe.n_live_sequences(),
            0,
            "sequences are left {after}"
        );
    }
}

/// A request for the tiny model with these fields.
pub(crate) fn request(mut fields: Value) -> CompletionRequest {
    if let Some(fields) = fields.as_object_mut() {
        fields.entry("model").or_insert(json!("tiny"));
    }
    read_request(&fields).expect("the request is valid")
}

pub(crate) fn read_request(fields: &Value) -> Result<CompletionRequest, CompletionError> {
    let value = cinderlm_protocol::Value::deserialize(fields).expect("JSON is a value");
    CompletionRequest::from_value(value, &RequestLimits::default())
}

pub(crate) fn chunks(stream: CompletionStream) -> Vec<Chunk> {
    let items: Vec<_> = block_on(stream.collect());
    let chunks: Result<_, _> = items.into_iter().collect();
    chunks.expect("the stream has no error")
}
