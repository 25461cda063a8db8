//! Feeding a prompt to the model.

use std::ops::Range;

use cinderlm_models::{CausalLm, Draw, LogitsFor, ModelError};

use crate::batch::{Batcher, Draws, Fed, RequestId, Sequence};
use crate::prefix::Scope;
use crate::runtime::Runtime;

/// A prompt that the model has read.
pub(crate) struct Prefilled<M: CausalLm, R> {
    /// Holds the prompt; choices are forked from it.
    pub(crate) sequence: Sequence<M, R>,
    /// What follows the prompt's last token: logits, or the token itself if it was to be drawn. Nothing if nothing is to be generated.
    pub(crate) next: Option<Fed>,
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
    /// How the first of them is drawn, where only one choice follows.
    pub(crate) draw: Option<Draw>,
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
    let mut next = None;
    // The last token's row predicts what comes after the prompt.
    let n_fed = tokens.len() - usize::from(!plan.is_continued);
    for Range { start, end } in pieces(n_kept..n_fed, batcher.prompt_rows()) {
        let is_last = end == tokens.len();
        let piece = &tokens[start..end];
        let Some(score) = &mut score else {
            if is_last {
                let draw = plan.draw.clone();
                let draws = Draws {
                    next: draw,
                    after: None,
                };
                let fed = batcher.feed_and_draw(plan.request, &sequence, piece, draws);
                next = Some(fed.await?);
            } else {
                let fed = batcher.feed(plan.request, &sequence, piece, LogitsFor::None);
                fed.await?;
            }
            continue;
        };
        let fed = batcher.feed(plan.request, &sequence, piece, LogitsFor::All);
        let mut rows = fed.await?;
        let row_length = rows.len() / piece.len();
        let scored = tokens.get(start + 1..).unwrap_or_default();
        for (row, &token) in rows.chunks_exact(row_length.max(1)).zip(scored) {
            score(token, row);
        }
        if is_last {
            next = Some(Fed::Logits(rows.split_off(rows.len() - row_length)));
        }
    }
    Ok(Prefilled { sequence, next })
}

/// A range in ranges of at most `size`.
fn pieces(all: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = all.end;
    all.step_by(size)
        .map(move |start| start..(start + size).min(end))
}
