//! The way of messages down: one consumer a stream, with what has arrived, what is to be said, and which leases hold.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use acb_types::limits;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{Core, Event},
    convert,
    error::{Error, Result},
    message::Message,
    subscribe::Gap,
    subscriptions::SubscriptionSpec,
    transport::wire::ConsumeFrame,
};

pub(crate) mod frame;
pub(crate) mod ranges;
pub(crate) mod settle;
pub(crate) mod stream;

use frame::{Cursor, Frame};
use settle::{Lease, Pace, Settle};

/// Late replies that wait in an inbox that nobody reads; more stay unacknowledged on the bus.
const LATE_MAX: usize = 1024;

/// What to consume.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A durable subscription, or an implicit one.
    Named(String),
    /// Lives with the session.
    Ephemeral(SubscriptionSpec),
}

/// Where arrived messages go.
pub(crate) enum Sink {
    /// To whoever asks for the next.
    Queue,
    /// To those who wait for replies.
    Replies(Arc<dyn Fn(Message) + Send + Sync>),
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Queue => "Queue",
            Self::Replies(_) => "Replies",
        })
    }
}

/// Something that arrived.
#[derive(Debug)]
pub(crate) enum Item {
    Frame(Arc<Frame>),
    /// A single message from elsewhere: a late reply.
    Message(Message),
    Gap(Gap),
}

#[derive(Debug, Default)]
struct Arrived {
    queue: VecDeque<Item>,
    late: usize,
    waker: Option<Waker>,
    /// Number of the next delivery.
    expected: u64,
    /// The stream is over for good, by the error unless it was left.
    ended: bool,
    error: Option<Error>,
}

/// How much may be here at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credit {
    pub(crate) messages: u32,
    pub(crate) bytes: u64,
}

/// One consumer session. Bounded by its credit: the bus sends no more than that, so the queue needs no bound of its own.
#[derive(Debug)]
pub(crate) struct Consumer {
    core: Arc<Core>,
    source: Source,
    name: String,
    session: [u8; limits::SESSION_ID_BYTES],
    sink: Sink,
    credit: Mutex<Credit>,
    quarter_messages: AtomicU32,
    quarter_bytes: AtomicU64,
    ack_wait_ms: AtomicU64,
    keeps_leases: AtomicBool,
    gone: AtomicBool,
    /// Messages handed out and not settled.
    handed: AtomicI64,
    /// Class in the upper half, partition in the lower.
    place: AtomicU32,
    arrived: Mutex<Arrived>,
    settle: Mutex<Settle>,
    /// The subscription was dropped: the stream says goodbye.
    left: CancellationToken,
}

impl Consumer {
    pub(crate) fn new(core: Arc<Core>, source: Source, sink: Sink, credit: Credit) -> Arc<Self> {
        let name = match &source {
            Source::Named(name) => name.clone(),
            Source::Ephemeral(spec) => spec.name().to_owned(),
        };
        let consumer = Arc::new(Self {
            core,
            source,
            name,
            session: rand::random(),
            sink,
            credit: Mutex::new(credit),
            quarter_messages: AtomicU32::new(0),
            quarter_bytes: AtomicU64::new(0),
            ack_wait_ms: AtomicU64::new(crate::time::millis(limits::LEASE)),
            keeps_leases: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            handed: AtomicI64::new(0),
            place: AtomicU32::new(0),
            arrived: Mutex::new(Arrived { expected: 1, ..Arrived::default() }),
            settle: Mutex::default(),
            left: CancellationToken::new(),
        });
        consumer.set_quarters(credit);
        consumer.core.add_consumer(&consumer);
        consumer
    }

    fn set_quarters(&self, credit: Credit) {
        self.quarter_messages.store((credit.messages / 4).max(1), Ordering::Relaxed);
        self.quarter_bytes.store((credit.bytes / 4).max(1), Ordering::Relaxed);
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn ack_wait(&self) -> Duration {
        Duration::from_millis(self.ack_wait_ms.load(Ordering::Relaxed))
    }

    /// Adds a plain ack.
    #[inline]
    pub(crate) fn ack(&self, seq: u64, bytes: u64, lease: Lease) -> Result<()> {
        let pace = Pace {
            quarter_messages: self.quarter_messages.load(Ordering::Relaxed),
            quarter_bytes: self.quarter_bytes.load(Ordering::Relaxed),
            at_once: self.core.options().ack_linger.is_zero(),
        };
        let waker = self.settle.lock().ack(seq, bytes, lease, pace)?;
        self.handled();
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Changes what is to be said, and wakes the stream's body when it must look.
    pub(crate) fn settle(&self, change: impl FnOnce(&mut Settle) -> Result<Option<Waker>>) -> Result<()> {
        let waker = change(&mut self.settle.lock())?;
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// As [`Self::settle`], for what ends a message's time here.
    pub(crate) fn finish(&self, change: impl FnOnce(&mut Settle) -> Result<Option<Waker>>) -> Result<()> {
        self.settle(change)?;
        self.handled();
        Ok(())
    }

    /// A message was handed out.
    #[inline]
    pub(crate) fn handed_out(&self) {
        self.handed.fetch_add(1, Ordering::Relaxed);
    }

    fn handled(&self) {
        self.handed.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether somebody holds a message that is not settled. One that is settled twice may hide another.
    pub(crate) fn is_handling(&self) -> bool {
        self.handed.load(Ordering::Relaxed) > 0
    }

    fn say(&self, change: impl FnOnce(&mut Settle) -> Option<Waker>) {
        let waker = change(&mut self.settle.lock());
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn hold(&self, seq: u64) {
        self.settle.lock().hold(seq, Instant::now());
    }

    /// Keeps the leases of all messages of a frame.
    pub(crate) fn hold_frame(&self, frame: &Frame) {
        let mut settle = self.settle.lock();
        for run in &frame.runs {
            for seq in run.first_seq..run.first_seq + u64::from(run.count) {
                settle.hold(seq, frame.arrived);
            }
        }
    }

    /// Whether a message's lease is kept: it was neither settled nor lost since.
    pub(crate) fn is_held(&self, seq: u64) -> bool {
        self.settle.lock().is_held(seq)
    }

    pub(crate) fn let_go(&self, seq: u64) {
        self.settle.lock().let_go(seq);
    }

    pub(crate) fn reauth(&self, access_token: &str) {
        let frame = convert::consume_reauth(access_token);
        self.say(|s| s.reauth(frame));
    }

    /// Changes what may be here at once.
    pub(crate) fn set_credit(&self, credit: Credit) {
        *self.credit.lock() = credit;
        self.set_quarters(credit);
        self.say(|s| s.credit(credit.messages, credit.bytes));
    }

    /// Says goodbye: what is settled is sent, everything else goes back to the bus.
    pub(crate) fn leave(&self) {
        self.left.cancel();
        self.say(Settle::leave);
        let mut arrived = self.arrived.lock();
        arrived.ended = true;
        // What is in the queue points back here.
        let queue = std::mem::take(&mut arrived.queue);
        drop(arrived);
        drop(queue);
    }

    /// The next frame, when it is what arrived next.
    pub(crate) fn peek_frame(&self) -> Option<Arc<Frame>> {
        let mut arrived = self.arrived.lock();
        match arrived.queue.front() {
            Some(Item::Frame(_)) => match arrived.queue.pop_front() {
                Some(Item::Frame(frame)) => Some(frame),
                _ => None,
            },
            _ => None,
        }
    }

    /// Renews leases of what waits here too, from now on: there is somebody who handles it.
    pub(crate) fn keep_leases(&self) {
        self.keeps_leases.store(true, Ordering::Relaxed);
    }

    /// Whether leases of what waits here are renewed.
    pub(crate) fn renews(&self) -> bool {
        self.keeps_leases.load(Ordering::Relaxed)
    }

    /// Renews the leases of what is handled, and of what waits for it.
    fn renew(&self) {
        if self.renews() {
            let arrived = self.arrived.lock();
            let waiting: Vec<(u64, u32)> = arrived
                .queue
                .iter()
                .filter_map(|item| if let Item::Frame(frame) = item { Some(frame) } else { None })
                .filter(|frame| frame.arrived.elapsed() < limits::LEASE_MAX)
                .flat_map(|frame| frame.runs.iter().map(|run| (run.first_seq, run.count)))
                .collect();
            drop(arrived);
            self.say(|s| s.progress_ranges(waiting));
        }
        self.say(|s| s.renew(Instant::now()));
    }

    /// The next thing that arrived; `None` when there will be no more.
    pub(crate) fn poll_item(&self, cx: &Context<'_>) -> Poll<Option<Result<Item>>> {
        let mut arrived = self.arrived.lock();
        if let Some(item) = arrived.queue.pop_front() {
            if matches!(item, Item::Message(_)) {
                arrived.late -= 1;
            }
            return Poll::Ready(Some(Ok(item)));
        }
        if arrived.ended {
            // The error is told once.
            return Poll::Ready(arrived.error.take().map(Err));
        }
        match &mut arrived.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn push(&self, items: impl IntoIterator<Item = Item>) {
        let mut arrived = self.arrived.lock();
        if arrived.ended {
            return;
        }
        arrived.queue.extend(items);
        let waker = if arrived.queue.is_empty() { None } else { arrived.waker.take() };
        drop(arrived);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Gives a late reply to whoever reads this. Says whether there was room.
    pub(crate) fn push_late(&self, message: Message) -> bool {
        let mut arrived = self.arrived.lock();
        if arrived.ended || arrived.late == LATE_MAX {
            return false;
        }
        arrived.late += 1;
        arrived.queue.push_back(Item::Message(message.flagged_late()));
        let waker = arrived.waker.take();
        drop(arrived);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Whether somebody reads the agent's inbox through this.
    pub(crate) fn is_inbox(&self) -> bool {
        self.name.starts_with("$inbox.") && self.is_open()
    }

    /// Whether a subscription reads it.
    pub(crate) fn is_queue(&self) -> bool {
        matches!(self.sink, Sink::Queue)
    }

    /// Whether its stream is over, with everything said.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Lets whoever waits for the next message look again.
    pub(crate) fn wake_reader(&self) {
        if let Some(waker) = self.arrived.lock().waker.take() {
            waker.wake();
        }
    }

    /// Whether it is neither left nor ended.
    pub(crate) fn is_open(&self) -> bool {
        !self.arrived.lock().ended
    }

    /// The server answered the open.
    fn opened(&self, opened: &convert::Opened) {
        self.ack_wait_ms.store(opened.ack_wait_ms, Ordering::Relaxed);
        self.place.store(opened.class << 16 | opened.partition, Ordering::Relaxed);
        if !opened.resumed {
            self.handed.store(0, Ordering::Relaxed);
            let mut arrived = self.arrived.lock();
            arrived.expected = 1;
            // Their leases are lost; the bus gives them again, to whomever.
            arrived.queue.retain(|item| !matches!(item, Item::Frame(_)));
        }
        self.say(|s| s.opened(opened.resumed).1);
    }

    /// Takes a frame of messages. `false` when deliveries are missing before it.
    fn deliver(self: &Arc<Self>, frame: ConsumeFrame) -> bool {
        let count = frame.count();
        if count > 0 {
            let mut arrived = self.arrived.lock();
            if frame.delivery > arrived.expected {
                return false;
            }
            if frame.delivery < arrived.expected {
                // Said again: those before were taken already. A frame is resent whole or not at all.
                return true;
            }
            arrived.expected += count;
        }
        let gaps = frame.gaps.iter().map(|g| convert::gap(g));
        let mut items: smallvec::SmallVec<[Item; 1]> = smallvec::SmallVec::new();
        for gap in gaps {
            self.core.tell(Event::Gap { subscription: self.name.clone(), gap: gap.clone() });
            items.push(Item::Gap(gap));
        }
        if count > 0 {
            let place = self.place.load(Ordering::Relaxed);
            let frame = Arc::new(Frame {
                body: frame.body,
                runs: frame.runs,
                consumer: Arc::clone(self),
                lease: self.settle.lock().lease(),
                arrived: Instant::now(),
                class: (place >> 16) as u8,
                partition: place as u16,
            });
            match &self.sink {
                Sink::Queue => items.push(Item::Frame(frame)),
                Sink::Replies(route) => {
                    let mut cursor = Cursor::new(frame);
                    while let Some(Ok(message)) = cursor.next() {
                        route(message);
                    }
                }
            }
        }
        self.push(items);
        true
    }

    /// The stream is over for good.
    fn end(&self, error: Option<Error>) {
        self.gone.store(true, Ordering::Release);
        let why = error.clone().unwrap_or_else(|| Error::closed("subscription.next"));
        self.settle.lock().end(&why);
        let mut arrived = self.arrived.lock();
        if !std::mem::replace(&mut arrived.ended, true) {
            arrived.error = error;
        }
        let waker = arrived.waker.take();
        drop(arrived);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
