//! The producer session: messages are encoded straight into the open frame, frames are kept until they are answered,
//! and whatever is not answered when the connection breaks is sent again, byte for byte and in order, before anything
//! new. Pure book-keeping under one short lock: no clock, no network.
//!
//! Budget of a publish: one lock, one copy of the payload, no allocation of its own (a frame allocates once).

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use acb_types::{ClassId, limits};
use bytes::BytesMut;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{
    frame::Frame,
    receipt::{FrameCell, Receipt, Wakers},
    window::{Ticket, WaitRoom},
};
use crate::{
    error::{Error, Result},
    transport::wire::{Ack, Outgoing, PUBLISH_HEAD_MAX},
};

/// Bytes of messages in a frame of more than one.
const FRAME_BODY_MAX: usize = limits::FRAME_BYTES_MAX - PUBLISH_HEAD_MAX;
/// Least that is allocated for frames at once.
const BUFFER_MIN: usize = 4096;
/// How long the acknowledgement of a frame may wait when nobody waits for it, in milliseconds.
const ACK_LINGER_MS: u8 = 10;
/// And only while at most this share of the window is in use: who needs the room must not stand still for it.
const ACK_LINGER_SHARE: usize = 4;
/// Ticks of [`Producer::tick`] that a message may stay unanswered.
pub(crate) const TICKS_MAX: u32 = 4;

/// How much may be unanswered, and how it is cut into frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) messages: u32,
    pub(crate) bytes: usize,
    pub(crate) frame_messages: u32,
}

/// The frame that is being filled.
#[derive(Debug)]
struct Assembly {
    buffer: BytesMut,
    count: u32,
    first: u64,
    class: ClassId,
    level: u8,
    /// All its messages are.
    patient: bool,
    cell: Arc<FrameCell>,
}

#[derive(Debug)]
struct State {
    /// Why no more publishes are taken.
    closed: Option<Error>,
    epoch: u32,
    assembly: Assembly,
    /// Number of the next message.
    next: u64,
    /// Sealed and not sent on the present stream, by number.
    unsent: VecDeque<Frame>,
    /// Sent on the present stream and not answered, by number.
    sent: VecDeque<Frame>,
    open_messages: u32,
    open_bytes: usize,
    tick: u32,
    /// The present stream; a body of another one ends.
    stream: u64,
    /// The present stream takes no more frames.
    half_closed: bool,
    waker: Option<Waker>,
    reauth: Option<Outgoing>,
    /// Nothing is sent before this.
    hold_until: Option<Instant>,
    room: WaitRoom,
    /// Woken when nothing is unanswered any more.
    idle: Vec<Waker>,
    /// Whether anything was ever published.
    started: bool,
}

/// What the stream's body does next.
#[derive(Debug)]
pub(crate) enum Next {
    Frame(Outgoing),
    /// Nothing before this.
    Hold(Instant),
    /// Nothing now; the waker is kept.
    Wait,
    End,
}

/// Why a publish was not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The window is full.
    Full,
    /// The client is closed.
    Closed(Error),
}

/// One client's producer session.
#[derive(Debug)]
pub(crate) struct Producer {
    id: [u8; limits::SESSION_ID_BYTES],
    window: Window,
    state: Mutex<State>,
    /// Told at the first publish, so that a client that never publishes opens no stream.
    pub(crate) start: tokio::sync::Notify,
}

impl Producer {
    pub(crate) fn new(id: [u8; limits::SESSION_ID_BYTES], window: Window) -> Self {
        let assembly = Assembly {
            buffer: BytesMut::new(),
            count: 0,
            first: 1,
            class: ClassId::TOPICS,
            level: 0,
            patient: true,
            cell: Arc::default(),
        };
        let state = State {
            closed: None,
            epoch: 1,
            assembly,
            next: 1,
            unsent: VecDeque::new(),
            sent: VecDeque::new(),
            open_messages: 0,
            open_bytes: 0,
            tick: 0,
            stream: 0,
            half_closed: false,
            waker: None,
            reauth: None,
            hold_until: None,
            room: WaitRoom::default(),
            idle: Vec::new(),
            started: false,
        };
        Self { id, window, state: Mutex::new(state), start: tokio::sync::Notify::new() }
    }

    pub(crate) fn id(&self) -> [u8; limits::SESSION_ID_BYTES] {
        self.id
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.state.lock().epoch
    }

    /// Encodes one message into the open frame. `size` is at least what it takes; `encode` must append one message in
    /// canonical form. `patient` says that its receipt matters only when it is a refusal.
    #[inline]
    pub(crate) fn push(
        &self,
        class: ClassId,
        level: u8,
        patient: bool,
        size: usize,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Result<Receipt, Refused> {
        let mut state = self.state.lock();
        let st = &mut *state;
        if let Some(error) = &st.closed {
            return Err(Refused::Closed(error.clone()));
        }
        let full = st.open_messages >= self.window.messages || st.open_bytes + size > self.window.bytes;
        if full && st.open_messages > 0 {
            return Err(Refused::Full);
        }
        let a = &st.assembly;
        if a.count > 0 && (a.level != level || a.class != class || a.buffer.len() + size > FRAME_BODY_MAX) {
            st.seal();
        }
        let a = &mut st.assembly;
        if a.buffer.capacity() - a.buffer.len() < size {
            // Room for as many of this size as may follow in this frame; what is left over serves the next.
            let many = size * self.window.frame_messages as usize;
            a.buffer.reserve(many.clamp(BUFFER_MIN, limits::FRAME_BYTES_MAX).max(size));
        }
        a.class = class;
        a.level = level;
        a.patient &= patient;
        let before = a.buffer.len();
        encode(&mut a.buffer);
        st.open_bytes += a.buffer.len() - before;
        st.open_messages += 1;
        let receipt = Receipt::new(Arc::clone(&a.cell), a.count);
        a.count += 1;
        st.next += 1;
        if a.count >= self.window.frame_messages || a.buffer.len() >= FRAME_BODY_MAX {
            st.seal();
        }
        let first = !std::mem::replace(&mut st.started, true);
        let waker = st.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        if first {
            self.start.notify_one();
        }
        Ok(receipt)
    }

    /// Waits for room.
    pub(crate) fn poll_room(&self, size: usize, ticket: &mut Option<Ticket>, cx: &Context<'_>) -> Poll<()> {
        let mut st = self.state.lock();
        let full = st.open_messages >= self.window.messages || st.open_bytes + size > self.window.bytes;
        if !full || st.open_messages == 0 || st.closed.is_some() {
            return Poll::Ready(());
        }
        st.room.wait(ticket, cx);
        Poll::Pending
    }

    /// One who waited came in or gave up. Whoever was called and finds room left calls the next.
    pub(crate) fn leave_room(&self, ticket: Ticket) {
        let mut wakers = Wakers::new();
        self.state.lock().room.leave(ticket, &mut wakers);
        wake(wakers);
    }

    /// Starts a stream: everything that is unanswered is to be sent on it, in order, before anything new.
    pub(crate) fn begin_stream(&self) -> u64 {
        let mut st = self.state.lock();
        st.stream += 1;
        st.half_closed = false;
        st.waker = None;
        st.reauth = None;
        let old = std::mem::take(&mut st.sent);
        for frame in old {
            for (from, to) in frame.open_parts() {
                let part = frame.part(from, to);
                st.requeue(part);
            }
        }
        st.stream
    }

    /// The next frame of a stream's body.
    pub(crate) fn next_frame(&self, stream: u64, cx: &Context<'_>) -> Next {
        let mut st = self.state.lock();
        if st.stream != stream {
            return Next::End;
        }
        if let Some(reauth) = st.reauth.take() {
            return Next::Frame(reauth);
        }
        if st.half_closed {
            return Next::End;
        }
        if let Some(until) = st.hold_until {
            if Instant::now() < until {
                st.keep_waker(cx);
                return Next::Hold(until);
            }
            st.hold_until = None;
        }
        if st.unsent.is_empty() {
            st.seal();
        }
        let Some(frame) = st.unsent.pop_front() else {
            if st.closed.is_some() {
                return Next::End;
            }
            st.keep_waker(cx);
            return Next::Wait;
        };
        // A receipt that was dropped is waited for by nobody.
        let roomy = st.open_messages as usize * ACK_LINGER_SHARE <= self.window.messages as usize
            && st.open_bytes * ACK_LINGER_SHARE <= self.window.bytes;
        let unwatched = frame.patient || (frame.whole && Arc::strong_count(&frame.cell) == 1);
        let linger_ms = if roomy && unwatched { ACK_LINGER_MS } else { 0 };
        let out = Outgoing::publish(frame.first, frame.level, linger_ms, frame.body.clone());
        let at = match st.sent.back() {
            Some(last) if last.first > frame.first => st.sent.partition_point(|f| f.first < frame.first),
            _ => st.sent.len(),
        };
        st.sent.insert(at, frame);
        Next::Frame(out)
    }

    /// Messages are stored.
    pub(crate) fn acked(&self, ack: &Ack, wakers: &mut Wakers) {
        let mut state = self.state.lock();
        let st = &mut *state;
        let end = ack.counter.saturating_add(u64::from(ack.count));
        let mut at = st.position_sent(ack.counter);
        let mut answered = 0;
        while let Some(frame) = st.sent.get_mut(at)
            && frame.first < end
        {
            let whole = frame.whole && frame.done.is_empty() && frame.first >= ack.counter && frame.end() <= end;
            if whole {
                let first_seq = shifted(ack.first_seq, frame.first - ack.counter);
                frame.cell.resolve_whole(&Ack { first_seq, ..*ack }, wakers);
                answered += frame.count;
                frame.done.push((0, frame.count));
            } else {
                let from = ack.counter.max(frame.first) - frame.first;
                let to = end.min(frame.end()) - frame.first;
                let (first, index, cell) = (frame.first, frame.index, Arc::clone(&frame.cell));
                frame.mark(from as u32, to as u32, |from, to| {
                    let first_seq = shifted(ack.first_seq, first + u64::from(from) - ack.counter);
                    cell.resolve_stored(index + from, &Ack { first_seq, count: to - from, ..*ack }, wakers);
                    answered += to - from;
                });
            }
            at = st.drop_if_done(at);
        }
        st.answered(answered, wakers);
    }

    /// Messages were refused. Those that may succeed later are sent again, first of all, when the hint is over.
    pub(crate) fn rejected(&self, counter: u64, count: u32, error: &Error, now: Instant, wakers: &mut Wakers) {
        let mut state = self.state.lock();
        let st = &mut *state;
        let end = counter.saturating_add(u64::from(count));
        let again = error.is_retryable() && st.closed.is_none();
        let mut at = st.position_sent(counter);
        let mut answered = 0;
        let mut later: SmallVec<[Frame; 1]> = SmallVec::new();
        while let Some(frame) = st.sent.get_mut(at)
            && frame.first < end
        {
            let from = (counter.max(frame.first) - frame.first) as u32;
            let to = (end.min(frame.end()) - frame.first) as u32;
            let mut fresh: SmallVec<[(u32, u32); 1]> = SmallVec::new();
            frame.mark(from, to, |from, to| fresh.push((from, to)));
            for (from, to) in fresh {
                if again {
                    let part = frame.part(from, to);
                    frame.bytes -= part.bytes.min(frame.bytes);
                    later.push(part);
                } else {
                    frame.cell.resolve_failed(frame.index + from, to - from, error.clone(), wakers);
                    answered += to - from;
                }
            }
            at = st.drop_if_done(at);
        }
        if !later.is_empty() {
            for part in later {
                st.requeue(part);
            }
            st.hold(now + error.retry_after().unwrap_or_default());
            wakers.extend(st.waker.take());
        }
        st.answered(answered, wakers);
    }

    /// The server asks to hold back.
    pub(crate) fn hold_until(&self, until: Instant) {
        self.state.lock().hold(until);
    }

    /// The present stream gets no more frames; what comes waits for the next.
    pub(crate) fn half_close(&self) {
        let mut st = self.state.lock();
        st.half_closed = true;
        let waker = st.waker.take();
        drop(st);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A fresh token for the present stream.
    pub(crate) fn reauth(&self, frame: Outgoing) {
        let mut st = self.state.lock();
        st.reauth = Some(frame);
        let waker = st.waker.take();
        drop(st);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A quarter of the publish timeout is over: what is unanswered for too long is given up.
    pub(crate) fn tick(&self, error: &Error) {
        let mut wakers = Wakers::new();
        let mut state = self.state.lock();
        let st = &mut *state;
        st.seal();
        st.tick = st.tick.wrapping_add(1);
        let now = st.tick;
        let mut answered = 0;
        let mut bytes = 0;
        let mut overdue = |frame: &Frame| {
            if now.wrapping_sub(frame.tick) <= TICKS_MAX {
                return false;
            }
            for (from, to) in frame.open_parts() {
                frame.cell.resolve_failed(frame.index + from, to - from, error.clone(), &mut wakers);
                answered += to - from;
            }
            bytes += frame.bytes;
            true
        };
        st.sent.retain(|f| !overdue(f));
        st.unsent.retain(|f| !overdue(f));
        st.open_bytes -= bytes.min(st.open_bytes);
        st.answered(answered, &mut wakers);
        drop(state);
        wake(wakers);
    }

    /// Gives up everything that is unanswered. The next publish starts a new session under the same id.
    pub(crate) fn fail(&self, error: &Error) {
        self.give_up(error, false);
    }

    /// Takes no more publishes and gives up what is unanswered.
    pub(crate) fn close(&self, error: &Error) {
        self.give_up(error, true);
    }

    fn give_up(&self, error: &Error, close: bool) {
        let mut wakers = Wakers::new();
        let mut state = self.state.lock();
        let st = &mut *state;
        st.seal();
        for frame in st.sent.drain(..).chain(st.unsent.drain(..)) {
            for (from, to) in frame.open_parts() {
                frame.cell.resolve_failed(frame.index + from, to - from, error.clone(), &mut wakers);
            }
        }
        st.open_messages = 0;
        st.open_bytes = 0;
        st.hold_until = None;
        // The body of the stream that failed must not carry what belongs to the next session.
        st.stream += 1;
        st.epoch += 1;
        st.next = 1;
        st.assembly.first = 1;
        st.started = false;
        if close {
            st.closed.get_or_insert_with(|| error.clone());
        }
        wakers.extend(st.waker.take());
        wakers.extend(st.idle.drain(..));
        st.room.call(usize::MAX, &mut wakers);
        drop(state);
        wake(wakers);
    }

    /// Waits until nothing is unanswered.
    pub(crate) fn poll_idle(&self, cx: &Context<'_>) -> Poll<()> {
        let mut st = self.state.lock();
        if st.open_messages == 0 {
            return Poll::Ready(());
        }
        st.idle.push(cx.waker().clone());
        Poll::Pending
    }

    /// Messages that are unanswered.
    pub(crate) fn open_messages(&self) -> u32 {
        self.state.lock().open_messages
    }
}

impl State {
    fn seal(&mut self) {
        let a = &mut self.assembly;
        if a.count == 0 {
            return;
        }
        let body = a.buffer.split().freeze();
        self.unsent.push_back(Frame {
            first: a.first,
            count: a.count,
            level: a.level,
            patient: std::mem::replace(&mut a.patient, true),
            cell: std::mem::take(&mut a.cell),
            index: 0,
            whole: true,
            done: SmallVec::new(),
            bytes: body.len(),
            tick: self.tick,
            body,
        });
        a.first = self.next;
        a.count = 0;
    }

    /// Puts a frame back among the unsent, at its place by number.
    fn requeue(&mut self, frame: Frame) {
        let at = self.unsent.partition_point(|f| f.first < frame.first);
        self.unsent.insert(at, frame);
    }

    /// Index of the first sent frame that ends after this number.
    fn position_sent(&self, counter: u64) -> usize {
        match self.sent.front() {
            Some(front) if front.end() > counter => 0,
            _ => self.sent.partition_point(|f| f.end() <= counter),
        }
    }

    /// Drops the frame at `at` when it is answered; says where to go on.
    fn drop_if_done(&mut self, at: usize) -> usize {
        if !self.sent[at].is_done() {
            return at + 1;
        }
        let frame = if at == 0 { self.sent.pop_front() } else { self.sent.remove(at) };
        let bytes = frame.map_or(0, |f| f.bytes);
        self.open_bytes -= bytes.min(self.open_bytes);
        at
    }

    fn answered(&mut self, count: u32, wakers: &mut Wakers) {
        if count == 0 {
            return;
        }
        self.open_messages -= count.min(self.open_messages);
        if !self.room.is_empty() {
            self.room.call(count as usize, wakers);
        }
        if self.open_messages == 0 {
            wakers.extend(self.idle.drain(..));
        }
    }

    fn hold(&mut self, until: Instant) {
        self.hold_until = Some(self.hold_until.map_or(until, |held| held.max(until)));
    }

    fn keep_waker(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

/// A seq moved on; 0, which means "not known", stays.
fn shifted(first_seq: u64, by: u64) -> u64 {
    if first_seq == 0 { 0 } else { first_seq + by }
}

pub(crate) fn wake(wakers: Wakers) {
    for waker in wakers {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_an_older_stream_takes_nothing_from_the_present_one() {
        let producer = Producer::new([1; 16], Window { messages: 8, bytes: 1024, frame_messages: 1 });
        let cx = Context::from_waker(Waker::noop());
        let push = || producer.push(ClassId::TOPICS, 1, false, 4, |out| out.extend_from_slice(b"body"));
        let (_first, old) = (push().unwrap(), producer.begin_stream());
        assert!(matches!(producer.next_frame(old, &cx), Next::Frame(_)));
        let present = producer.begin_stream();
        assert!(matches!(producer.next_frame(old, &cx), Next::End));
        assert!(matches!(producer.next_frame(present, &cx), Next::Frame(_)), "what was not answered goes again");
        assert!(matches!(producer.next_frame(present, &cx), Next::Wait));
    }

    #[test]
    fn an_acknowledgement_may_wait_when_nobody_waits_for_it_and_nobody_needs_the_room() {
        let producer = Producer::new([1; 16], Window { messages: 8, bytes: 1024, frame_messages: 1 });
        let cx = Context::from_waker(Waker::noop());
        let stream = producer.begin_stream();
        let push =
            |patient| producer.push(ClassId::TOPICS, 1, patient, 4, |out| out.extend_from_slice(b"body")).unwrap();
        let lingers = || {
            let Next::Frame(frame) = producer.next_frame(stream, &cx) else { panic!("no frame") };
            // Counter and level are two bytes each.
            frame.head.get(4..) == Some(&[5 << 3, ACK_LINGER_MS])
        };
        let kept = push(false);
        assert!(!lingers(), "somebody holds the receipt");
        drop(push(false));
        assert!(lingers(), "the receipt was dropped");
        let ack = Ack {
            counter: 1,
            count: 2,
            class: 1,
            partition: 0,
            epoch: 1,
            first_seq: 1,
            durability: 1,
            duplicate: false,
        };
        producer.acked(&ack, &mut Wakers::new());
        let patient = push(true);
        assert!(lingers(), "whoever holds the receipt is patient");
        let second = push(true);
        assert!(lingers());
        let third = push(true);
        assert!(!lingers(), "three of eight are open: the rest may be needed soon");
        drop((kept, patient, second, third));
    }
}
