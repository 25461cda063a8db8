//! Seats at a model, first come first served.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What those who are seated may have together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeatLimits {
    /// Seats, at least one.
    pub(crate) n_seats: usize,
    /// Tokens that their sequences may come to. Whoever is alone may have more.
    pub(crate) n_tokens: usize,
}

/// Seats that tasks take in the order in which they asked, each with the tokens that it may come to.
///
/// An async semaphore with a strict queue, for one thread. A task that is dropped while it waits leaves the queue.
#[derive(Debug)]
pub(crate) struct Seats {
    limits: SeatLimits,
    queue: RefCell<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// In order of arrival; as many of the first as the limits allow have seats.
    tickets: VecDeque<Ticket>,
    n_issued: u64,
    /// Those who would give up theirs if somebody waited, each once.
    resting: Vec<(u64, Waker)>,
}

#[derive(Debug)]
struct Ticket {
    id: u64,
    n_tokens: usize,
    waker: Option<Waker>,
}

impl Queue {
    /// How many of the first tickets have seats, and the tokens that these may come to. Tickets leave but never come in between, so one
    /// that is seated stays so.
    fn seated(&self, limits: SeatLimits) -> (usize, usize) {
        let (mut n_seated, mut n_tokens) = (0, 0_usize);
        for ticket in self.tickets.iter().take(limits.n_seats) {
            let with_it = n_tokens.saturating_add(ticket.n_tokens);
            if n_seated > 0 && with_it > limits.n_tokens {
                break;
            }
            (n_seated, n_tokens) = (n_seated + 1, with_it);
        }
        (n_seated, n_tokens)
    }
}

impl Seats {
    pub(crate) fn new(limits: SeatLimits) -> Rc<Self> {
        let n_seats = limits.n_seats.max(1);
        Rc::new(Self {
            limits: SeatLimits { n_seats, ..limits },
            queue: RefCell::default(),
        })
    }

    /// Whether whoever asks now for a seat with `n_tokens` has to wait.
    pub(crate) fn are_taken_for(&self, n_tokens: usize) -> bool {
        let queue = self.queue.borrow();
        let (_, n_seated_tokens) = queue.seated(self.limits);
        let n_tickets = queue.tickets.len();
        let has_room = n_seated_tokens.saturating_add(n_tokens) <= self.limits.n_tokens;
        n_tickets >= self.limits.n_seats || (n_tickets > 0 && !has_room)
    }

    /// Tokens that nobody who is seated may come to.
    pub(crate) fn n_free_tokens(&self) -> usize {
        let (_, n_tokens) = self.queue.borrow().seated(self.limits);
        self.limits.n_tokens.saturating_sub(n_tokens)
    }

    /// Waits for a seat whose sequence may come to `n_tokens`. The place in the queue is taken when the future is first polled.
    pub(crate) async fn take(self: &Rc<Self>, n_tokens: usize) -> Seat {
        let seat = self.enter(n_tokens);
        poll_fn(|context| {
            let mut queue = self.queue.borrow_mut();
            let (n_seated, _) = queue.seated(self.limits);
            let mut waiting = queue.tickets.iter_mut().skip(n_seated);
            let Some(own) = waiting.find(|ticket| ticket.id == seat.id) else {
                return Poll::Ready(());
            };
            own.waker = Some(context.waker().clone());
            let resting = std::mem::take(&mut queue.resting);
            drop(queue);
            resting.into_iter().for_each(|(_, waker)| waker.wake());
            Poll::Pending
        })
        .await;
        seat
    }

    /// Announces somebody who would give up a seat if somebody waited for it.
    pub(crate) fn rest(self: &Rc<Self>) -> Resting {
        Resting {
            seats: Rc::clone(self),
            id: self.next_id(),
        }
    }

    fn next_id(&self) -> u64 {
        let mut queue = self.queue.borrow_mut();
        let id = queue.n_issued;
        queue.n_issued += 1;
        id
    }

    fn enter(self: &Rc<Self>, n_tokens: usize) -> Seat {
        let id = self.next_id();
        self.queue.borrow_mut().tickets.push_back(Ticket {
            id,
            n_tokens,
            waker: None,
        });
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
        queue.tickets.retain(|ticket| ticket.id != self.id);
        let (n_seated, _) = queue.seated(self.seats.limits);
        let seated = queue.tickets.iter_mut().take(n_seated);
        let wakers: Vec<Waker> = seated.filter_map(|ticket| ticket.waker.take()).collect();
        drop(queue);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Somebody who would give up a seat.
#[derive(Debug)]
pub(crate) struct Resting {
    seats: Rc<Seats>,
    id: u64,
}

impl Resting {
    /// Whether somebody waits for a seat; if nobody does, the task is woken when somebody will.
    pub(crate) fn poll_wanted(&self, context: &Context<'_>) -> Poll<()> {
        let mut queue = self.seats.queue.borrow_mut();
        let (n_seated, _) = queue.seated(self.seats.limits);
        if queue.tickets.len() > n_seated {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        match queue.resting.iter_mut().find(|(id, _)| *id == self.id) {
            Some((_, known)) => *known = waker,
            None => queue.resting.push((self.id, waker)),
        }
        Poll::Pending
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        let mut queue = self.seats.queue.borrow_mut();
        queue.resting.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use futures::executor::block_on;
    use futures::task::noop_waker;

    fn seats(n_seats: usize, n_tokens: usize) -> Rc<Seats> {
        Seats::new(SeatLimits { n_seats, n_tokens })
    }

    #[test]
    fn seats_come_in_the_order_of_asking() {
        for n_seats in 1..4 {
            let seats = seats(n_seats, 100);
            let order = RefCell::new(Vec::new());
            let taken: Vec<_> = (0..n_seats)
                .map(|_| seats.take(1).now_or_never().expect("one is free"))
                .collect();
            assert!(seats.are_taken_for(1));
            let ask = |name: &'static str| {
                let (seats, order) = (&seats, &order);
                async move {
                    let _seat = seats.take(1).await;
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
        let seats = seats(1, 100);
        let first = seats.take(1).now_or_never().expect("nobody is before it");
        let mut abandoned = Box::pin(seats.take(1));
        assert!(abandoned.as_mut().now_or_never().is_none());
        let mut last = Box::pin(seats.take(1));
        assert!(last.as_mut().now_or_never().is_none());

        drop(abandoned);
        assert!(last.as_mut().now_or_never().is_none());
        drop(first);
        assert!(last.now_or_never().is_some());
        assert!(!seats.are_taken_for(1));
    }

    #[test]
    fn a_waiter_dropped_at_the_moment_of_its_turn_passes_it_on() {
        let seats = seats(1, 100);
        let first = seats.take(1).now_or_never().expect("nobody is before it");
        let mut second = Box::pin(seats.take(1));
        let mut third = Box::pin(seats.take(1));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        drop(second);
        assert!(third.now_or_never().is_some());
    }

    #[test]
    fn tokens_are_bounded_too() {
        let seats = seats(4, 100);
        let first = seats.take(60).now_or_never().expect("nobody is before it");
        assert_eq!(seats.n_free_tokens(), 40);
        assert!(!seats.are_taken_for(40) && seats.are_taken_for(41));
        let mut second = Box::pin(seats.take(41));
        assert!(second.as_mut().now_or_never().is_none());
        // It would fit, but not before the one that came first.
        let mut third = Box::pin(seats.take(10));
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        let second = second.now_or_never().expect("there is room");
        assert!(third.now_or_never().is_some());
        drop(second);
        let alone = seats.take(1000).now_or_never();
        assert!(alone.is_some(), "whoever is alone may have more");
        assert_eq!(seats.n_free_tokens(), 0);
    }

    #[test]
    fn those_who_rest_hear_of_those_who_wait() {
        let seats = seats(1, 100);
        let waker = noop_waker();
        let context = Context::from_waker(&waker);
        let first = seats.take(1).now_or_never().expect("nobody is before it");
        let resting = seats.rest();
        for _ in 0..3 {
            assert!(resting.poll_wanted(&context).is_pending());
            assert_eq!(seats.queue.borrow().resting.len(), 1);
        }
        let mut second = Box::pin(seats.take(1));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(resting.poll_wanted(&context).is_ready());
        drop(first);
        assert!(resting.poll_wanted(&context).is_pending());
        drop(resting);
        assert!(seats.queue.borrow().resting.is_empty());
    }
}
