//! Waiting for a tensor's values without blocking.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use burn::backend::ExecutionError;
use burn::tensor::{Tensor, TensorData};

use crate::device;

type Read = Pin<Box<dyn Future<Output = Result<TensorData, ExecutionError>>>>;

thread_local! {
    /// Reads that nobody waits for any more, but which the device has not finished.
    static ABANDONED: RefCell<Vec<Read>> = const { RefCell::new(Vec::new()) };
}

/// Reads a tensor's values. May be dropped at any time, as a cancelled request does.
///
/// A read that the device has begun must run to its end: its staging buffer is mapped meanwhile, and the next read that was given
/// the same buffer would fail. So a dropped read is kept, and the next one waits for it first.
///
/// # Errors
/// The device is lost, or failed at what came before.
pub async fn read<const D: usize>(tensor: Tensor<D>) -> Result<TensorData, ExecutionError> {
    while let Some(abandoned) = ABANDONED.with_borrow_mut(Vec::pop) {
        // Whoever asked for it is gone; if it failed because the device did, this read fails as well.
        let _ = Reading(Some(abandoned)).await;
    }
    Reading(Some(Box::pin(tensor.into_data_async()))).await
}

/// A read that the device has begun, of a tensor's values as they were then. May be dropped at any time.
pub struct BegunRead {
    reading: Reading,
    result: Option<Result<TensorData, ExecutionError>>,
}

/// Has a GPU begin to read a tensor's values as they are now: what is launched afterwards may overwrite them. `None` on other devices.
pub fn begin_read<const D: usize>(tensor: &Tensor<D>) -> Option<BegunRead> {
    let mut context = Context::from_waker(Waker::noop());
    // Dropped reads that are done by now. The others keep their staging buffers.
    ABANDONED.with_borrow_mut(|abandoned| {
        abandoned.retain_mut(|read| read.as_mut().poll(&mut context).is_pending());
    });
    let mut reading = Reading(Some(Box::pin(device::read_now(tensor.clone())?)));
    let result = match Pin::new(&mut reading).poll(&mut context) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    };
    Some(BegunRead { reading, result })
}

impl BegunRead {
    /// Waits for the values.
    ///
    /// # Errors
    /// As [`read`].
    pub async fn finish(self) -> Result<TensorData, ExecutionError> {
        match self.result {
            Some(result) => result,
            None => self.reading.await,
        }
    }
}

impl fmt::Debug for BegunRead {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BegunRead").finish_non_exhaustive()
    }
}

/// A read under way, which outlives its being dropped.
struct Reading(Option<Read>);

impl Future for Reading {
    type Output = Result<TensorData, ExecutionError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(read) = self.0.as_mut() else {
            // Polled after it was ready, which the one caller never does.
            return Poll::Pending;
        };
        let result = read.as_mut().poll(context);
        if result.is_ready() {
            self.0 = None;
        }
        result
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(read) = self.0.take() {
            ABANDONED.with_borrow_mut(|abandoned| abandoned.push(read));
        }
    }
}
