//! Kernel parameters by class of adapter, and what a calibration may try in their place.

use burn::tensor::Device;

use cinderlm_weights::packed::TILE_ROWS;
use serde::{Deserialize, Serialize};

use crate::device::max_units;

/// How kernels spread over the invocations of a GPU.
///
/// Adapters differ too much for one setting. A real GPU hides memory latency with many threads per row and has cheap barriers; a
/// software adapter (SwiftShader, lavapipe) runs a workgroup on one CPU core, four to eight invocations to a vector, and pays tens of
/// microseconds for a barrier, so there each result should be one invocation's own work.
///
/// Results depend on the profile in their last bits, since it decides the order of additions, and on nothing else: within a profile,
/// a row of a step gives the same values whatever other rows the step has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// Invocations that share one output of a linear layer, each adding up its part of the columns. More than 1 costs a barrier.
    pub linear_lanes: usize,
    /// Rows of activations for which one invocation uses each weight it has unpacked. Only prompts and batches gain.
    pub linear_rows: usize,
    /// Outputs of a linear layer that one invocation forms, 32 apart, for one reading of the activations; with one lane the most that it
    /// does. More than 1 leaves fewer invocations.
    pub linear_tiles: usize,
    /// Workgroups that a linear layer is to have before invocations of one lane form more than one output.
    pub linear_cubes: usize,
    /// Invocations that share one head of one row in attention, each walking its part of the positions. Fewer are used where their
    /// partial results would not fit the adapter's shared memory.
    pub attention_lanes: usize,
    /// Invocations that share the drawing of one row's token; more where a large vocabulary asks for it.
    pub draw_lanes: usize,
}

impl Profile {
    /// The CPU, which runs none of this: the kernels on slices have their own loops.
    pub const fn cpu() -> Self {
        Self {
            linear_lanes: 1,
            linear_rows: 1,
            linear_tiles: 1,
            linear_cubes: 1,
            attention_lanes: 1,
            draw_lanes: 64,
        }
    }

    /// Software adapters on a machine of `n_cores` cores: no barriers, and up to 8 rows by 48 outputs for one reading of the activations, which such an
    /// adapter gathers value by value at the cost of several products each. A workgroup for each core, so that the outputs of a single token
    /// are shared by no more invocations than run at a time.
    pub const fn software(n_cores: usize) -> Self {
        Self {
            linear_lanes: 1,
            linear_rows: 8,
            linear_tiles: 48,
            linear_cubes: if n_cores == 0 { 1 } else { n_cores },
            attention_lanes: 1,
            draw_lanes: 64,
        }
    }

    /// Real GPUs: workgroups of 8 lanes by 32 outputs, the 256 invocations that every WebGPU adapter allows, so that even a layer of
    /// 576 outputs keeps thousands of threads busy; 32 lanes per attention head for the same reason.
    pub const fn gpu() -> Self {
        Self {
            linear_lanes: 8,
            linear_rows: 8,
            linear_tiles: 1,
            linear_cubes: 1,
            attention_lanes: 32,
            draw_lanes: 256,
        }
    }

    /// Profiles that may be faster on an adapter of the class of this one, likeliest first. They differ from it in one part alone, so that parts can be
    /// chosen one after another.
    pub fn variants(self, part: ProfilePart) -> Vec<Self> {
        let is_serial = self.linear_lanes == 1;
        match part {
            _ if self == Self::cpu() => Vec::new(),
            ProfilePart::Products if is_serial => [16, 32]
                .map(|linear_tiles| Self {
                    linear_tiles,
                    ..self
                })
                .into(),
            ProfilePart::Products => [(16, 1), (4, 1), (8, 2), (4, 2)]
                .map(|(linear_lanes, linear_tiles)| Self {
                    linear_lanes,
                    linear_tiles,
                    ..self
                })
                .into(),
            ProfilePart::Attention if is_serial => Vec::new(),
            ProfilePart::Attention => [16, 64]
                .map(|attention_lanes| Self {
                    attention_lanes,
                    ..self
                })
                .into(),
            ProfilePart::Prompts if is_serial => vec![Self {
                linear_rows: 4,
                ..self
            }],
            ProfilePart::Prompts => [4, 16]
                .map(|linear_rows| Self {
                    linear_rows,
                    ..self
                })
                .into(),
        }
    }

    /// This profile and all that come of it when each part is replaced by one of its variants.
    pub fn family(self) -> Vec<Self> {
        let mut family = vec![self];
        for part in ProfilePart::ALL {
            let varied = family.iter().flat_map(|profile| profile.variants(part));
            family.extend(varied.collect::<Vec<_>>());
        }
        family
    }

    /// Whether workgroups are no larger than the device runs.
    pub fn fits(&self, device: &Device) -> bool {
        let linear = self.linear_lanes * TILE_ROWS;
        linear.max(self.draw_lanes) <= max_units(device)
    }
}

/// A part of a step, for whose speed some parameters of a profile count and no others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProfilePart {
    /// Products with a single row: `linear_lanes`, `linear_tiles`.
    Products,
    /// Attention over a long context: `attention_lanes`.
    Attention,
    /// Products with many rows: `linear_rows`.
    Prompts,
}

impl ProfilePart {
    /// All parts, in the order in which they are best chosen.
    pub const ALL: [Self; 3] = [Self::Products, Self::Attention, Self::Prompts];
}
