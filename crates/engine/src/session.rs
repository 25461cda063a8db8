//! One request's turn at the model.

use cinderlm_models::{CausalLm, Feed, LogitsFor, ModelError, SequenceId};

use crate::runtime::Runtime;
use crate::turns::Turn;

/// The model, for as long as one request has its turn, and the sequences that the request opened.
///
/// However the turn ends, by completion, by an error or by being dropped in the middle of a step, its sequences are closed.
pub(crate) struct ModelSession<'a, M: CausalLm, R> {
    model: Turn<'a, M>,
    runtime: &'a R,
    open: Vec<SequenceId>,
}

impl<'a, M: CausalLm, R: Runtime> ModelSession<'a, M, R> {
    pub(crate) fn new(model: Turn<'a, M>, runtime: &'a R) -> Self {
        Self {
            model,
            runtime,
            open: Vec::new(),
        }
    }

    /// Starts an empty sequence.
    pub(crate) fn open(&mut self) -> SequenceId {
        let sequence = self.model.open();
        self.open.push(sequence);
        sequence
    }

    /// Starts a sequence with the contents of another.
    pub(crate) fn fork(&mut self, from: SequenceId) -> Result<SequenceId, ModelError> {
        let sequence = self.model.fork(from)?;
        self.open.push(sequence);
        Ok(sequence)
    }

    /// Ends a sequence.
    pub(crate) fn close(&mut self, sequence: SequenceId) {
        self.open.retain(|open| *open != sequence);
        self.model.close(sequence);
    }

    /// The most tokens of one step.
    pub(crate) fn max_step_tokens(&self) -> usize {
        self.model.max_step_tokens()
    }

    /// Lets the host run, then appends `tokens` to a sequence. Returns the rows of logits that are asked for.
    pub(crate) async fn feed(
        &mut self,
        sequence: SequenceId,
        tokens: &[u32],
        logits: LogitsFor,
    ) -> Result<Vec<f32>, ModelError> {
        self.runtime.yield_now().await;
        let feed = Feed {
            sequence,
            tokens,
            logits,
        };
        self.model.forward(&[feed]).await
    }
}

impl<M: CausalLm, R> Drop for ModelSession<'_, M, R> {
    fn drop(&mut self) {
        for sequence in self.open.drain(..) {
            self.model.close(sequence);
        }
    }
}
