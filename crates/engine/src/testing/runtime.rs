//! A host that does what a test says.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use crate::Runtime;

/// A clock that moves one millisecond each time it is read, seeds that count up from 1, and a count of the times that the engine let
/// the host run. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ScriptedRuntime(Rc<RuntimeState>);

#[derive(Debug, Default)]
struct RuntimeState {
    n_clock_reads: Cell<u32>,
    n_seeds: Cell<u64>,
    n_yields: Cell<usize>,
}

impl ScriptedRuntime {
    /// How often the engine let the host run.
    pub fn n_yields(&self) -> usize {
        self.0.n_yields.get()
    }
}

impl Runtime for ScriptedRuntime {
    fn now_millis(&self) -> f64 {
        let n_reads = self.0.n_clock_reads.get() + 1;
        self.0.n_clock_reads.set(n_reads);
        f64::from(n_reads)
    }

    fn unix_seconds(&self) -> u64 {
        1_800_000_000
    }

    fn random_seed(&self) -> u64 {
        let seed = self.0.n_seeds.get() + 1;
        self.0.n_seeds.set(seed);
        seed
    }

    async fn yield_now(&self) {
        self.0.n_yields.set(self.0.n_yields.get() + 1);
        let mut has_yielded = false;
        poll_fn(|context| {
            if has_yielded {
                return Poll::Ready(());
            }
            has_yielded = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}
