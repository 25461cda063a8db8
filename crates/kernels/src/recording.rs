//! Steps that are recorded once and replayed.
//!
//! Launching a kernel anew costs the host more than a small model's kernel costs the GPU: looking up its pipeline, finding its buffers, making
//! a bind group. A recording has all of that done. What changes from step to step, tokens, positions, block tables, must lie in buffers that
//! are written before each replay: see [`Step::reserve`](crate::Step::reserve).

use burn::backend::ExecutionError;
use burn::tensor::{Device, Tensor};

use crate::device::{Graph, Recorder};

/// The launches of one step on a GPU, ready to run again over the same buffers.
#[derive(Debug)]
pub struct Recording<const D: usize> {
    graph: Graph,
    /// Where each replay leaves its result. Held so that nothing else is given its memory.
    result: Tensor<D>,
}

impl<const D: usize> Recording<D> {
    /// Runs `step` and records it; `None` where the device is no GPU and nothing was run.
    ///
    /// `step` is called twice and must launch the same each time, read nothing back and write nothing from the host.
    ///
    /// # Errors
    /// The device is lost, or failed at a launch. Nothing is recorded then.
    pub fn new(
        device: &Device,
        mut step: impl FnMut() -> Tensor<D>,
    ) -> Result<Option<Self>, ExecutionError> {
        let Some(recorder) = Recorder::on_gpu(device) else {
            return Ok(None);
        };
        recorder.prepare()?;
        // Takes the memory that the recorded run will take again, since none may be allocated while recording.
        drop(step());
        recorder.start()?;
        let result = step();
        let graph = recorder.stop()?;
        Ok(Some(Self { graph, result }))
    }

    /// Runs the recorded launches once more. The result is overwritten by the next replay, so it is to be read before.
    ///
    /// # Errors
    /// The device is lost.
    ///
    /// # Safety
    /// Every buffer that the step read or wrote, but those of its own making, is still alive and at its place.
    pub unsafe fn replay(&self) -> Result<Tensor<D>, ExecutionError> {
        // SAFETY: the caller vouches for buffers that the step was given; those that it made are kept by the graph and by `result`. All runs
        // on the one stream of this thread, in order.
        unsafe { self.graph.replay() }?;
        Ok(self.result.clone())
    }
}
