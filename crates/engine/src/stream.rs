//! A pull-based stream out of an async function that sends.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use cinderlm_protocol::{Chunk, CompletionError};
use futures::stream::{FusedStream, Stream};

type Driver = Pin<Box<dyn Future<Output = Result<(), CompletionError>>>>;
type Slot = Rc<RefCell<Option<Chunk>>>;

/// The chunks of one completion, in order, ending after the first error.
///
/// Nothing runs unless the stream is polled, and each chunk is handed over before work on the next begins, so a slow consumer
/// holds the model back. Dropping the stream stops the generation and frees its memory at once.
pub struct CompletionStream {
    driver: Option<Driver>,
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
            slot,
        }
    }
}

impl Stream for CompletionStream {
    type Item = Result<Chunk, CompletionError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(driver) = self.driver.as_mut() else {
            return Poll::Ready(None);
        };
        let progress = driver.as_mut().poll(context);
        if let Some(chunk) = self.slot.take() {
            return Poll::Ready(Some(Ok(chunk)));
        }
        match progress {
            Poll::Pending => Poll::Pending,
            Poll::Ready(outcome) => {
                self.driver = None;
                Poll::Ready(outcome.err().map(Err))
            }
        }
    }
}

impl FusedStream for CompletionStream {
    fn is_terminated(&self) -> bool {
        self.driver.is_none()
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

/// The sending end of a [`CompletionStream`]: a slot for one chunk.
pub(crate) struct ChunkSink {
    slot: Slot,
}

impl ChunkSink {
    /// Hands a chunk to the consumer; ready once the consumer has taken it and asks for the next.
    pub(crate) async fn send(&self, chunk: Chunk) {
        self.slot.replace(Some(chunk));
        // The stream is polled by its consumer alone. This poll leaves the chunk in the slot, where the stream finds it; the
        // next one finds the slot empty.
        poll_fn(|_| match self.slot.borrow().is_some() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
    }
}
