//! What a consumer has to say to the bus and has not said yet: acks merged into ranges, the rarer words one by one, and
//! who waits for an answer. Pure book-keeping under one short lock.

use std::{
    collections::{BTreeMap, VecDeque},
    task::{Context, Waker},
    time::{Duration, Instant},
};

use acb_types::limits;
use bytes::BytesMut;
use tokio::sync::oneshot;

use super::ranges::Ranges;
use crate::{
    convert,
    error::{Error, ErrorCode, Result},
    transport::wire::{Outgoing, RangeField, put_range},
};

/// Sent acks that are remembered for a resume, in ranges.
const RECENT_MAX: usize = 1024;
/// How long a sent ack is remembered: as long as the bus keeps leases of a lost connection.
const RECENT_FOR: Duration = limits::SESSION_GRACE;
/// Bytes of a frame up, reasons included.
const FRAME_BYTES: usize = 64 * 1024;
/// Seqs whose lease is known to be lost, remembered so that a late ack is told at once.
const LOST_MAX: usize = 1024;

/// A negative settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Negative {
    pub(crate) seq: u64,
    /// `None` gives the message up for good.
    pub(crate) delay: Option<Duration>,
    pub(crate) reason: String,
}

/// Which lease a message was delivered under: those of an older one are lost.
pub(crate) type Lease = u32;

#[derive(Debug)]
struct Waiting {
    seq: u64,
    answer: oneshot::Sender<Result<()>>,
    sent: bool,
}

/// What waits to be sent, and what waits for an answer.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four facts of one stream that change on their own")]
pub(crate) struct Settle {
    lease: Lease,
    acks: Ranges,
    acked_messages: u32,
    acked_bytes: u64,
    progress: Ranges,
    releases: Ranges,
    negatives: VecDeque<Negative>,
    confirmed: Vec<Waiting>,
    confirmed_unsent: u32,
    recent: VecDeque<(Instant, u64, u32)>,
    lost: VecDeque<u64>,
    credit: Option<(u32, u64)>,
    reauth: Option<Outgoing>,
    /// Acks that were sent to be confirmed before the stream ends, and are not.
    last: Vec<(u64, u32)>,
    /// Messages that are being handled or wait for it, whose leases are renewed, and since when.
    held: BTreeMap<u64, Instant>,
    /// The present stream; a body of another one ends.
    stream: u64,
    /// The server has answered the open: settlements may go.
    ready: bool,
    flush: bool,
    /// A linger is running, so an ack needs to wake nobody.
    lingering: bool,
    leaving: bool,
    waker: Option<Waker>,
}

/// What the stream's body does next.
#[derive(Debug)]
pub(crate) enum Next {
    Frame(Outgoing),
    /// Acks wait for others, but not longer than the linger.
    Linger,
    Wait,
    End,
}

/// Credits, as far as they decide when acks are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) quarter_messages: u32,
    pub(crate) quarter_bytes: u64,
    /// Send each ack at once.
    pub(crate) at_once: bool,
}

impl Settle {
    pub(crate) fn lease(&self) -> Lease {
        self.lease
    }

    fn check(&self, seq: u64, lease: Lease, operation: &'static str) -> Result<()> {
        if lease != self.lease || self.leaving || self.lost.contains(&seq) {
            let text = "the lease of the message ended before it was settled";
            return Err(Error::new(ErrorCode::LeaseLost, operation, text).with("seq", seq.to_string()));
        }
        Ok(())
    }

    /// Adds a plain ack. Gives the waker when the body must look.
    #[inline]
    pub(crate) fn ack(&mut self, seq: u64, bytes: u64, lease: Lease, pace: Pace) -> Result<Option<Waker>> {
        self.check(seq, lease, "message.ack")?;
        self.held.remove(&seq);
        self.acks.add(seq);
        self.acked_messages += 1;
        self.acked_bytes += bytes;
        let due =
            self.acked_messages >= pace.quarter_messages || self.acked_bytes >= pace.quarter_bytes || pace.at_once;
        self.flush |= due;
        Ok(if due || !self.lingering { self.waker.take() } else { None })
    }

    /// Adds a confirmed ack.
    pub(crate) fn ack_confirmed(
        &mut self,
        seq: u64,
        lease: Lease,
        answer: oneshot::Sender<Result<()>>,
    ) -> Result<Option<Waker>> {
        self.check(seq, lease, "message.ack_confirmed")?;
        self.held.remove(&seq);
        self.confirmed.push(Waiting { seq, answer, sent: false });
        self.confirmed_unsent += 1;
        Ok(self.urge())
    }

    /// Adds a nack or a term.
    pub(crate) fn negative(
        &mut self,
        negative: Negative,
        lease: Lease,
        operation: &'static str,
    ) -> Result<Option<Waker>> {
        self.check(negative.seq, lease, operation)?;
        self.held.remove(&negative.seq);
        self.negatives.push_back(negative);
        Ok(self.urge())
    }

    /// Asks for a new lease.
    pub(crate) fn progress(&mut self, seq: u64, lease: Lease) -> Result<Option<Waker>> {
        self.check(seq, lease, "message.progress")?;
        self.progress.add(seq);
        Ok(self.urge())
    }

    /// Asks for new leases of ranges.
    pub(crate) fn progress_ranges(&mut self, ranges: Vec<(u64, u32)>) -> Option<Waker> {
        if ranges.is_empty() {
            return None;
        }
        for (first, count) in ranges {
            self.progress.add_range(first, count);
        }
        self.urge()
    }

    /// Gives a message back untouched.
    pub(crate) fn release(&mut self, seq: u64, lease: Lease) -> Result<Option<Waker>> {
        self.check(seq, lease, "message.release")?;
        self.held.remove(&seq);
        self.releases.add(seq);
        Ok(self.urge())
    }

    /// Keeps a message's lease from now on until it is settled.
    pub(crate) fn hold(&mut self, seq: u64, now: Instant) {
        self.held.insert(seq, now);
    }

    /// Whether a message's lease is kept.
    pub(crate) fn is_held(&self, seq: u64) -> bool {
        self.held.contains_key(&seq)
    }

    /// Lets a message's lease run out again.
    pub(crate) fn let_go(&mut self, seq: u64) {
        self.held.remove(&seq);
    }

    /// Renews the leases of all held messages, but of none for longer than the longest lease.
    pub(crate) fn renew(&mut self, now: Instant) -> Option<Waker> {
        self.held.retain(|_, since| now.duration_since(*since) < limits::LEASE_MAX);
        if self.held.is_empty() {
            return None;
        }
        for seq in self.held.keys() {
            self.progress.add(*seq);
        }
        self.urge()
    }

    /// Changes the credit.
    pub(crate) fn credit(&mut self, messages: u32, bytes: u64) -> Option<Waker> {
        self.credit = Some((messages, bytes));
        self.urge()
    }

    /// A fresh token for the present stream.
    pub(crate) fn reauth(&mut self, frame: Outgoing) -> Option<Waker> {
        self.reauth = Some(frame);
        self.waker.take()
    }

    /// Sends what is left, then ends the stream.
    pub(crate) fn leave(&mut self) -> Option<Waker> {
        self.leaving = true;
        self.urge()
    }

    /// Whether something may not have reached the bus.
    pub(crate) fn has_unsaid(&self) -> bool {
        !(self.acks.is_empty()
            && self.releases.is_empty()
            && self.negatives.is_empty()
            && self.recent.is_empty()
            && self.last.is_empty())
    }

    fn urge(&mut self) -> Option<Waker> {
        self.flush = true;
        self.waker.take()
    }

    /// Starts a stream. Settlements wait until the server has answered its open.
    pub(crate) fn begin_stream(&mut self) -> u64 {
        self.stream += 1;
        self.ready = false;
        self.lingering = false;
        self.reauth = None;
        self.waker = None;
        self.stream
    }

    /// The server answered the open. With the leases kept, what may not have arrived is said again; without, all that
    /// is held is lost. Gives the present lease.
    pub(crate) fn opened(&mut self, resumed: bool) -> (Lease, Option<Waker>) {
        self.ready = true;
        if resumed {
            for (first, count) in self.recent.drain(..).map(|(_, f, c)| (f, c)).chain(self.last.drain(..)) {
                self.acks.add_range(first, count);
            }
            self.confirmed_unsent = self.confirmed.len() as u32;
            self.confirmed.iter_mut().for_each(|w| w.sent = false);
        } else {
            self.lease = self.lease.wrapping_add(1);
            self.acks.clear();
            self.progress.clear();
            self.releases.clear();
            self.negatives.clear();
            self.recent.clear();
            self.last.clear();
            self.lost.clear();
            self.held.clear();
            (self.acked_messages, self.acked_bytes) = (0, 0);
            let text = "the lease was lost with the connection";
            self.answer_all(&Error::new(ErrorCode::LeaseLost, "message.ack_confirmed", text));
        }
        (self.lease, self.urge())
    }

    /// The stream is over for good.
    pub(crate) fn end(&mut self, error: &Error) {
        self.lease = self.lease.wrapping_add(1);
        self.answer_all(error);
    }

    fn answer_all(&mut self, error: &Error) {
        self.confirmed_unsent = 0;
        for waiting in self.confirmed.drain(..) {
            // Whoever stopped waiting wants no answer.
            let _ = waiting.answer.send(Err(error.clone()));
        }
    }

    /// The server answered settlements. Gives whether anybody waited for it.
    pub(crate) fn settled(&mut self, first_seq: u64, count: u32, error: Option<&Error>) -> bool {
        let range = first_seq..first_seq.saturating_add(u64::from(count));
        let mut waited = !self.last.is_empty() && self.confirm_last(first_seq, range.end);
        let mut at = 0;
        while at < self.confirmed.len() {
            if self.confirmed[at].sent && range.contains(&self.confirmed[at].seq) {
                let waiting = self.confirmed.swap_remove(at);
                waited = true;
                let _ = waiting.answer.send(error.map_or(Ok(()), |e| Err(e.clone())));
            } else {
                at += 1;
            }
        }
        if error.is_some_and(|e| e.code() == ErrorCode::LeaseLost) && !self.leaving {
            let gone: Vec<u64> = self.held.range(range).map(|(seq, _)| *seq).collect();
            for seq in gone {
                self.held.remove(&seq);
                if self.lost.len() == LOST_MAX {
                    self.lost.pop_front();
                }
                self.lost.push_back(seq);
            }
        }
        waited
    }

    /// Some of the last acks are on disk, or nobody's any more. Gives whether they were among them.
    fn confirm_last(&mut self, from: u64, to: u64) -> bool {
        let mut hit = false;
        let mut left = Vec::with_capacity(self.last.len());
        for (first, count) in self.last.drain(..) {
            let end = first + u64::from(count);
            if end <= from || first >= to {
                left.push((first, count));
                continue;
            }
            hit = true;
            if first < from {
                left.push((first, (from - first) as u32));
            }
            if end > to {
                left.push((to, (end - to) as u32));
            }
        }
        self.last = left;
        if self.last.is_empty()
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
        hit
    }

    /// The linger is over.
    pub(crate) fn lingered(&mut self) {
        self.lingering = false;
        self.flush |= !self.acks.is_empty();
    }

    /// The next frame of a stream's body.
    pub(crate) fn next(&mut self, stream: u64, now: Instant, cx: &Context<'_>) -> Next {
        if self.stream != stream {
            return Next::End;
        }
        if let Some(reauth) = self.reauth.take() {
            return Next::Frame(reauth);
        }
        if self.ready {
            if self.flush {
                let frame = self.frame(now);
                if frame.len() > 0 {
                    return Next::Frame(frame);
                }
                self.flush = false;
            }
            if self.leaving && self.last.is_empty() {
                return Next::End;
            }
        }
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        if self.ready && !self.leaving && !self.acks.is_empty() {
            self.lingering = true;
            return Next::Linger;
        }
        Next::Wait
    }

    /// Writes what there is, up to the limits of a frame.
    fn frame(&mut self, now: Instant) -> Outgoing {
        let mut out = BytesMut::with_capacity(64);
        let mut left = limits::SETTLEMENTS_PER_FRAME_MAX;
        if let Some((messages, bytes)) = self.credit.take() {
            convert::put_credit(&mut out, messages, bytes);
        }
        self.forget_old(now);
        if self.leaving {
            // Said once more and answered this time: nothing that was done shall come again for want of a last word.
            for (_, first, count) in self.recent.drain(..) {
                self.acks.add_range(first, count);
            }
        }
        let acks = self.acks.take(left);
        left -= acks.len();
        for (first, count) in acks {
            if self.leaving {
                put_range(&mut out, RangeField::ConfirmedAck, first, count);
                self.last.push((first, count));
                continue;
            }
            put_range(&mut out, RangeField::Ack, first, count);
            if self.recent.len() == RECENT_MAX {
                self.recent.pop_front();
            }
            self.recent.push_back((now, first, count));
        }
        if self.acks.is_empty() {
            (self.acked_messages, self.acked_bytes) = (0, 0);
        }
        if self.confirmed_unsent > 0 {
            let mut ranges = Ranges::default();
            self.confirmed.iter().filter(|w| !w.sent).for_each(|w| ranges.add(w.seq));
            let taken = ranges.take(left);
            left -= taken.len();
            for (first, count) in taken {
                put_range(&mut out, RangeField::ConfirmedAck, first, count);
                let range = first..first + u64::from(count);
                for waiting in self.confirmed.iter_mut().filter(|w| !w.sent && range.contains(&w.seq)) {
                    waiting.sent = true;
                    self.confirmed_unsent -= 1;
                }
            }
        }
        for (ranges, field) in [(&mut self.progress, RangeField::Progress), (&mut self.releases, RangeField::Release)] {
            let taken = ranges.take(left);
            left -= taken.len();
            for (first, count) in taken {
                put_range(&mut out, field, first, count);
            }
        }
        while left > 0
            && out.len() < FRAME_BYTES
            && let Some(negative) = self.negatives.pop_front()
        {
            convert::put_negative(&mut out, &negative);
            left -= 1;
        }
        Outgoing::small(out)
    }

    fn forget_old(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|(at, _, _)| now.duration_since(*at) > RECENT_FOR) {
            self.recent.pop_front();
        }
    }
}
