//! The seam between generation and the network: what an engine may ask of a language model.
//!
//! Nothing here knows tensors or devices, so an engine can be tested on a scripted model.

pub use cinderlm_kernels::{DrawRow as Draw, Drawn};

use crate::ModelError;

/// Names one sequence of a model: a growing run of tokens with its own keys and values.
///
/// Ids are never reused within one model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SequenceId(pub u64);

/// Which positions of a [`Feed`] want logits. Only those rows go through the output layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LogitsFor {
    /// No row: the tokens only extend the sequence.
    None,
    /// The last token's row.
    Last,
    /// Every token's row.
    All,
}

impl LogitsFor {
    /// Number of logits rows a feed of `n_tokens` yields.
    pub fn n_rows(self, n_tokens: usize) -> usize {
        match self {
            Self::None => 0,
            Self::Last => n_tokens.min(1),
            Self::All => n_tokens,
        }
    }
}

/// Tokens to append to one sequence in one forward step.
#[derive(Clone, Copy, Debug)]
pub struct Feed<'a> {
    /// The sequence that grows.
    pub sequence: SequenceId,
    /// Token ids, each below the vocabulary size. Empty feeds are allowed and yield no rows.
    pub tokens: &'a [u32],
    /// The rows whose logits are wanted.
    pub logits: LogitsFor,
}

/// A causal language model holding any number of sequences.
///
/// Everything runs on one thread; futures are not `Send`.
pub trait CausalLm {
    /// Number of token ids, and the length of one logits row.
    fn vocab_size(&self) -> usize;

    /// The most tokens one sequence may hold.
    fn context_length(&self) -> usize;

    /// The most tokens one call of [`forward`](Self::forward) takes, over all feeds.
    fn max_step_tokens(&self) -> usize;

    /// Tokens that key-value memory is taken for at a time, at least 1: a sequence's last piece may be partly empty.
    fn kv_granularity(&self) -> usize {
        1
    }

    /// Starts a new, empty sequence. It costs no key-value memory until it is fed.
    fn open(&mut self) -> SequenceId;

    /// Starts a sequence with the same contents as `from`. The two share no mutable state; memory is shared until one of them
    /// writes to it.
    ///
    /// # Errors
    /// [`ModelError::UnknownSequence`].
    fn fork(&mut self, from: SequenceId) -> Result<SequenceId, ModelError> {
        self.fork_at(from, usize::MAX)
    }

    /// Starts a sequence with the first `n_tokens` of `from`, or all of them if there are fewer; otherwise as [`fork`](Self::fork).
    ///
    /// # Errors
    /// [`ModelError::UnknownSequence`].
    fn fork_at(&mut self, from: SequenceId, n_tokens: usize) -> Result<SequenceId, ModelError>;

    /// Ends a sequence and frees its key-value memory for others at once. Unknown ids are ignored, so closing twice is harmless.
    fn close(&mut self, sequence: SequenceId);

    /// Tokens fed to the sequence so far; 0 for an unknown id.
    fn len(&self, sequence: SequenceId) -> usize;

    /// Whether the sequence holds no tokens.
    fn is_empty(&self, sequence: SequenceId) -> bool {
        self.len(sequence) == 0
    }

    /// Bytes of key-value memory that sequences hold at present. Falls to 0 when the last sequence is closed.
    fn kv_bytes(&self) -> u64;

    /// Appends each feed's tokens to its sequence and returns the wanted logits: rows of `vocab_size` values, in feed order and
    /// in token order within a feed, concatenated.
    ///
    /// All rows of a step lie in memory at once, so ask for [`LogitsFor::All`] in small steps where the vocabulary is large.
    ///
    /// A call that fails, or whose future is dropped, leaves every sequence as long as it was.
    ///
    /// # Errors
    /// [`ModelError::UnknownSequence`], [`ModelError::SequenceFedTwice`], [`ModelError::TokenOutOfRange`],
    /// [`ModelError::ContextExceeded`], [`ModelError::TooManyRows`], [`ModelError::OutOfMemory`] and
    /// [`ModelError::DeviceLost`]. After the last of these the model is of no more use.
    #[allow(
        async_fn_in_trait,
        reason = "everything runs on one thread of a worker: no caller needs Send"
    )]
    async fn forward(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<f32>, ModelError>;

    /// As [`forward`](Self::forward), but draws next tokens where the logits are, and returns these: one for each feed that asks for its last row, by the
    /// draws in their order. The other feeds ask for no rows.
    ///
    /// `after` tells how the tokens after those will be drawn, where that is known: one for each draw, if every feed is a single token. The model may begin with
    /// that step before this one's tokens are here. It must not show: a step that nobody asks for is as if it had not been.
    ///
    /// `None` if the model does not draw, or not these; nothing has happened then. A draw whose uniform number is within rounding of the border
    /// of two tokens may fall on the other one than with the logits at hand.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    #[allow(
        async_fn_in_trait,
        reason = "everything runs on one thread of a worker: no caller needs Send"
    )]
    async fn forward_drawn(
        &mut self,
        feeds: &[Feed<'_>],
        draws: &[Draw],
        after: Option<&[Draw]>,
    ) -> Result<Option<Vec<Drawn>>, ModelError> {
        let _ = (feeds, draws, after);
        Ok(None)
    }
}
