//! Steps that are recorded once and replayed.
//!
//! Launching a kernel anew costs the host more than a small model's kernel costs the GPU: looking up its pipeline, finding its buffers, making
//! a bind group. A recording has all of that done. On the CPU it spares what tensors cost around kernels: their shapes, their owners, memory for each
//! result. What changes from step to step, tokens, positions, block tables, lies in words that
//! are written before each replay: see [`Step::reserve`](crate::Step::reserve).

use burn::backend::ExecutionError;
use burn::tensor::{Device, Tensor};

use crate::device::{Graph, Recorder, Tape};
use crate::{KvCache, Step, StepBuffer, StepRow};

/// The operations of one step, ready to run again over the same buffers.
#[derive(Debug)]
pub struct Recording {
    launches: Launches,
    words: StepBuffer,
}

#[derive(Debug)]
enum Launches {
    /// On a GPU.
    Graph {
        graph: Graph,
        /// Where each replay leaves its result. Held so that nothing else is given its memory.
        result: Box<Tensor<2>>,
    },
    /// On the CPU.
    Tape(Tape),
}

impl Recording {
    /// Runs a step that was reserved and records it. The CPU gives its result; on a GPU a replay is to follow.
    ///
    /// `run` must launch the same each time, read nothing back and write nothing from the host. It is called twice on a GPU. On the CPU all its operations
    /// are of this crate; for others nothing is recorded.
    ///
    /// # Errors
    /// The device is lost, or failed at a launch. Nothing is recorded then.
    pub fn new(
        device: &Device,
        (step, words): (Step, StepBuffer),
        caches: &mut [KvCache],
        mut run: impl FnMut(&Step, &mut [KvCache]) -> Tensor<2>,
    ) -> Result<(Option<Self>, Option<Tensor<2>>), ExecutionError> {
        let Some(recorder) = Recorder::on_gpu(device) else {
            let (result, tape) = Tape::record(&step, caches, run);
            let recording = tape.map(|tape| Self {
                launches: Launches::Tape(tape),
                words,
            });
            return Ok((recording, Some(result)));
        };
        recorder.prepare()?;
        // Takes the memory that the recorded run will take again, since none may be allocated while recording.
        drop(run(&step, caches));
        recorder.start()?;
        let result = run(&step, caches);
        let graph = recorder.stop()?;
        let recording = Self {
            launches: Launches::Graph {
                graph,
                result: Box::new(result),
            },
            words,
        };
        Ok((Some(recording), None))
    }

    /// Puts the rows and tables of the next replay in place.
    ///
    /// # Panics
    /// There are more or fewer rows than were reserved, more chunks of a context, or more words of tables.
    pub fn write(&mut self, rows: &[StepRow], tables: &[u32]) {
        self.words.write(rows, tables);
    }

    /// The same but for the tokens, which stay as [`Step::take_tokens`] has put them.
    ///
    /// # Panics
    /// As [`write`](Self::write).
    pub fn write_around_tokens(&mut self, rows: &[StepRow], tables: &[u32]) {
        self.words.write_around_tokens(rows, tables);
    }

    /// Runs the recorded operations once more. On a GPU the result is overwritten by the next replay, so it is to be read before.
    ///
    /// # Errors
    /// The device is lost.
    ///
    /// # Safety
    /// On a GPU, every buffer that the step read or wrote, but those of its own making, is still alive and at its place.
    pub unsafe fn replay(&mut self, caches: &mut [KvCache]) -> Result<Tensor<2>, ExecutionError> {
        match &mut self.launches {
            Launches::Graph { graph, result } => {
                // SAFETY: the caller vouches for buffers that the step was given; those that it made are kept by the graph and by `result`. All
                // runs on the one stream of this thread, in order.
                unsafe { graph.replay() }?;
                Ok(Tensor::clone(result))
            }
            Launches::Tape(tape) => Ok(tape.replay(self.words.on_host(), caches)),
        }
    }
}
