//! The threads that share the work of one kernel: a fork-join pool.
//!
//! A job is a number of chunks and a function that does some neighbouring ones. Whoever calls [`Pool::run`] puts the job where the helpers see it,
//! takes chunks itself, and returns when all are done. Nothing is allocated and no lock is taken for a job.
//!
//! Each thread has a section of the chunks, neighbours of each other, so that it reads memory onwards and shares no line of the cache with another
//! for most of the time. It claims them from the first on, a quarter of what is left at a time: many at first, and single ones in the end, so that all
//! threads come to an end together. When its own are gone it claims those of others, from their last on: a slow core, or one that was woken late, takes fewer.
//!
//! Threads are not started here: natively tests do, and in a browser the package starts workers that call [`serve`]. Without helpers, or
//! while another job runs, a job is a plain loop.
//!
//! # Waiting
//! A step of a model is hundreds of jobs with a few microseconds between them. So a helper without work looks on for some twenty microseconds before
//! it goes to sleep, and the caller does so before it sleeps until the last chunk is done. Not for longer: awake between two tokens as well, helpers
//! gained nothing, and where another process had one of two cores, tokens took half as long again. Both sleep by parking their thread, which is a
//! futex in WebAssembly with atomics as it is natively.

use std::cell::Cell;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Thread};

/// Helpers that a pool takes at most.
const MAX_HELPERS: usize = 63;

/// How often a thread looks for a change before it goes to sleep.
const LOOKS: u32 = 20_000;

/// In [`Pool::unfinished`]: a thread failed at its chunk.
const FAILED: u32 = 1 << 31;

/// In [`Pool::unfinished`]: the caller sleeps, or is about to, until the last chunk is given back.
const IS_AWAITED: u32 = 1 << 30;

/// In [`Pool::unfinished`]: how many chunks are not given back yet.
const COUNT: u32 = IS_AWAITED - 1;

/// A thread claims one of so many of the chunks that are left at a time.
const CLAIMS: usize = 4;

/// The pool of this process or module.
static POOL: Pool = Pool::new();

thread_local! {
    /// Chunks that this thread has claimed and not given back.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// Threads that kernels run on: the caller's and those that [`serve`].
pub fn n_threads() -> usize {
    1 + POOL.n_helpers()
}

/// Makes the calling thread a helper, for good; returns only if there are too many already.
pub fn serve() {
    POOL.serve();
}

/// Says that this thread, a helper, has failed and will not go on, where a failure cannot be caught otherwise: in a WebAssembly instance that
/// trapped. The kernel that waits for it panics.
pub fn abandon() {
    POOL.abandon();
}

/// Runs `chunks` for ranges that are `0..n_chunks` together, on all threads of this process's pool.
pub(super) fn run(n_chunks: usize, chunks: &(dyn Fn(Range<usize>) + Sync)) {
    POOL.run(n_chunks, chunks);
}

/// A number of threads and the job that they have in hand.
struct Pool {
    helpers: [OnceLock<Thread>; MAX_HELPERS],
    n_helpers: AtomicUsize,
    /// Whether a caller has the pool.
    is_taken: AtomicBool,
    /// The job of that caller, on its stack.
    job: AtomicPtr<Job<'static>>,
    /// How many jobs there have been: what helpers without work look at.
    n_jobs: OwnLine<AtomicU32>,
    /// [`COUNT`], [`FAILED`] and [`IS_AWAITED`].
    unfinished: OwnLine<AtomicU32>,
    /// The caller's, then the helpers'.
    sections: [OwnLine<Section>; MAX_HELPERS + 1],
}

/// What a caller wants done.
struct Job<'a> {
    chunks: &'a (dyn Fn(Range<usize>) + Sync),
    caller: Thread,
}

/// What has no neighbour in its line of the cache, nor in the one that is fetched with it.
#[repr(align(128))]
struct OwnLine<T>(T);

/// Neighbouring chunks that nobody has claimed: the first in the lower half, the end in the upper.
struct Section(AtomicU64);

impl Section {
    /// Offers chunks, and with them all that was written before.
    fn offer(&self, chunks: Range<usize>) {
        self.0.store(bounds_of(&chunks), Ordering::Release);
    }

    /// Claims some of what is left: the first ones, or for thieves the last.
    fn claim(&self, is_thief: bool) -> Option<Range<usize>> {
        let mut claimed = 0..0;
        let rest = |bounds: u64| {
            let Range { start, end } = range_of(bounds);
            let n = (end - start).div_ceil(CLAIMS);
            let (own, rest) = match is_thief {
                false => (start..start + n, start + n..end),
                true => (end - n..end, start..end - n),
            };
            claimed = own;
            (n > 0).then(|| bounds_of(&rest))
        };
        let changed = (self.0).fetch_update(Ordering::Acquire, Ordering::Relaxed, rest);
        changed.ok().map(|_| claimed)
    }

    /// Claims all that is left; returns how many they are.
    fn claim_all(&self) -> u32 {
        range_of(self.0.swap(0, Ordering::Acquire)).len() as u32
    }
}

fn bounds_of(chunks: &Range<usize>) -> u64 {
    (chunks.end as u64) << 32 | chunks.start as u64
}

fn range_of(bounds: u64) -> Range<usize> {
    bounds as u32 as usize..(bounds >> 32) as usize
}

impl Pool {
    const fn new() -> Self {
        Self {
            helpers: [const { OnceLock::new() }; MAX_HELPERS],
            n_helpers: AtomicUsize::new(0),
            is_taken: AtomicBool::new(false),
            job: AtomicPtr::new(ptr::null_mut()),
            n_jobs: OwnLine(AtomicU32::new(0)),
            unfinished: OwnLine(AtomicU32::new(0)),
            sections: [const { OwnLine(Section(AtomicU64::new(0))) }; MAX_HELPERS + 1],
        }
    }

    fn n_helpers(&self) -> usize {
        self.n_helpers.load(Ordering::Relaxed).min(MAX_HELPERS)
    }

    fn serve(&self) {
        let place = self.n_helpers.fetch_add(1, Ordering::Relaxed);
        let Some(helper) = self.helpers.get(place) else {
            return;
        };
        helper.get_or_init(thread::current);
        let mut seen = 0;
        loop {
            let mut looks = 0;
            let n_jobs = loop {
                let n_jobs = self.n_jobs.0.load(Ordering::Acquire);
                if n_jobs != seen {
                    break n_jobs;
                }
                pause(&mut looks);
            };
            seen = n_jobs;
            self.work(place + 1);
        }
    }

    fn abandon(&self) {
        let n_held = HELD.take();
        if n_held > 0 {
            // SAFETY: this thread died of a chunk that it had claimed and has not given back.
            unsafe { self.give_back(n_held, true) };
        }
    }

    fn run(&self, n_chunks: usize, chunks: &(dyn Fn(Range<usize>) + Sync)) {
        let n_helpers = self.n_helpers();
        if n_chunks == 0 {
            return;
        }
        if n_chunks < 2 || n_helpers == 0 || self.is_taken.swap(true, Ordering::Acquire) {
            return chunks(0..n_chunks);
        }
        let n_unfinished = u32::try_from(n_chunks).ok().filter(|&n| n <= COUNT);
        let job = Job {
            chunks,
            caller: thread::current(),
        };
        // From here on the job must not go away before its chunks are done, not even by a panic.
        let turn = Turn(self);
        self.job
            .store(ptr::from_ref(&job).cast_mut().cast(), Ordering::Relaxed);
        (self.unfinished.0).store(n_unfinished.expect("few chunks"), Ordering::Relaxed);
        let n_sections = n_chunks.min(n_helpers + 1);
        for (i, section) in self.sections[..n_sections].iter().enumerate() {
            section.0.offer(part(i, n_sections, n_chunks));
        }
        self.n_jobs.0.fetch_add(1, Ordering::Release);
        for helper in self.helpers[..n_sections - 1].iter() {
            if let Some(helper) = helper.get() {
                helper.unpark();
            }
        }
        self.work(0);
        drop(turn);
    }

    /// Does chunks of the job in hand until none is left to claim: those of the thread's own section first. A function of its own, since V8 replaces
    /// its first, unoptimised code for a function only where that is called anew, and [`serve`] never is.
    #[inline(never)]
    fn work(&self, place: usize) {
        let _stay = Stay(self);
        let (before, from_own_on) = self.sections[..=self.n_helpers()].split_at(place);
        for (i, section) in from_own_on.iter().chain(before).enumerate() {
            while let Some(claimed) = section.0.claim(i > 0) {
                HELD.set(HELD.get() + claimed.len() as u32);
                // SAFETY: chunks were claimed and are not given back yet.
                let job = unsafe { self.job() };
                (job.chunks)(claimed);
            }
        }
    }

    /// The job in hand.
    ///
    /// # Safety
    /// The calling thread has claimed a chunk, and uses the job until it has given the chunk back. The caller of [`Pool::run`], on whose stack
    /// the job lies, stays there until all chunks are given back, and only then may another put its job in this one's place. Claiming
    /// acquires what the caller wrote before it offered the chunks.
    unsafe fn job(&self) -> &Job<'_> {
        // SAFETY: see above.
        unsafe { &*self.job.load(Ordering::Relaxed) }
    }

    /// Counts chunks as done, of which one failed if it `has_failed`, and wakes the caller after the last ones if it sleeps. The job may be gone then.
    ///
    /// # Safety
    /// The calling thread has claimed these chunks and not given them back.
    unsafe fn give_back(&self, n_chunks: u32, has_failed: bool) {
        let failed = if has_failed { FAILED } else { 0 };
        let mut sleeper: Option<Thread> = None;
        let mut state = self.unfinished.0.load(Ordering::Relaxed);
        let is_last = loop {
            if state & IS_AWAITED != 0 && sleeper.is_none() {
                // While the job is there for certain; who calls is seldom asleep, and threads would pull at its count for nothing.
                // SAFETY: the caller's.
                sleeper = Some(unsafe { self.job() }.caller.clone());
            }
            let new = (state - n_chunks) | failed;
            let exchanged = self.unfinished.0.compare_exchange_weak(
                state,
                new,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            match exchanged {
                Ok(_) => break new & COUNT == 0,
                Err(other) => state = other,
            }
        };
        if let Some(sleeper) = sleeper.filter(|_| is_last) {
            sleeper.unpark();
        }
    }
}

/// A thread's part in a job. What it claimed it gives back all at once, when it leaves.
struct Stay<'a>(&'a Pool);

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        let n_held = HELD.take();
        if n_held > 0 {
            // SAFETY: they were counted as they were claimed.
            unsafe { self.0.give_back(n_held, thread::panicking()) };
        }
    }
}

/// The time that one caller has the pool.
struct Turn<'a>(&'a Pool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let pool = self.0;
        let unfinished = &pool.unfinished.0;
        if thread::panicking() {
            // A chunk of the caller's own failed, after which it claims no more.
            let unclaimed = pool.sections.iter().map(|section| section.0.claim_all());
            unfinished.fetch_sub(unclaimed.sum(), Ordering::Relaxed);
        }
        let mut looks = 0;
        let state = loop {
            let state = unfinished.load(Ordering::Acquire);
            if state & COUNT == 0 {
                break state;
            }
            if looks == LOOKS {
                // Whoever gives back the last chunks from here on sees it.
                unfinished.fetch_or(IS_AWAITED, Ordering::Relaxed);
                looks += 1;
                continue;
            }
            pause(&mut looks);
        };
        pool.is_taken.store(false, Ordering::Release);
        assert!(
            state & FAILED == 0 || thread::panicking(),
            "a thread that shared the work of a kernel failed"
        );
    }
}

/// One of `n_parts` parts of `0..n`, which differ by one at most.
pub(super) fn part(i: usize, n_parts: usize, n: usize) -> Range<usize> {
    let bound = |i: usize| (i as u64 * n as u64 / n_parts as u64) as usize;
    bound(i)..bound(i + 1)
}

/// Waits a moment: busily at first, then asleep until somebody calls.
fn pause(looks: &mut u32) {
    if *looks < LOOKS {
        *looks += 1;
        std::hint::spin_loop();
    } else {
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use super::*;

    /// A pool with helpers, which outlive the test.
    fn pool(n_helpers: usize) -> &'static Pool {
        let pool: &Pool = Box::leak(Box::new(Pool::new()));
        for _ in 0..n_helpers {
            thread::spawn(|| pool.serve());
        }
        while pool
            .helpers
            .iter()
            .filter(|place| place.get().is_some())
            .count()
            < n_helpers
        {
            thread::yield_now();
        }
        pool
    }

    /// Runs a job and says how often each chunk was done.
    fn counts(pool: &Pool, n_chunks: usize) -> Vec<u32> {
        let counts: Vec<_> = (0..n_chunks).map(|_| AtomicU32::new(0)).collect();
        pool.run(n_chunks, &|chunks| {
            for count in &counts[chunks] {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        counts.into_iter().map(AtomicU32::into_inner).collect()
    }

    #[test]
    fn each_chunk_is_done_once() {
        for n_helpers in [0, 1, 3] {
            let pool = pool(n_helpers);
            for round in 0..2000 {
                let n_chunks = round % 23;
                assert_eq!(
                    counts(pool, n_chunks),
                    vec![1; n_chunks],
                    "{n_helpers} helpers"
                );
                if round % 500 == 0 {
                    thread::sleep(Duration::from_millis(5)); // Helpers fall asleep.
                }
            }
        }
    }

    #[test]
    fn helpers_take_part_while_the_caller_is_at_work() {
        let pool = pool(1);
        // Each chunk waits for the other, so one thread alone would never end.
        let arrived = AtomicU32::new(0);
        pool.run(2, &|_| {
            arrived.fetch_add(1, Ordering::Relaxed);
            while arrived.load(Ordering::Relaxed) < 2 {
                thread::yield_now();
            }
        });
        assert_eq!(arrived.into_inner(), 2);
    }

    #[test]
    fn several_callers_and_calls_within_calls_are_served() {
        let pool = pool(2);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        assert_eq!(counts(pool, 9), [1; 9]);
                    }
                });
            }
        });
        pool.run(4, &|_| assert_eq!(counts(pool, 5), [1; 5]));
    }

    #[test]
    fn a_panic_anywhere_reaches_the_caller_once_no_chunk_is_under_way() {
        for fails_in_caller in [true, false] {
            let pool = pool(1);
            let caller = thread::current().id();
            let (arrived, ended) = (AtomicU32::new(0), AtomicU32::new(0));
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(2, &|_| {
                    arrived.fetch_add(1, Ordering::Relaxed);
                    while arrived.load(Ordering::Relaxed) < 2 {
                        thread::yield_now();
                    }
                    assert!(
                        (thread::current().id() == caller) != fails_in_caller,
                        "as planned"
                    );
                    thread::sleep(Duration::from_millis(20));
                    ended.fetch_add(1, Ordering::Relaxed);
                });
            }));
            assert!(result.is_err(), "the caller is to hear of it");
            assert_eq!(
                ended.into_inner(),
                1,
                "the other chunk came to its end first"
            );
            assert_eq!(counts(pool, 3), [1; 3], "the pool goes on");
        }
    }

    #[test]
    fn a_helper_that_was_cut_off_is_given_up() {
        let pool = pool(0);
        pool.n_helpers.store(1, Ordering::Relaxed);
        let arrived = AtomicBool::new(false);
        let result = thread::scope(|scope| {
            // As a WebAssembly instance that traps in a chunk: nothing of it is unwound.
            scope.spawn(|| {
                while pool.sections[1].0.claim(false).is_none() {
                    thread::yield_now();
                }
                arrived.store(true, Ordering::Relaxed);
                HELD.set(1);
                pool.abandon();
            });
            let run = || {
                pool.run(3, &|_| {
                    while !arrived.load(Ordering::Relaxed) {
                        thread::yield_now();
                    }
                });
            };
            catch_unwind(AssertUnwindSafe(run))
        });
        assert!(result.is_err(), "the caller is to hear of it");
    }
}
