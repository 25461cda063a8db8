//! Seats at a model, first come first served.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A number of seats that tasks take in the order in which they asked.
///
/// An async semaphore with a strict queue, for one thread. A task that is dropped while it waits leaves the queue.
#[derive(Debug)]
pub(crate) struct Seats {
    n_seats: usize,
    queue: RefCell<Queue>,
}

/// Tickets in order of arrival; the first `n_seats` have seats.
#[derive(Debug, Default)]
struct Queue {
    tickets: VecDeque<(u64, Option<Waker>)>,
    n_issued: u64,
}

impl Seats {
    /// `n_seats` seats, at least one.
    pub(crate) fn new(n_seats: usize) -> Rc<Self> {
        Rc::new(Self {
            n_seats: n_seats.max(1),
            queue: RefCell::default(),
        })
    }

    /// Whether whoever asks now has to wait.
    pub(crate) fn are_taken(&self) -> bool {
        self.queue.borrow().tickets.len() >= self.n_seats
    }

    /// Waits for a seat. The place in the queue is taken when the future is first polled.
    pub(crate) async fn take(self: &Rc<Self>) -> Seat {
        let seat = self.enter();
        poll_fn(|context| {
            let mut queue = self.queue.borrow_mut();
            let place = queue.tickets.iter().position(|(id, _)| *id == seat.id);
            match place {
                Some(place) if place >= self.n_seats => {
                    queue.tickets[place].1 = Some(context.waker().clone());
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
        .await;
        seat
    }

    fn enter(self: &Rc<Self>) -> Seat {
        let mut queue = self.queue.borrow_mut();
        let id = queue.n_issued;
        queue.n_issued += 1;
        queue.tickets.push_back((id, None));
        Seat {
            seats: Rc::clone(self),
            id,
        }
    }
}

/// A seat, or a place in the queue for one. Dropping it lets the next task in.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Rc<Seats>,
    id: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut queue = self.seats.queue.borrow_mut();
        queue.tickets.retain(|(id, _)| *id != self.id);
        let seated = queue.tickets.iter_mut().take(self.seats.n_seats);
        let wakers: Vec<Waker> = seated.filter_map(|(_, waker)| waker.take()).collect();
        drop(queue);
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use futures::executor::block_on;

    #[test]
    fn seats_come_in_the_order_of_asking() {
        for n_seats in 1..4 {
            let seats = Seats::new(n_seats);
            let order = RefCell::new(Vec::new());
            let taken: Vec<_> = (0..n_seats)
                .map(|_| seats.take().now_or_never().expect("one is free"))
                .collect();
            assert!(seats.are_taken());
            let ask = |name: &'static str| {
                let (seats, order) = (&seats, &order);
                async move {
                    let _seat = seats.take().await;
                    order.borrow_mut().push(name);
                }
            };
            block_on(async {
                futures::join!(ask("first"), ask("second"), ask("third"), async {
                    drop(taken);
                });
            });
            assert_eq!(order.into_inner(), ["first", "second", "third"]);
            assert!(seats.queue.borrow().tickets.is_empty());
        }
    }

    #[test]
    fn a_dropped_waiter_leaves_the_queue() {
        let seats = Seats::new(1);
        let first = seats.take().now_or_never().expect("nobody is before it");
        let mut abandoned = Box::pin(seats.take());
        assert!(abandoned.as_mut().now_or_never().is_none());
        let mut last = Box::pin(seats.take());
        assert!(last.as_mut().now_or_never().is_none());

        drop(abandoned);
        assert!(last.as_mut().now_or_never().is_none());
        drop(first);
        assert!(last.now_or_never().is_some());
        assert!(!seats.are_taken());
    }

    #[test]
    fn a_waiter_dropped_at_the_moment_of_its_turn_passes_it_on() {
        let seats = Seats::new(1);
        let first = seats.take().now_or_never().expect("nobody is before it");
        let mut second = Box::pin(seats.take());
        let mut third = Box::pin(seats.take());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        drop(second);
        assert!(third.now_or_never().is_some());
    }
}
