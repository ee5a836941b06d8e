//! Those who wait for room in the publish window, first come first served, and cancelled without losing anybody's turn.

use std::{
    collections::VecDeque,
    task::{Context, Waker},
};

/// Names one who waits.
pub(crate) type Ticket = u64;

/// Waiting publishes, in order. Lives under the producer's lock.
#[derive(Debug, Default)]
pub(crate) struct WaitRoom {
    queue: VecDeque<(Ticket, Waker)>,
    next: Ticket,
}

impl WaitRoom {
    /// Waits, or goes on waiting with another waker. One that was called meanwhile queues again, at the end.
    pub(crate) fn wait(&mut self, ticket: &mut Option<Ticket>, cx: &Context<'_>) {
        if let Some(own) = ticket
            && let Some((_, waker)) = self.queue.iter_mut().find(|(t, _)| t == own)
        {
            waker.clone_from(cx.waker());
            return;
        }
        self.next += 1;
        *ticket = Some(self.next);
        self.queue.push_back((self.next, cx.waker().clone()));
    }

    /// Calls up to so many.
    pub(crate) fn call(&mut self, count: usize, wakers: &mut impl Extend<Waker>) {
        let count = count.min(self.queue.len());
        wakers.extend(self.queue.drain(..count).map(|(_, waker)| waker));
    }

    /// One leaves. If it had been called and did not come, its turn goes to the next.
    pub(crate) fn leave(&mut self, ticket: Ticket, wakers: &mut impl Extend<Waker>) {
        match self.queue.iter().position(|(t, _)| *t == ticket) {
            Some(at) => {
                self.queue.remove(at);
            }
            None => self.call(1, wakers),
        }
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_turn_of_one_who_left_goes_to_the_next() {
        let cx = Context::from_waker(Waker::noop());
        let mut room = WaitRoom::default();
        let (mut a, mut b) = (None, None);
        room.wait(&mut a, &cx);
        room.wait(&mut b, &cx);
        let mut called = Vec::new();
        room.call(1, &mut called);
        assert_eq!(called.len(), 1, "a was called");
        room.leave(a.unwrap(), &mut called);
        assert_eq!(called.len(), 2, "a left without coming, so b is called");
        assert!(room.is_empty());
    }

    #[test]
    fn one_who_was_not_called_leaves_silently() {
        let cx = Context::from_waker(Waker::noop());
        let mut room = WaitRoom::default();
        let (mut a, mut b) = (None, None);
        room.wait(&mut a, &cx);
        room.wait(&mut b, &cx);
        room.wait(&mut a, &cx);
        let mut called = Vec::new();
        room.leave(a.unwrap(), &mut called);
        assert!(called.is_empty());
        room.call(5, &mut called);
        assert_eq!(called.len(), 1);
    }
}
