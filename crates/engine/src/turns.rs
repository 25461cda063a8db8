//! Exclusive turns at a value, first come first served.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::task::{Poll, Waker};

/// A value that one task at a time may use, in the order in which tasks asked.
///
/// An async mutex with a strict queue, for one thread. A task that is dropped while it waits leaves the queue; one that is
/// dropped during its turn ends it.
pub(crate) struct Turns<T> {
    value: RefCell<T>,
    queue: RefCell<Queue>,
}

/// Tickets in order of arrival; the first one has the turn.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<(u64, Option<Waker>)>,
    n_issued: u64,
}

impl<T> Turns<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: RefCell::new(value),
            queue: RefCell::default(),
        }
    }

    /// Waits for a turn. The place in the queue is taken when the future is first polled.
    pub(crate) async fn take(&self) -> Turn<'_, T> {
        let ticket = self.enter();
        poll_fn(|context| {
            let mut queue = self.queue.borrow_mut();
            let first = queue.waiting.front().map(|(id, _)| *id);
            if first == Some(ticket.id) {
                return Poll::Ready(());
            }
            if let Some((_, waker)) = queue.waiting.iter_mut().find(|(id, _)| *id == ticket.id) {
                *waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
        Turn {
            value: self.value.borrow_mut(),
            _ticket: ticket,
        }
    }

    fn enter(&self) -> Ticket<'_> {
        let mut queue = self.queue.borrow_mut();
        let id = queue.n_issued;
        queue.n_issued += 1;
        queue.waiting.push_back((id, None));
        Ticket {
            queue: &self.queue,
            id,
        }
    }
}

/// The exclusive use of the value. Dropping it passes the turn on.
pub(crate) struct Turn<'a, T> {
    // Declared, and so dropped, before the ticket: the value is free again when the next task is woken.
    value: RefMut<'a, T>,
    _ticket: Ticket<'a>,
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// A place in the queue; leaves it when dropped.
struct Ticket<'a> {
    queue: &'a RefCell<Queue>,
    id: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut queue = self.queue.borrow_mut();
        queue.waiting.retain(|(id, _)| *id != self.id);
        let next = queue
            .waiting
            .front_mut()
            .and_then(|(_, waker)| waker.take());
        drop(queue);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use futures::executor::block_on;

    #[test]
    fn turns_come_in_the_order_of_asking() {
        let turns = Turns::new(Vec::new());
        let first = turns.take().now_or_never().expect("nobody is before it");
        let ask = |name: &'static str| {
            let turns = &turns;
            async move { turns.take().await.push(name) }
        };
        block_on(async {
            futures::join!(ask("second"), ask("third"), ask("fourth"), async {
                drop(first);
            });
        });
        assert_eq!(turns.value.into_inner(), ["second", "third", "fourth"]);
    }

    #[test]
    fn a_dropped_waiter_leaves_the_queue() {
        let turns = Turns::new(0);
        let first = turns.take().now_or_never().expect("nobody is before it");
        let mut abandoned = Box::pin(turns.take());
        assert!(abandoned.as_mut().now_or_never().is_none());
        let mut last = Box::pin(turns.take());
        assert!(last.as_mut().now_or_never().is_none());

        drop(abandoned);
        assert!(last.as_mut().now_or_never().is_none());
        drop(first);
        assert!(last.now_or_never().is_some());
        assert!(turns.queue.borrow().waiting.is_empty());
    }

    #[test]
    fn a_waiter_dropped_at_the_moment_of_its_turn_passes_it_on() {
        let turns = Turns::new(0);
        let first = turns.take().now_or_never().expect("nobody is before it");
        let mut second = Box::pin(turns.take());
        let mut third = Box::pin(turns.take());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        drop(second);
        assert!(third.now_or_never().is_some());
    }
}
