//! A host that does what a test says.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::channel::oneshot;

use crate::{DeviceWork, Runtime};

thread_local! {
    /// Tasks of this thread's event loop.
    static EVENT_LOOP: RefCell<VecDeque<oneshot::Sender<()>>> = const { RefCell::new(VecDeque::new()) };
}

/// Runs the tasks that the event loop of this thread has now, those of every [`ScriptedRuntime`]. Returns whether there were any.
pub fn run_host() -> bool {
    let tasks = EVENT_LOOP.take();
    let n_tasks = tasks.len();
    for task in tasks {
        // Whoever waited for it may be gone.
        let _ = task.send(());
    }
    n_tasks > 0
}

/// Runs a future as a browser does: what is awake first, and only then the next tasks of the event loop.
///
/// # Panics
/// The future waits for something that never comes.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Flag(AtomicBool);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut future = pin!(future);
    loop {
        if !flag.0.swap(false, Ordering::Relaxed) {
            assert!(run_host(), "nothing will ever wake this future");
        } else if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
    }
}

/// A clock that moves one millisecond each time it is read, seeds that count up from 1, and a count of the times that the engine let
/// the host run. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ScriptedRuntime(Rc<RuntimeState>);

#[derive(Debug, Default)]
struct RuntimeState {
    n_clock_reads: Cell<u32>,
    n_seeds: Cell<u64>,
    n_yields: Cell<usize>,
    n_work_taken: Cell<u64>,
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
        let (task, turn) = oneshot::channel();
        EVENT_LOOP.with_borrow_mut(|tasks| tasks.push_back(task));
        // The event loop of a thread that ends drops its tasks.
        let _ = turn.await;
    }

    /// One dispatch more each time.
    fn take_work(&self) -> DeviceWork {
        let dispatches = self.0.n_work_taken.get() + 1;
        self.0.n_work_taken.set(dispatches);
        DeviceWork {
            dispatches,
            ..DeviceWork::default()
        }
    }
}
