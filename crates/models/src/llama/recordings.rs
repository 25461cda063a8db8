//! Decoding steps that run again and again with other numbers: recorded once, then replayed.

use std::collections::VecDeque;

use burn::tensor::{Device, Tensor};
use cinderlm_kernels::{
    DrawBuffer, DrawKind, KvCache, Profile, Recorded, Recording, Step, n_chunks,
};

use crate::kv::StepPlan;
use crate::{Draw, ModelError};

/// Most rows of a step that is recorded: each recording keeps memory for what its step computes, on a GPU for all of it.
pub(super) const MAX_ROWS: usize = 16;
/// Most recordings that are kept, of steps of different kinds.
const MAX_KEPT: usize = 4;

/// The recorded steps of a model.
#[derive(Debug, Default)]
pub(super) struct Recordings {
    /// Used last at the end.
    kept: VecDeque<Kept>,
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
struct Kept {
    kind: Kind,
    draw: Option<DrawBuffer>,
    recording: Recording,
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
    /// `run` launches a step over caches, which are the same each time, and gives its logits; all its buffers but the step's stay in place until
    /// [`clear`](Self::clear).
    pub(super) fn run(
        &mut self,
        step: Recordable<'_>,
        caches: &mut [KvCache],
        run: impl FnMut(&Step, &mut [KvCache]) -> Tensor<2>,
    ) -> Result<Option<Tensor<2>>, ModelError> {
        let kind = step.kind();
        let is_repeated = self.before.replace(kind) == Some(kind);
        if kind.n_rows > MAX_ROWS || !step.plan.wants_all() {
            return Ok(None);
        }
        let known = self.kept.iter().position(|kept| kept.kind == kind);
        let mut kept = match known.and_then(|index| self.kept.remove(index)) {
            Some(kept) => kept,
            None if !is_repeated || self.has_failed => return Ok(None),
            None => {
                let (kept, result) = Kept::record(step, caches, run)?;
                self.has_failed = kept.is_none();
                match (kept, result) {
                    (Some(kept), None) => kept,
                    (kept, result) => {
                        if let Some(kept) = kept {
                            self.keep(kept);
                        }
                        return Ok(result);
                    }
                }
            }
        };
        // After recording, too, whose own run has put other tokens there.
        kept.write(step);
        // SAFETY: weights live as long as the model does, which clears its recordings when the caches get other buffers; the step's words, the
        // draw's and the result are the recording's own.
        let result = unsafe { kept.recording.replay(caches) }?;
        self.keep(kept);
        Ok(Some(result))
    }

    fn keep(&mut self, kept: Kept) {
        if self.kept.len() == MAX_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(kept);
    }

    /// Replays the recording that was used last for the step after it, each row of which has the token that was drawn for it there. `None` if the recording does
    /// not serve for that one.
    pub(super) fn run_after(
        &mut self,
        step: Recordable<'_>,
        caches: &mut [KvCache],
    ) -> Option<Tensor<2>> {
        let kept = self.kept.back_mut()?;
        if kept.kind != step.kind() || self.before != Some(kept.kind) {
            return None;
        }
        (kept.recording).write_around_tokens(&step.plan.rows, &step.plan.tables);
        write_draws(kept.draw.as_ref(), step);
        // SAFETY: as in `run`. Where the device fails the step before, which is not read yet, fails as well, and reports it.
        unsafe { kept.recording.replay(caches) }.ok()
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
            n_chunks: n_chunks(&self.plan.rows, self.device),
            draws: self.draws.map(|draws| DrawKind::of(draws.iter())),
        }
    }
}

impl Kept {
    /// Records a step. The CPU gives its result besides, and that of one that it cannot record.
    fn record(
        step: Recordable<'_>,
        caches: &mut [KvCache],
        mut run: impl FnMut(&Step, &mut [KvCache]) -> Tensor<2>,
    ) -> Result<(Option<Self>, Option<Tensor<2>>), ModelError> {
        let (kind, plan, device) = (step.kind(), step.plan, step.device);
        let n_table_words = kind.n_rows * step.max_table;
        let reserved = Step::reserve(&plan.rows, &plan.tables, n_table_words, device)?;
        let draw = match kind.draws {
            Some(_) => DrawBuffer::new(kind.n_rows, device)?,
            None => None,
        };
        let launches = |words: &Step, caches: &mut [KvCache]| {
            let logits = run(words, caches);
            match (&draw, kind.draws) {
                (Some(draw), Some(draws)) => {
                    let drawn = draw.draw(logits, draws, step.profile);
                    words.take_tokens(&drawn);
                    drawn
                }
                _ => logits,
            }
        };
        // With the step's own words, what the first run reads.
        write_draws(draw.as_ref(), step);
        let (recording, result) = match Recording::record(device, reserved, caches, launches) {
            Ok(Recorded::Ready(recording)) => (Some(recording), None),
            Ok(Recorded::Run(result, recording)) => (recording, Some(*result)),
            // A failure is one of recording, or one of the device that the step itself will meet as well, and report.
            Err(_) => (None, None),
        };
        let kept = recording.map(|recording| Self {
            kind,
            draw,
            recording,
        });
        Ok((kept, result))
    }

    /// Puts a step's numbers where its replay reads them.
    fn write(&mut self, step: Recordable<'_>) {
        self.recording.write(&step.plan.rows, &step.plan.tables);
        write_draws(self.draw.as_ref(), step);
    }
}

fn write_draws(draw: Option<&DrawBuffer>, step: Recordable<'_>) {
    if let (Some(draw), Some(draws)) = (draw, step.draws) {
        draw.write(draws.iter());
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, DeviceKind};
    use cinderlm_weights::MemorySource;
    use cinderlm_weights::gguf::GgufReader;
    use futures::executor::block_on;

    use super::*;
    use crate::{CausalLm as _, Feed, LoadOptions, LoadedModel, LogitsFor, load_model};

    /// A step that comes again is recorded, whatever the model has. Where it were not, it would give the same logits by other means.
    #[test]
    fn a_step_of_every_kind_of_model_is_recorded() {
        let devices = [
            (Device::flex(), Profile::cpu()),
            (
                Device::wgpu(DeviceKind::DefaultDevice),
                Profile::software(2),
            ),
        ];
        for name in ["llama-untied-biases", "qwen3-head-norms", "llama-k-quants"] {
            let path = format!("../../tests/golden/models/{name}.gguf");
            let file = std::fs::read(path).expect("a fixture");
            for (device, profile) in &devices {
                let load = async {
                    let mut reader = GgufReader::open(MemorySource::new(file.clone())).await?;
                    load_model(
                        &mut reader,
                        device,
                        *profile,
                        LoadOptions::default(),
                        &mut (),
                    )
                    .await
                };
                let LoadedModel::Llama(mut model) = block_on(load).expect("it loads");
                let sequence = model.open();
                let feed = Feed {
                    sequence,
                    tokens: &[1],
                    logits: LogitsFor::Last,
                };
                let plan = model.plan(&[feed]).expect("there is room");
                let mut recordings = Recordings::default();
                let step = Recordable {
                    plan: &plan,
                    draws: None,
                    max_table: plan.tables.len(),
                    device,
                    profile: *profile,
                };
                for n_kept in [0, 1, 1] {
                    let (network, caches) = (&model.network, model.kv.caches_mut());
                    let logits = recordings.run(step, caches, |words, caches| {
                        let hidden = network.forward(words, caches, *profile);
                        network.logits(hidden, *profile)
                    });
                    assert_eq!(logits.expect("it runs").is_some(), n_kept > 0, "{name}");
                    assert_eq!(recordings.kept.len(), n_kept, "{name} on {device:?}");
                }
            }
        }
    }
}
