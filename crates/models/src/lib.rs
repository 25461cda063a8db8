//! Language models as burn modules behind one [`CausalLm`] trait.
//!
//! [`load_model`] turns a GGUF file into a [`LoadedModel`] on a burn device; [`CausalLm`] is all that generation needs of it. The
//! same modules run on WebGPU and on the CPU: what differs lies in `cinderlm-kernels`. Sampling, text and requests are not known
//! here.

mod causal_lm;
mod error;
mod info;
mod kv;
pub mod layers;
pub mod llama;
mod loading;
mod metadata;

pub use causal_lm::{CausalLm, Draw, Drawn, Feed, LogitsFor, SequenceId};
pub use error::ModelError;
pub use info::ModelInfo;
pub use kv::{BLOCK_TOKENS, MAX_STEP_TOKENS};
pub use loading::{
    CalibrationClock, LoadHooks, LoadOptions, LoadProgress, LoadedModel, load_model,
};
