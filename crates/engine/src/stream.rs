//! A pull-based stream out of an async function that sends.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use cinderlm_protocol::{Choice, Chunk, CompletionError};
use futures::stream::{FusedStream, Stream};

type Driver = Pin<Box<dyn Future<Output = Result<(), CompletionError>>>>;
type Slot = Rc<RefCell<Outgoing>>;

/// The chunk that the consumer takes next.
#[derive(Debug, Default)]
struct Outgoing {
    chunk: Option<Chunk>,
    n_taken: u64,
    /// Those who wait until it is taken.
    wakers: Vec<Waker>,
}

impl Outgoing {
    fn take(&mut self) -> Option<Chunk> {
        let chunk = self.chunk.take()?;
        self.n_taken += 1;
        self.wakers.drain(..).for_each(Waker::wake);
        Some(chunk)
    }
}

/// The chunks of one completion, in order, ending after the first error.
///
/// Nothing runs unless the stream is polled, and each chunk is handed over before work on the next begins, so a slow consumer
/// holds the model back. Dropping the stream stops the generation and frees its memory at once.
pub struct CompletionStream {
    driver: Option<Driver>,
    /// Why the driver ended, until the consumer knows.
    error: Option<CompletionError>,
    slot: Slot,
}

impl CompletionStream {
    /// The stream of what `drive` sends. An error that it returns is the stream's last item.
    pub(crate) fn new<F, D>(drive: D) -> Self
    where
        D: FnOnce(ChunkSink) -> F,
        F: Future<Output = Result<(), CompletionError>> + 'static,
    {
        let slot = Slot::default();
        let sink = ChunkSink {
            slot: Rc::clone(&slot),
        };
        Self {
            driver: Some(Box::pin(drive(sink))),
            error: None,
            slot,
        }
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
        if let Some(chunk) = self.slot.borrow_mut().take() {
            return Poll::Ready(Some(Ok(chunk)));
        }
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
