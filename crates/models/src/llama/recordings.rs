//! Decoding steps that run again and again with other numbers: recorded once on a GPU, then replayed.

use std::collections::VecDeque;

use burn::tensor::{Device, Tensor};
use cinderlm_kernels::{Recording, Step, StepBuffer};

use crate::ModelError;
use crate::kv::StepPlan;

/// Most rows of a step that is recorded: each recording keeps memory for all that its step computes.
const MAX_ROWS: usize = 16;
/// Most recordings that are kept, of steps with different numbers of rows.
const MAX_KEPT: usize = 4;

/// The recorded steps of a model.
#[derive(Debug, Default)]
pub(super) struct Recordings {
    /// Used last at the end.
    kept: VecDeque<Recorded>,
    /// Rows of the step before, if it was one that could have been recorded.
    n_rows_before: usize,
    /// Recording failed; the device may do without.
    has_failed: bool,
}

#[derive(Debug)]
struct Recorded {
    n_rows: usize,
    buffer: StepBuffer,
    logits: Recording<2>,
}

impl Recordings {
    /// Runs a step whose rows all want logits as a replay, recording it first if there was one like it just before. `None` if it is to be
    /// run by other means.
    ///
    /// `run` launches a step and gives its logits; all its buffers but the step's stay in place until [`clear`](Self::clear).
    pub(super) fn run(
        &mut self,
        plan: &StepPlan,
        max_table: usize,
        device: &Device,
        run: impl FnMut(&Step) -> Tensor<2>,
    ) -> Result<Option<Tensor<2>>, ModelError> {
        let n_rows = plan.rows.len();
        let is_repeated = std::mem::replace(&mut self.n_rows_before, n_rows) == n_rows;
        if n_rows > MAX_ROWS || !plan.wants_all() {
            self.n_rows_before = 0;
            return Ok(None);
        }
        let known = self.kept.iter().position(|kept| kept.n_rows == n_rows);
        let recorded = match known.and_then(|index| self.kept.remove(index)) {
            Some(mut recorded) => {
                recorded.buffer.write(&plan.rows, &plan.tables);
                recorded
            }
            None if is_repeated && !self.has_failed => {
                let recorded = Recorded::new(plan, max_table, device, run)?;
                self.has_failed = recorded.is_none();
                let Some(recorded) = recorded else {
                    return Ok(None);
                };
                recorded
            }
            None => return Ok(None),
        };
        if self.kept.len() == MAX_KEPT {
            self.kept.pop_front();
        }
        // SAFETY: weights live as long as the model does, which clears its recordings when the caches get other buffers; the step's buffer
        // and the result are the recording's own.
        let logits = unsafe { recorded.logits.replay() }?;
        self.kept.push_back(recorded);
        Ok(Some(logits))
    }

    /// Drops all recordings, and with them what they hold of the device's memory. Returns whether there were any.
    pub(super) fn clear(&mut self) -> bool {
        let had_any = !self.kept.is_empty();
        self.kept.clear();
        had_any
    }
}

impl Recorded {
    /// `None` where the device is no GPU, or did not record the step.
    fn new(
        plan: &StepPlan,
        max_table: usize,
        device: &Device,
        mut run: impl FnMut(&Step) -> Tensor<2>,
    ) -> Result<Option<Self>, ModelError> {
        let n_rows = plan.rows.len();
        let Some((step, mut buffer)) = Step::reserve(n_rows, n_rows * max_table, device)? else {
            return Ok(None);
        };
        buffer.write(&plan.rows, &plan.tables);
        // A failure here is one of recording, or one of the device that the step itself will meet as well, and report.
        let logits = Recording::new(device, || run(&step)).ok().flatten();
        Ok(logits.map(|logits| Self {
            n_rows,
            buffer,
            logits,
        }))
    }
}
