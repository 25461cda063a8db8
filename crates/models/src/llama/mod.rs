//! The Llama family: Llama 1 to 3, SmolLM, TinyLlama, Mistral (`llama` files), Qwen 2 and 2.5 (`qwen2`), Qwen 3 (`qwen3`).

mod ahead;
mod calibration;
mod config;
mod loader;
mod model;
mod network;
mod recordings;
mod rehearsal;
mod rope;
mod stacks;
mod tensor_names;

pub use config::{Architecture, LlamaConfig};
pub use model::LlamaModel;
pub use network::{DecoderLayer, Llama};
pub use rope::{RopeConfig, RopeScaling};
