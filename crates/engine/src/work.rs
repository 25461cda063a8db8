//! What steps cost the device.

use serde::{Deserialize, Serialize};

/// What a GPU was given to do.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceWork {
    /// Kernels that were launched.
    pub dispatches: u64,
    /// Submissions of recorded commands.
    pub submits: u64,
    /// Buffers that were mapped to be read.
    pub readbacks: u64,
    /// Bytes that were copied to where they can be read.
    pub readback_bytes: u64,
    /// Distinct bytes of the buffer ranges that were bound, step by step: the least that memory has to move.
    pub bound_bytes: u64,
    /// Buffers, bind groups, pipelines and shader modules that were created.
    pub created_objects: u64,
}

impl DeviceWork {
    fn add(&mut self, more: Self) {
        self.dispatches += more.dispatches;
        self.submits += more.submits;
        self.readbacks += more.readbacks;
        self.readback_bytes += more.readback_bytes;
        self.bound_bytes += more.bound_bytes;
        self.created_objects += more.created_objects;
    }
}

/// Steps of one kind.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize)]
pub struct StepStats {
    /// Steps that were run.
    #[serde(rename = "steps")]
    pub n_steps: u64,
    /// Tokens that were fed in them.
    #[serde(rename = "tokens")]
    pub n_tokens: u64,
    /// What they cost together.
    pub total: DeviceWork,
    /// What the last of them cost, of those that cost anything: a step that is begun while the one before it runs counts there.
    pub last: DeviceWork,
}

/// What a model's steps cost its device. All zero where that is the CPU.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct WorkStats {
    /// Steps of one token for each choice.
    pub decode: StepStats,
    /// Steps with pieces of prompts.
    pub prefill: StepStats,
}

impl WorkStats {
    /// Counts a step of `n_tokens`.
    pub(crate) fn count(&mut self, is_decode: bool, n_tokens: usize, work: DeviceWork) {
        let stats = match is_decode {
            true => &mut self.decode,
            false => &mut self.prefill,
        };
        stats.n_steps += 1;
        stats.n_tokens += n_tokens as u64;
        stats.total.add(work);
        if work != DeviceWork::default() {
            stats.last = work;
        }
    }
}
