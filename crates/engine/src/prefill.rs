//! Feeding a prompt to the model.

use std::ops::Range;

use cinderlm_models::{CausalLm, LogitsFor, ModelError};

use crate::batch::{Batcher, RequestId, Sequence};
use crate::prefix::Scope;
use crate::runtime::Runtime;

/// A prompt that the model has read.
pub(crate) struct Prefilled<M: CausalLm, R> {
    /// Holds the prompt; choices are forked from it.
    pub(crate) sequence: Sequence<M, R>,
    /// The logits that follow the prompt's last token. Empty if nothing is to be generated.
    pub(crate) logits: Vec<f32>,
}

/// What to learn from a prompt while it is read.
pub(crate) struct PrefillPlan<'a> {
    /// Whose prompt it is.
    pub(crate) request: RequestId,
    /// Who may learn of it.
    pub(crate) scope: &'a Scope,
    /// The prompt's ids, at least one.
    pub(crate) tokens: &'a [u32],
    /// Whether tokens will be generated after it.
    pub(crate) is_continued: bool,
}

/// Reads a prompt in pieces. `score` gets each token's logits, in other words the row *before* it, from the second token on; one piece's
/// rows are dropped before the next piece's are made.
pub(crate) async fn prefill<M: CausalLm + 'static, R: Runtime + 'static>(
    batcher: &Batcher<M, R>,
    plan: PrefillPlan<'_>,
    mut score: Option<impl FnMut(u32, &[f32])>,
) -> Result<Prefilled<M, R>, ModelError> {
    let tokens = plan.tokens;
    // Scores need every row, so a prompt that is scored is read from its first token.
    let (sequence, n_kept) = match score {
        Some(_) => (batcher.open(plan.scope).await, 0),
        None => batcher.open_for(plan.scope, tokens).await,
    };
    let mut logits = Vec::new();
    // The last token's row predicts what comes after the prompt.
    let n_fed = tokens.len() - usize::from(!plan.is_continued);
    for Range { start, end } in pieces(n_kept..n_fed, batcher.prompt_rows()) {
        let is_last = end == tokens.len();
        let wanted = match (&score, is_last) {
            (Some(_), _) => LogitsFor::All,
            (None, true) => LogitsFor::Last,
            (None, false) => LogitsFor::None,
        };
        let piece = &tokens[start..end];
        let mut rows = batcher.feed(plan.request, &sequence, piece, wanted).await?;
        let n_rows = wanted.n_rows(end - start);
        if n_rows == 0 {
            continue;
        }
        let row_length = rows.len() / n_rows;
        if let Some(score) = &mut score {
            let scored = tokens.get(start + 1..).unwrap_or_default();
            for (row, &token) in rows.chunks_exact(row_length.max(1)).zip(scored) {
                score(token, row);
            }
        }
        if is_last {
            logits = rows.split_off(rows.len() - row_length);
        }
    }
    Ok(Prefilled { sequence, logits })
}

/// A range in ranges of at most `size`.
fn pieces(all: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = all.end;
    all.step_by(size)
        .map(move |start| start..(start + size).min(end))
}
