//! The completion contract: what a request may hold, what comes back, and how it fails.
//!
//! It follows the text-completion API that OpenAI published. A request arrives as a [`Value`] from
//! JavaScript or JSON and is read strictly by [`CompletionRequest::from_value`]; a field that is
//! wrong or unknown is an error that names it. [`Completion`] and [`Chunk`] serialise to what a
//! caller of that API expects. Every failure of every part ends as one [`CompletionError`].
//!
//! The crate knows no model, tokenizer or browser. What needs a model to check (token ids, context
//! length) is checked by whoever has one, with the constructors of [`CompletionError`].
//!
//! When serialising to JavaScript values, `None` must become `null` and maps must become objects.

mod error;
mod request;
mod response;
mod value;

pub use error::{CompletionError, ErrorCode};
pub use request::{CompletionRequest, MAX_LOGPROBS_CAP, Prompt, PromptItem, RequestLimits};
pub use response::{
    Choice, Chunk, ChunkUsage, Completion, Device, Extra, FinishReason, Logprobs, ObjectKind,
    RanOn, Timings, TopLogprobs, Usage,
};
pub use value::{MAX_DEPTH, Value};
