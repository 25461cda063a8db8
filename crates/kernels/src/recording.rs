//! Steps that are recorded once and replayed.
//!
//! Launching a kernel anew costs the host more than a small model's kernel costs the GPU: looking up its pipeline, finding its buffers, making
//! a bind group. A recording has all of that done. On the CPU it spares what tensors cost between kernels: their shapes, their owners, memory for
//! each result. What changes from step to step, tokens, positions, block tables, lies in words that are written before each replay: see
//! [`Step::reserve`](crate::Step::reserve).

use burn::backend::ExecutionError;
use burn::tensor::{Device, Tensor};

use crate::device::{Graph, Recorder, Tape};
use crate::step::StepBuffer;
use crate::{KvCache, ReservedStep, Step, StepRow};

/// The operations of one step, ready to run again.
#[derive(Debug)]
pub struct Recording {
    launches: Launches,
    words: StepBuffer,
}

#[derive(Debug)]
enum Launches {
    /// On a GPU: over the same buffers.
    Graph {
        graph: Graph,
        /// Where each replay leaves its result. Held so that nothing else is given its memory.
        result: Box<Tensor<2>>,
    },
    /// On the CPU: over buffers of its own, and caches that it is given.
    Tape(Tape),
}

/// What became of a step that was to be recorded.
#[derive(Debug)]
pub enum Recorded {
    /// On a GPU it is ready to be replayed.
    Ready(Recording),
    /// On the CPU it has run, with this result. It was not recorded if it was more than a chain of the operations on steps that this crate has.
    Run(Box<Tensor<2>>, Option<Recording>),
}

impl Recording {
    /// Runs a step that was reserved and records it.
    ///
    /// `run` must launch the same each time, read nothing back and write nothing from the host. It is called twice on a GPU, once on the CPU.
    ///
    /// # Errors
    /// The device is lost, or failed at a launch. Nothing is recorded then.
    pub fn record(
        device: &Device,
        ReservedStep { step, buffer }: ReservedStep,
        caches: &mut [KvCache],
        mut run: impl FnMut(&Step, &mut [KvCache]) -> Tensor<2>,
    ) -> Result<Recorded, ExecutionError> {
        let Some(recorder) = Recorder::on_gpu(device) else {
            let (result, tape) = Tape::record(&step, caches, run);
            let recording = tape.map(|tape| Self {
                launches: Launches::Tape(tape),
                words: buffer,
            });
            return Ok(Recorded::Run(Box::new(result), recording));
        };
        recorder.prepare()?;
        // Takes the memory that the recorded run will take again, since none may be allocated while recording.
        drop(run(&step, caches));
        recorder.start()?;
        let result = Box::new(run(&step, caches));
        let graph = recorder.stop()?;
        Ok(Recorded::Ready(Self {
            launches: Launches::Graph { graph, result },
            words: buffer,
        }))
    }

    /// Puts the rows and tables of the next replay in place.
    ///
    /// # Panics
    /// There are more or fewer rows than were reserved or, on a GPU, more chunks of a context or more words of tables.
    pub fn write(&mut self, rows: &[StepRow], tables: &[u32]) {
        self.words.write(rows, tables);
    }

    /// The same on a GPU, but for the tokens, which stay as [`Step::take_tokens`] has put them.
    ///
    /// # Panics
    /// As [`write`](Self::write), and on the CPU.
    pub fn write_around_tokens(&mut self, rows: &[StepRow], tables: &[u32]) {
        self.words.write_around_tokens(rows, tables);
    }

    /// Runs the recorded operations once more. On a GPU the result is overwritten by the next replay, so it is to be read before.
    ///
    /// `caches` are those of the layers that the step was recorded over. The CPU reads and writes the buffers that they have by now, a GPU those of then.
    ///
    /// # Errors
    /// The device is lost.
    ///
    /// # Panics
    /// On the CPU, if there are more or fewer caches, or kernels find that the numbers of the step do not fit. The recording is of no use after that.
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
