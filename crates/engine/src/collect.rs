//! A whole completion from its chunks.

use std::collections::BTreeMap;
use std::pin::pin;

use cinderlm_protocol::{
    Choice, Chunk, ChunkUsage, Completion, CompletionError, ErrorCode, Logprobs, ObjectKind,
};
use futures::{Stream, StreamExt as _};

/// Joins the chunks of a completion, so that a call without `stream` gives the same text as one with it.
///
/// The stream must end with the chunk that has the usage, as the engine's streams do for requests without `stream` or with
/// `include_usage`.
///
/// # Errors
/// The stream's error, or `internal` if it ends without the usage.
pub async fn collect(
    stream: impl Stream<Item = Result<Chunk, CompletionError>>,
) -> Result<Completion, CompletionError> {
    let mut stream = pin!(stream);
    let mut choices = BTreeMap::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        for choice in chunk.choices {
            append(&mut choices, choice);
        }
        if let (ChunkUsage::Total(usage), Some(cinderlm)) = (chunk.usage, chunk.cinderlm) {
            return Ok(Completion {
                id: chunk.id,
                object: ObjectKind::TextCompletion,
                created: chunk.created,
                model: chunk.model,
                system_fingerprint: chunk.system_fingerprint,
                choices: choices.into_values().collect(),
                usage,
                cinderlm,
            });
        }
    }
    let message = "the stream of a completion ended without its usage";
    Err(CompletionError::new(ErrorCode::Internal, message))
}

fn append(choices: &mut BTreeMap<u32, Choice>, later: Choice) {
    let Some(choice) = choices.get_mut(&later.index) else {
        choices.insert(later.index, later);
        return;
    };
    choice.text.push_str(&later.text);
    choice.finish_reason = later.finish_reason;
    match (&mut choice.logprobs, later.logprobs) {
        (Some(logprobs), Some(later)) => append_logprobs(logprobs, later),
        (logprobs @ None, later) => *logprobs = later,
        (Some(_), None) => {}
    }
}

fn append_logprobs(logprobs: &mut Logprobs, later: Logprobs) {
    logprobs.tokens.extend(later.tokens);
    logprobs.token_logprobs.extend(later.token_logprobs);
    logprobs.text_offset.extend(later.text_offset);
    if let (Some(top), Some(later)) = (&mut logprobs.top_logprobs, later.top_logprobs) {
        top.extend(later);
    }
}
