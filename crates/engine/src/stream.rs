//! A pull-based stream out of an async function that sends.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use cinderlm_protocol::{Choice, Chunk, CompletionError, Timings, Usage};
use futures::stream::{FusedStream, Stream};

use crate::meter::Meter;

type Driver = Pin<Box<dyn Future<Output = Result<(), CompletionError>>>>;
type Slot = Rc<RefCell<Outgoing>>;

/// The chunk that the consumer takes next.
#[derive(Debug)]
struct Outgoing {
    chunk: Option<Chunk>,
    n_taken: u64,
    /// Chunks that the consumer takes before it rests.
    window: u64,
    /// Chunks that whoever left its place to another waits for, so that it does not come back for one.
    refill: u64,
    /// Those who wait until it is taken.
    wakers: Vec<Waker>,
    /// The consumer, if it waits while its window is closed.
    consumer: Option<Waker>,
    /// Those who wait for the window to fill up.
    refilling: Vec<Waker>,
}

impl Outgoing {
    /// Hands the chunk over, if the consumer takes any.
    fn take(&mut self) -> Option<Chunk> {
        let window = self.window.checked_sub(1)?;
        let chunk = self.chunk.take()?;
        self.window = window;
        self.n_taken += 1;
        self.wakers.drain(..).for_each(Waker::wake);
        Some(chunk)
    }
}

/// The chunks of one completion, in order, ending after the first error.
///
/// Nothing runs unless the stream is polled, and each chunk is handed over before work on the next begins, so a slow consumer
/// holds the model back. Dropping the stream stops the generation and frees its memory at once.
///
/// A stream that is not polled keeps what it has of the model. One that is to rest without holding up others is polled on, with a
/// [window](Self::with_window) that lets no chunk out: each choice runs until it has something to say, and then gives its place to whoever waits for one.
/// When the window is half as wide as at first, it takes a place again and reads what the model has lost.
pub struct CompletionStream {
    driver: Option<Driver>,
    /// Why the driver ended, until the consumer knows.
    error: Option<CompletionError>,
    slot: Slot,
    meter: Rc<RefCell<Meter>>,
}

impl CompletionStream {
    /// The stream of what `drive` sends, which counts by the meter. An error that it returns is the stream's last item.
    pub(crate) fn new<F, D>(meter: Rc<RefCell<Meter>>, drive: D) -> Self
    where
        D: FnOnce(ChunkSink) -> F,
        F: Future<Output = Result<(), CompletionError>> + 'static,
    {
        let slot = Rc::new(RefCell::new(Outgoing {
            chunk: None,
            n_taken: 0,
            window: u64::MAX,
            refill: 1,
            wakers: Vec::new(),
            consumer: None,
            refilling: Vec::new(),
        }));
        let sink = ChunkSink {
            slot: Rc::clone(&slot),
        };
        Self {
            driver: Some(Box::pin(drive(sink))),
            error: None,
            slot,
            meter,
        }
    }

    /// Lets out only `n_chunks` until its [handle](Self::handle) allows more; then the stream is pending.
    #[must_use]
    pub fn with_window(self, n_chunks: u64) -> Self {
        let mut slot = self.slot.borrow_mut();
        slot.window = n_chunks;
        slot.refill = (n_chunks / 2).max(1);
        drop(slot);
        self
    }

    /// What tells of the stream and steers it while others poll it.
    pub fn handle(&self) -> StreamHandle {
        StreamHandle {
            slot: Rc::clone(&self.slot),
            meter: Rc::clone(&self.meter),
        }
    }
}

/// Tells of a [`CompletionStream`] and steers it, also after it was dropped.
#[derive(Clone, Debug)]
pub struct StreamHandle {
    slot: Slot,
    meter: Rc<RefCell<Meter>>,
}

impl StreamHandle {
    /// What the request has used so far.
    pub fn usage(&self) -> Usage {
        self.meter.borrow().usage()
    }

    /// How long its parts have taken so far.
    pub fn timings(&self) -> Timings {
        self.meter.borrow().timings()
    }

    /// Lets `n_chunks` more out of the window.
    pub fn widen(&self, n_chunks: u64) {
        let mut slot = self.slot.borrow_mut();
        slot.window = slot.window.saturating_add(n_chunks);
        let mut wakers: Vec<Waker> = slot.consumer.take().into_iter().collect();
        if slot.window >= slot.refill {
            wakers.append(&mut slot.refilling);
        }
        drop(slot);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Stream for CompletionStream {
    type Item = Result<Chunk, CompletionError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(driver) = self.driver.as_mut()
            && let Poll::Ready(outcome) = driver.as_mut().poll(context)
        {
            self.driver = None;
            self.error = outcome.err();
        }
        // One choice may have spoken before another failed.
        let mut slot = self.slot.borrow_mut();
        if let Some(chunk) = slot.take() {
            return Poll::Ready(Some(Ok(chunk)));
        }
        if slot.chunk.is_some() {
            slot.consumer = Some(context.waker().clone());
            return Poll::Pending;
        }
        drop(slot);
        match self.driver {
            Some(_) => Poll::Pending,
            None => Poll::Ready(self.error.take().map(Err)),
        }
    }
}

impl FusedStream for CompletionStream {
    fn is_terminated(&self) -> bool {
        self.driver.is_none() && self.error.is_none()
    }
}

impl fmt::Debug for CompletionStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CompletionStream")
            .field("is_terminated", &self.is_terminated())
            .finish_non_exhaustive()
    }
}

/// The sending end of a [`CompletionStream`]: a place for one chunk.
pub(crate) struct ChunkSink {
    slot: Slot,
}

impl ChunkSink {
    /// Hands a choice to the consumer, in one chunk with whatever other choices are ready; `chunk` makes the chunk. Ready once the
    /// consumer has taken it and asks for more.
    pub(crate) async fn send(&self, choice: Choice, chunk: impl FnOnce(Vec<Choice>) -> Chunk) {
        let number = {
            let mut slot = self.slot.borrow_mut();
            match &mut slot.chunk {
                Some(waiting) => waiting.choices.push(choice),
                empty => *empty = Some(chunk(vec![choice])),
            }
            slot.n_taken
        };
        self.taken(number).await;
    }

    /// Whether the consumer takes nothing for now.
    pub(crate) fn is_resting(&self) -> bool {
        self.slot.borrow().window == 0
    }

    /// Waits until the consumer takes more than a chunk or two.
    pub(crate) async fn refilled(&self) {
        poll_fn(|context| {
            let mut slot = self.slot.borrow_mut();
            if slot.window >= slot.refill {
                return Poll::Ready(());
            }
            let waker = context.waker();
            if !slot.refilling.iter().any(|known| known.will_wake(waker)) {
                slot.refilling.push(waker.clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Hands a whole chunk to the consumer, which must have taken all that was sent before. Ready once it has been taken.
    pub(crate) async fn send_chunk(&self, chunk: Chunk) {
        let number = {
            let mut slot = self.slot.borrow_mut();
            slot.chunk = Some(chunk);
            slot.n_taken
        };
        self.taken(number).await;
    }

    /// Waits until chunk `number` has been taken.
    async fn taken(&self, number: u64) {
        poll_fn(|context| {
            let mut slot = self.slot.borrow_mut();
            if slot.n_taken > number {
                return Poll::Ready(());
            }
            slot.wakers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
