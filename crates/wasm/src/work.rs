//! What steps cost the GPU, as JavaScript tells it and is told.

use cinderlm_engine::{DeviceWork, StepStats};
use serde::{Deserialize, Serialize};

/// See [`DeviceWork`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Work {
    dispatches: u64,
    submits: u64,
    readbacks: u64,
    readback_bytes: u64,
    bound_bytes: u64,
    created_objects: u64,
}

/// Steps of one kind.
#[derive(Serialize)]
pub(crate) struct StepReport {
    steps: u64,
    tokens: u64,
    total: Work,
    last: Work,
}

impl From<StepStats> for StepReport {
    fn from(stats: StepStats) -> Self {
        Self {
            steps: stats.n_steps,
            tokens: stats.n_tokens,
            total: stats.total.into(),
            last: stats.last.into(),
        }
    }
}

impl From<DeviceWork> for Work {
    fn from(work: DeviceWork) -> Self {
        let DeviceWork {
            dispatches,
            submits,
            readbacks,
            readback_bytes,
            bound_bytes,
            created_objects,
        } = work;
        Self {
            dispatches,
            submits,
            readbacks,
            readback_bytes,
            bound_bytes,
            created_objects,
        }
    }
}

impl From<Work> for DeviceWork {
    fn from(told: Work) -> Self {
        let Work {
            dispatches,
            submits,
            readbacks,
            readback_bytes,
            bound_bytes,
            created_objects,
        } = told;
        Self {
            dispatches,
            submits,
            readbacks,
            readback_bytes,
            bound_bytes,
            created_objects,
        }
    }
}
