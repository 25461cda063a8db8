//! What tests put in the place of a model, a vocabulary and a host.

mod model;
mod runtime;
mod script;
mod vocabulary;

pub use model::{Distribution, Probe, Script, ScriptedModel};
pub use runtime::{ScriptedRuntime, block_on, run_host};
pub use script::read_script;
pub use vocabulary::TinyVocabulary;
