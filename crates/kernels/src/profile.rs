//! Kernel parameters by class of adapter.

/// How kernels spread over the invocations of a GPU.
///
/// Adapters differ too much for one setting. A real GPU hides memory latency with many threads per row and has cheap barriers; a
/// software adapter (SwiftShader, lavapipe) runs a workgroup on one CPU core, four to eight invocations to a vector, and pays tens of
/// microseconds for a barrier, so there each result should be one invocation's own work.
///
/// Results depend on the profile in their last bits, since it decides the order of additions, and on nothing else: within a profile,
/// a row of a step gives the same values whatever other rows the step has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
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

    /// Software adapters: no barriers, and up to 2 rows by 16 outputs for one reading of the activations, which such an adapter gathers value by
    /// value at the cost of several products each. More rows read prompts faster, and take more memory to compile. Six workgroups keep a few cores busy. Measured on SwiftShader, 2 cores: with one output each
    /// a prompt takes five times as long.
    pub const fn software() -> Self {
        Self {
            linear_lanes: 1,
            linear_rows: 2,
            linear_tiles: 16,
            linear_cubes: 6,
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
}
