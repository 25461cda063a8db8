//! Decoding steps that run again and again with other numbers: recorded once on a GPU, then replayed.

use std::collections::VecDeque;

use burn::tensor::{Device, Tensor};
use cinderlm_kernels::{DrawBuffer, DrawKind, Profile, Recording, Step, StepBuffer, n_chunks};

use crate::kv::StepPlan;
use crate::{Draw, ModelError};

/// Most rows of a step that is recorded: each recording keeps memory for all that its step computes.
pub(super) const MAX_ROWS: usize = 16;
/// Most recordings that are kept, of steps of different kinds.
const MAX_KEPT: usize = 4;

/// The recorded steps of a model.
#[derive(Debug, Default)]
pub(super) struct Recordings {
    /// Used last at the end.
    kept: VecDeque<Recorded>,
    /// What the step before was.
    before: Option<Kind>,
    /// Recording failed, as it may for a passing reason; it is tried again over other buffers.
    has_failed: bool,
}

/// What a recording serves for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Kind {
    n_rows: usize,
    /// Chunks that attention has room for.
    n_chunks: usize,
    draws: Option<DrawKind>,
}

#[derive(Debug)]
struct Recorded {
    kind: Kind,
    step: StepBuffer,
    draw: Option<DrawBuffer>,
    result: Recording<2>,
}

/// A step as recordings see it.
#[derive(Clone, Copy)]
pub(super) struct Recordable<'a> {
    /// Every row wants logits, or has a draw.
    pub(super) plan: &'a StepPlan,
    /// One for each row.
    pub(super) draws: Option<&'a [Draw]>,
    /// Block ids that a row's table can have.
    pub(super) max_table: usize,
    pub(super) device: &'a Device,
    pub(super) profile: Profile,
}

impl Recordings {
    /// Runs a step as a replay and gives its logits or what was drawn; records it first if the one before was like it. `None` if it is to be
    /// run by other means.
    ///
    /// `run` launches a step and gives its logits; all its buffers but the step's stay in place until [`clear`](Self::clear).
    pub(super) fn run(
        &mut self,
        step: Recordable<'_>,
        run: impl FnMut(&Step) -> Tensor<2>,
    ) -> Result<Option<Tensor<2>>, ModelError> {
        let kind = step.kind();
        let is_repeated = self.before.replace(kind) == Some(kind);
        if kind.n_rows > MAX_ROWS || !step.plan.wants_all() {
            return Ok(None);
        }
        let known = self.kept.iter().position(|kept| kept.kind == kind);
        let recorded = match known.and_then(|index| self.kept.remove(index)) {
            Some(recorded) => recorded,
            None if is_repeated && !self.has_failed => {
                let recorded = Recorded::new(step, run)?;
                self.has_failed = recorded.is_none();
                let Some(recorded) = recorded else {
                    return Ok(None);
                };
                recorded
            }
            None => return Ok(None),
        };
        // After recording, too, whose own run has put other tokens there.
        write(&recorded.step, recorded.draw.as_ref(), step);
        if self.kept.len() == MAX_KEPT {
            self.kept.pop_front();
        }
        // SAFETY: weights live as long as the model does, which clears its recordings when the caches get other buffers; the step's buffer,
        // the draw's and the result are the recording's own.
        let result = unsafe { recorded.result.replay() }?;
        self.kept.push_back(recorded);
        Ok(Some(result))
    }

    /// Replays the recording that was used last for the step after it, each row of which has the token that was drawn for it there. `None` if the recording does
    /// not serve for that one.
    pub(super) fn run_after(&mut self, step: Recordable<'_>) -> Option<Tensor<2>> {
        let recorded = self.kept.back()?;
        if recorded.kind != step.kind() || self.before != Some(recorded.kind) {
            return None;
        }
        (recorded.step).write_around_tokens(&step.plan.rows, &step.plan.tables);
        write_draws(recorded.draw.as_ref(), step);
        // SAFETY: as in `run`. Where the device fails the step before, which is not read yet, fails as well, and reports it.
        unsafe { recorded.result.replay() }.ok()
    }

    /// Drops all recordings, and with them what they hold of the device's memory.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.has_failed = false;
    }
}

impl Recordable<'_> {
    fn kind(&self) -> Kind {
        Kind {
            n_rows: self.plan.rows.len(),
            n_chunks: n_chunks(&self.plan.rows),
            draws: self.draws.map(|draws| DrawKind::of(draws.iter())),
        }
    }
}

impl Recorded {
    /// `None` where the device is no GPU, or did not record the step.
    fn new(
        step: Recordable<'_>,
        mut run: impl FnMut(&Step) -> Tensor<2>,
    ) -> Result<Option<Self>, ModelError> {
        let (kind, device) = (step.kind(), step.device);
        let n_table_words = kind.n_rows * step.max_table;
        let Some((words, buffer)) =
            Step::reserve(kind.n_rows, kind.n_chunks, n_table_words, device)?
        else {
            return Ok(None);
        };
        let draw = match kind.draws {
            Some(_) => DrawBuffer::new(kind.n_rows, device)?,
            None => None,
        };
        let launches = || {
            let logits = run(&words);
            match (&draw, kind.draws) {
                (Some(draw), Some(draws)) => {
                    let drawn = draw.draw(logits, draws, step.profile);
                    words.take_tokens(&drawn);
                    drawn
                }
                _ => logits,
            }
        };
        // What the first run reads is written here; a failure is one of recording, or one of the device that the step itself will meet as
        // well, and report.
        write(&buffer, draw.as_ref(), step);
        let result = Recording::new(device, launches).ok().flatten();
        Ok(result.map(|result| Self {
            kind,
            step: buffer,
            draw,
            result,
        }))
    }
}

/// Puts a step's numbers where its recording reads them.
fn write(buffer: &StepBuffer, draw: Option<&DrawBuffer>, step: Recordable<'_>) {
    buffer.write(&step.plan.rows, &step.plan.tables);
    write_draws(draw, step);
}

fn write_draws(draw: Option<&DrawBuffer>, step: Recordable<'_>) {
    if let (Some(draw), Some(draws)) = (draw, step.draws) {
        draw.write(draws.iter());
    }
}
