//! `MessageService.PublishStream`: frames of messages up, ranges of acknowledgements down.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use acb_proto::v1;
use acb_types::{
    AgentId, Durability, ErrorCode, Incarnation, ProducerKey,
    batch::{Batch, Sender},
    frame::{self, FrameError, Walked, flag},
    limits,
    name::Address,
};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use prost::Message as _;
use smallvec::SmallVec;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{
    codec::OutFrame,
    hot::{self, Caller, Control, FRAMES_PER_POLL, HotContext, Watch},
    status, untyped,
};
use crate::{
    auth::policy::Verb,
    delivery::{
        Partition,
        core::{Op, cut},
        keys_of,
        outbox::{Acked, PublishNews, PublishOutbox},
        producer_key, tick,
    },
    error::AppError,
    presence::PresenceGuard,
};

/// Messages that a stream may have unanswered before it is no longer read: a publisher that outruns the disk waits in
/// its own send window, not in our memory.
const UNANSWERED_MAX: u64 = 16_384;
/// Messages of one frame that are refused one by one; a frame with more bad ones is refused from there on.
const BAD_PER_FRAME_MAX: usize = 16;
/// Ranges of acknowledgements that wait for company at most.
const ACKS_HELD_MAX: usize = 8;

/// What a client may not send, or not to this version.
const UNSUPPORTED: u16 = flag::NOT_BEFORE | flag::ORIGINAL_TOPIC;

/// An open producer session.
#[derive(Debug)]
struct Open {
    producer: ProducerKey,
    epoch: u32,
    sender: Arc<Sender>,
    /// Online while it lives.
    _presence: PresenceGuard,
}

/// The response stream of one publisher.
#[derive(Debug)]
pub(super) struct PublishStream {
    context: Arc<HotContext>,
    caller: Caller,
    input: Streaming<Bytes>,
    outbox: Arc<PublishOutbox>,
    open: Option<Open>,
    watch: Watch,
    fence: CancellationToken,
    /// Frames that this stream itself has to say, before those of the outbox.
    own: v1::PublishStreamResponse,
    unanswered: u64,
    /// How long the acknowledgements of what is unanswered may wait: as long as the least patient frame allows.
    patience: Duration,
    /// When acknowledgements that wait in `own` go.
    linger: Option<Pin<Box<Sleep>>>,
    input_ended: bool,
    draining: bool,
    done: bool,
}

impl Drop for PublishStream {
    fn drop(&mut self) {
        self.context.metrics.publish_streams.dec();
    }
}

impl PublishStream {
    pub(super) fn new(context: Arc<HotContext>, caller: Caller, input: Streaming<Bytes>) -> Self {
        context.metrics.publish_streams.inc();
        let fence = CancellationToken::new();
        let watch = Watch::new(&context, &caller.session, fence.clone(), false);
        Self {
            context,
            caller,
            input,
            outbox: Arc::default(),
            open: None,
            watch,
            fence,
            own: v1::PublishStreamResponse::default(),
            unanswered: 0,
            patience: limits::PUBLISH_ACK_LINGER,
            linger: None,
            input_ended: false,
            draining: false,
            done: false,
        }
    }

    fn agent(&self) -> &AgentId {
        &self.caller.session.principal.agent
    }

    /// Takes one frame of the client.
    fn take(&mut self, frame: Bytes) -> Result<(), AppError> {
        if self.caller.session.is_revoked() {
            return Err(AppError::of(ErrorCode::TokenRevoked));
        }
        let parsed = Parsed::of(frame)?;
        if let Some(reauth) = &parsed.reauth {
            self.caller.session = self.context.auth.reauth(&self.caller.session, &reauth.token)?;
            self.watch = Watch::new(&self.context, &self.caller.session, self.fence.clone(), false);
        }
        if let Some(open) = &parsed.open {
            self.open(open)?;
        }
        if parsed.body.is_empty() {
            return Ok(());
        }
        let level = level_of(parsed.durability)?;
        let patience = Duration::from_millis(parsed.ack_linger_ms);
        self.patience = self.patience.min(patience);
        self.accept(parsed.counter, level, parsed.body, parsed.walked)
    }

    fn open(&mut self, open: &v1::PublishOpen) -> Result<(), AppError> {
        if self.open.is_some() {
            return Err(AppError::new(ErrorCode::MalformedFrame, "open comes in the first frame only"));
        }
        if open.producer_id.len() != limits::SESSION_ID_BYTES {
            return Err(AppError::invalid("producer_id", format!("must have {} bytes", limits::SESSION_ID_BYTES)));
        }
        let principal = &self.caller.session.principal;
        let given = Incarnation(open.incarnation);
        let presence = self.context.presence.stream_opened(&principal.tenant, &principal.agent, given)?;
        self.fence = presence.fenced().clone();
        self.watch = Watch::new(&self.context, &self.caller.session, self.fence.clone(), false);
        self.open = Some(Open {
            producer: producer_key(&principal.agent, &open.producer_id),
            epoch: open.epoch,
            sender: Arc::new(Sender { agent: principal.agent.clone(), incarnation: given }),
            _presence: presence,
        });
        self.own.opened = Some(v1::PublishOpened { request_id: self.caller.request_id.to_string() });
        Ok(())
    }

    /// Checks a frame's messages and hands them to their partitions. A bad message is refused alone.
    fn accept(
        &mut self,
        counter: u64,
        level: Option<Durability>,
        body: Bytes,
        walked: Result<Walked, FrameError>,
    ) -> Result<(), AppError> {
        if self.open.is_none() {
            return Err(AppError::missing("open"));
        }
        if counter == 0 {
            return Err(AppError::new(ErrorCode::MalformedFrame, "counter starts at 1"));
        }
        let (mut counter, mut body, mut walked) = (counter, body, walked);
        let mut bad = 0;
        loop {
            let error = match walked {
                Ok(walked) => {
                    let too_large = walked.count > 1 && body.len() > limits::FRAME_BYTES_MAX;
                    if too_large {
                        let error = AppError::too_large("frame", body.len(), limits::FRAME_BYTES_MAX);
                        self.refuse(counter, walked.count, &error.with_code(ErrorCode::FrameTooLarge));
                    } else {
                        self.submit(counter, level, body, walked);
                    }
                    return Ok(());
                }
                Err(error) => error,
            };
            let Some(index) = error.index() else {
                let count = count_messages(&body).ok_or_else(|| AppError::from(error.clone()))?;
                self.refuse(counter, count, &AppError::from(error));
                return Ok(());
            };
            // A length that leads out of the frame leaves nothing to go on from.
            let count = count_messages(&body).ok_or_else(|| AppError::from(error.clone()))?;
            bad += 1;
            if bad > BAD_PER_FRAME_MAX {
                self.refuse(counter, count, &AppError::from(error));
                return Ok(());
            }
            let before = frame::prefix_len(&body, index);
            let after = before + frame::prefix_len(&body[before..], 1);
            let good = body.slice(..before);
            if let Ok(walked) = frame::walk(&good)
                && walked.count > 0
            {
                self.submit(counter, level, good, walked);
            }
            self.refuse(counter + u64::from(index), 1, &AppError::from(error));
            counter += u64::from(index) + 1;
            body = body.slice(after..);
            if body.is_empty() {
                return Ok(());
            }
            walked = frame::walk(&body);
        }
    }

    fn refuse(&mut self, counter: u64, count: u32, error: &AppError) {
        let error = Some(status::to_proto(error, self.caller.request_id));
        self.own.rejects.push(v1::PublishReject { counter, count, error });
    }

    /// Hands checked messages to their partition, or to their partitions where they differ.
    fn submit(&mut self, counter: u64, level: Option<Durability>, body: Bytes, walked: Walked) {
        let Some(open) = &self.open else { return };
        let level = match self.context.durability.level(level, is_quick(&walked)) {
            Ok(level) => level,
            Err(error) => return self.refuse(counter, walked.count, &error),
        };
        let batch = Batch {
            count: walked.count,
            flags: walked.flags,
            keys: keys_of(self.agent(), &body, walked.flags),
            body,
            runs: walked.runs,
            sender: Arc::clone(&open.sender),
            producer: open.producer,
            producer_epoch: open.epoch,
            counter,
        };
        if batch.flags & UNSUPPORTED != 0 && batch.count > 1 {
            // Its neighbours must not suffer for it. Flags are of the whole, so each message is looked at by itself.
            let mut rest = batch.body;
            for counter in (counter..).take(batch.count as usize) {
                let one = rest.split_to(frame::prefix_len(&rest, 1));
                if let Ok(walked) = frame::walk(&one) {
                    self.submit(counter, Some(level), one, walked);
                }
            }
            return;
        }
        if batch.flags & UNSUPPORTED != 0 {
            let error = if batch.flags & flag::ORIGINAL_TOPIC != 0 {
                AppError::invalid("original_topic", "is set by the server on redriven dead letters")
            } else {
                AppError::new(ErrorCode::UnsupportedFeature, "not_before_ms is not done by this version")
            };
            self.refuse(counter, batch.count, &error);
            return;
        }
        // Nearly every frame goes to one log whole; one that does not is cut where the log changes.
        let routes: SmallVec<[Result<Arc<Partition>, ErrorCode>; 1]> =
            batch.runs.iter().map(|run| self.caller.tenant.route(run.topic_str()).cloned()).collect();
        if routes.windows(2).all(|pair| same_route(&pair[0], &pair[1])) {
            if let Some(route) = routes.into_iter().next() {
                self.append(route, batch, level);
            }
            return;
        }
        let (mut from, mut at) = (0, 0);
        while from < routes.len() {
            let mut to = from + 1;
            while routes.get(to).is_some_and(|route| same_route(&routes[from], route)) {
                to += 1;
            }
            let count = batch.runs[from..to].iter().map(|run| run.count).sum();
            if let Some(part) = cut(&batch, at, count) {
                self.append(routes[from].clone(), part, level);
            }
            at += count;
            from = to;
        }
    }

    fn append(&mut self, route: Result<Arc<Partition>, ErrorCode>, batch: Batch, level: Durability) {
        match route {
            Ok(partition) => {
                self.unanswered += u64::from(batch.count);
                partition.submit(Op::Append { batch, level, outbox: Arc::clone(&self.outbox) });
            }
            Err(code) => self.refuse(batch.counter, batch.count, &AppError::of(code)),
        }
    }

    /// What the outbox and this stream have to say, as one frame.
    fn frame(&mut self, news: Option<PublishNews>) -> OutFrame {
        let mut response = std::mem::take(&mut self.own);
        self.linger = None;
        if let Some(news) = news {
            for reject in news.rejects {
                self.answered(reject.count);
                let error = Some(status::to_proto(&AppError::of(reject.code), self.caller.request_id));
                response.rejects.push(v1::PublishReject { counter: reject.counter, count: reject.count, error });
            }
            response.acks.reserve_exact(news.acks.len());
            for ack in news.acks {
                self.answered(ack.count);
                response.acks.push(ack_proto(ack));
            }
        }
        OutFrame::head(response.encode_to_vec().into())
    }

    fn answered(&mut self, count: u32) {
        self.unanswered = self.unanswered.saturating_sub(u64::from(count));
        if self.unanswered == 0 {
            self.patience = limits::PUBLISH_ACK_LINGER;
        }
    }

    /// Whether what the outbox has is in no hurry.
    fn may_wait(&self, news: &PublishNews) -> bool {
        let ending = self.input_ended || self.draining;
        let few = self.own.acks.len() + news.acks.len() <= ACKS_HELD_MAX;
        !self.patience.is_zero() && !ending && few && news.rejects.is_empty()
    }

    /// Keeps acknowledgements for the next frame, or for when they have waited long enough.
    fn hold(&mut self, news: PublishNews) {
        let patience = self.patience;
        for ack in news.acks {
            self.answered(ack.count);
            self.own.acks.push(ack_proto(ack));
        }
        self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
    }

    /// Whether acknowledgements that were held back must go now.
    fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(linger) = &mut self.linger else { return false };
        self.input_ended || self.draining || linger.as_mut().poll(cx).is_ready()
    }

    fn fail(&mut self, error: &AppError) -> Poll<Option<Result<OutFrame, Status>>> {
        self.done = true;
        Poll::Ready(Some(Err(hot::failed(&self.context, Verb::PublishStream, error, self.caller.request_id))))
    }

    fn has_own(&self) -> bool {
        let own = &self.own;
        own.opened.is_some() || !own.rejects.is_empty() || own.auth_expiring.is_some() || own.going_away.is_some()
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<OutFrame, Status>>> {
        while let Some(control) = self.watch.poll(cx) {
            if let Some(error) = hot::ending(control) {
                return self.fail(&error);
            }
            if control == Control::AuthSoon {
                let at = self.caller.session.expires_at.0;
                self.own.auth_expiring = Some(v1::AuthExpiring { expires_at_ms: at });
                self.watch = Watch::new(&self.context, &self.caller.session, self.fence.clone(), true);
            } else {
                self.own.going_away = Some(hot::going_away());
                self.draining = true;
                break;
            }
        }
        let mut frames = 0;
        while !self.input_ended && self.unanswered < UNANSWERED_MAX {
            match Pin::new(&mut self.input).poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.input_ended = true,
                Poll::Ready(Some(Err(status))) => {
                    if let Some(error) = untyped::unreadable(&status) {
                        return self.fail(&error);
                    }
                    // The connection is gone: there is nobody to tell.
                    self.done = true;
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Err(error) = self.take(frame) {
                        return self.fail(&error);
                    }
                    frames += 1;
                    if frames == FRAMES_PER_POLL {
                        cx.waker().wake_by_ref();
                        break;
                    }
                }
            }
        }
        let news = loop {
            match self.outbox.take(cx) {
                Some(news) if self.may_wait(&news) => self.hold(news),
                news => break news,
            }
        };
        if news.is_some() || self.has_own() || self.is_overdue(cx) {
            return Poll::Ready(Some(Ok(self.frame(news))));
        }
        // A client that half-closed, and a server that drains, still get the answers to what was sent.
        if (self.input_ended || self.draining) && self.unanswered == 0 {
            self.done = true;
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

impl Stream for PublishStream {
    type Item = Result<OutFrame, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let me = self.get_mut();
        if me.done {
            return Poll::Ready(None);
        }
        let started = Instant::now();
        let out = me.poll_frame(cx);
        tick::note_poll(started.elapsed());
        out
    }
}

fn ack_proto(ack: Acked) -> v1::PublishAck {
    v1::PublishAck {
        counter: ack.counter,
        count: ack.count,
        class: u32::from(ack.class.0),
        partition: u32::from(crate::delivery::PARTITION),
        epoch: ack.epoch,
        first_seq: ack.first_seq,
        durability: ack.level as i32,
        duplicate: ack.duplicate,
    }
}

/// The level that a frame asks for; `None` when it leaves that to the server.
fn level_of(wire: i32) -> Result<Option<Durability>, AppError> {
    if wire == 0 {
        return Ok(None);
    }
    Durability::from_wire(wire)
        .map(Some)
        .ok_or_else(|| AppError::new(ErrorCode::UnknownEnum, format!("durability has no member {wire}")))
}

/// Whether a frame carries a request or a reply, which must not wait for a disk.
fn is_quick(walked: &Walked) -> bool {
    let reply = walked.runs.first().is_some_and(|run| matches!(Address::of(run.topic_str()), Address::Reply(_)));
    reply || walked.flags & flag::REQUEST != 0
}

fn same_route(a: &Result<Arc<Partition>, ErrorCode>, b: &Result<Arc<Partition>, ErrorCode>) -> bool {
    match (a, b) {
        (Ok(a), Ok(b)) => Arc::ptr_eq(a, b),
        (Err(a), Err(b)) => a == b,
        _ => false,
    }
}

/// How many messages a body has, by their lengths alone; `None` when a length leads out of it.
fn count_messages(body: &[u8]) -> Option<u32> {
    let (mut at, mut count) = (0, 0);
    while at < body.len() {
        if body[at] != frame::MESSAGE_TAG {
            return None;
        }
        at += 1;
        let len = usize::try_from(frame::read_varint(body, &mut at)?).ok()?;
        at = at.checked_add(len).filter(|end| *end <= body.len())?;
        count += 1;
    }
    Some(count)
}

/// A frame's small fields and the bytes of its messages.
#[derive(Debug)]
struct Parsed {
    open: Option<v1::PublishOpen>,
    reauth: Option<v1::Reauth>,
    counter: u64,
    durability: i32,
    ack_linger_ms: u64,
    body: Bytes,
    /// What walking the messages found; looked at only when there are any.
    walked: Result<Walked, FrameError>,
}

impl Parsed {
    /// Reads a frame. Canonical ones are only walked; others are decoded and their messages encoded anew.
    fn of(frame: Bytes) -> Result<Self, AppError> {
        if let Some(parsed) = Self::canonical(&frame)
            && !matches!(parsed.walked, Err(FrameError::NotCanonical { .. }))
        {
            return Ok(parsed);
        }
        let request =
            v1::PublishStreamRequest::decode(frame).map_err(|e| untyped::no_frame("PublishStreamRequest", e))?;
        let mut body = BytesMut::new();
        for message in &request.messages {
            // prost writes fields in rising order: the canonical form.
            prost::encoding::message::encode(15, message, &mut body);
        }
        let body = body.freeze();
        Ok(Self {
            open: request.open,
            reauth: request.reauth,
            counter: request.counter,
            durability: request.durability,
            ack_linger_ms: request.ack_linger_ms.into(),
            walked: frame::walk(&body),
            body,
        })
    }

    fn canonical(frame: &Bytes) -> Option<Self> {
        let mut out = Self {
            open: None,
            reauth: None,
            counter: 0,
            durability: 0,
            ack_linger_ms: 0,
            body: Bytes::new(),
            walked: Ok(Walked::default()),
        };
        let mut at = 0;
        while at < frame.len() {
            let tag = frame[at];
            if tag == frame::MESSAGE_TAG {
                out.body = frame.slice(at..);
                out.walked = frame::walk(&out.body);
                return Some(out);
            }
            at += 1;
            let value = frame::read_varint(frame, &mut at)?;
            match tag {
                0x18 => out.counter = value,
                0x20 => out.durability = i32::try_from(value).ok()?,
                0x28 => out.ack_linger_ms = value,
                0x0A | 0x12 => {
                    let end = at.checked_add(usize::try_from(value).ok()?).filter(|end| *end <= frame.len())?;
                    let bytes = frame.slice(at..end);
                    if tag == 0x0A {
                        out.open = Some(v1::PublishOpen::decode(bytes).ok()?);
                    } else {
                        out.reauth = Some(v1::Reauth::decode(bytes).ok()?);
                    }
                    at = end;
                }
                _ => return None,
            }
        }
        Some(out)
    }
}
