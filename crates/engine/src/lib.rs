//! Generation: completion requests in, chunks out, over any language model.
//!
//! An [`Engine`] owns one model behind the [`CausalLm`](cinderlm_models::CausalLm) trait, the tokenizer of its vocabulary and the
//! [`Runtime`] of its host. [`Engine::complete`] answers a request with a [`CompletionStream`]; [`collect`] joins its chunks to a
//! whole completion, so streamed and whole answers have the same text.
//!
//! What happens to a request, in order of files: `plan` and `prompt` validate it against the model and turn its prompts into ids;
//! `generation` runs its prompts and choices side by side, once `seats` has room for them; `prefill` reads a prompt in pieces; `choice`
//! is one choice's state, which takes logits and gives text by way of `hold_back` and `stop`; `batch` joins what all of them, in all
//! requests, ask of the model into steps; `emitter` makes chunks, which `stream` hands over one at a time. What a request leaves in the
//! model is kept by `prefix`; what it cost the device is counted by `work`.
//!
//! The engine knows no tensors, no files and no browser. It runs on one thread, and nothing in it blocks.

mod batch;
mod choice;
mod collect;
mod emitter;
mod engine;
mod failure;
mod generation;
mod hold_back;
mod loader;
mod logprobs;
mod meter;
mod plan;
mod prefill;
mod prefix;
mod prompt;
mod runtime;
mod seats;
mod stop;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;
mod work;

pub use collect::collect;
pub use engine::{CallOptions, Engine, EngineOptions, Identity};
pub use failure::{
    gguf_failure, metadata_failure, model_failure, source_failure, tokenizer_failure,
};
pub use loader::{load_tokenizer, system_fingerprint, vocabulary_config};
pub use prefix::PrefixStats;
pub use runtime::Runtime;
pub use stream::{CompletionStream, StreamHandle};
pub use work::{DeviceWork, StepStats, WorkStats};
