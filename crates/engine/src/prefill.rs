//! Feeding a prompt to the model.

use std::ops::Range;

use cinderlm_models::{CausalLm, LogitsFor, ModelError, SequenceId};

use crate::runtime::Runtime;
use crate::session::ModelSession;

/// A prompt that the model has read.
#[derive(Debug)]
pub(crate) struct Prefilled {
    /// Holds the prompt; choices are forked from it.
    pub(crate) sequence: SequenceId,
    /// The logits that follow the prompt's last token. Empty if nothing is to be generated.
    pub(crate) logits: Vec<f32>,
}

/// What to learn from a prompt while it is read.
pub(crate) struct PrefillPlan<'a> {
    /// The prompt's ids, at least one.
    pub(crate) tokens: &'a [u32],
    /// Tokens of one step, at least one.
    pub(crate) chunk_rows: usize,
    /// Whether tokens will be generated after it.
    pub(crate) is_continued: bool,
}

/// Reads a prompt in chunks, letting the host run between them. `score` gets each token's logits, in other words the row *before*
/// it, from the second token on; one chunk's rows are dropped before the next chunk's are made.
pub(crate) async fn prefill<M: CausalLm, R: Runtime>(
    session: &mut ModelSession<'_, M, R>,
    plan: PrefillPlan<'_>,
    mut score: Option<impl FnMut(u32, &[f32])>,
) -> Result<Prefilled, ModelError> {
    let tokens = plan.tokens;
    let sequence = session.open();
    let mut logits = Vec::new();
    // The last token's row predicts what comes after the prompt.
    let n_fed = tokens.len() - usize::from(!plan.is_continued);
    let chunk_rows = plan.chunk_rows.min(session.max_step_tokens()).max(1);
    for Range { start, end } in chunks(n_fed, chunk_rows) {
        let is_last = end == tokens.len();
        let wanted = match (&score, is_last) {
            (Some(_), _) => LogitsFor::All,
            (None, true) => LogitsFor::Last,
            (None, false) => LogitsFor::None,
        };
        let mut rows = session.feed(sequence, &tokens[start..end], wanted).await?;
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

/// `0..n` in ranges of at most `size`.
fn chunks(n: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n)
        .step_by(size)
        .map(move |start| start..(start + size).min(n))
}
