//! `SubscriptionService.Consume`: credit and settlements up, messages down.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use acb_engine::{Credit, Delivery, SessionDef, SessionKey};
use acb_proto::v1;
use acb_types::{ErrorCode, Incarnation, SubscriptionName, limits, position::ClassId};
use bytes::Bytes;
use futures_core::Stream;
use prost::Message as _;
use smallvec::SmallVec;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{
    codec::OutFrame,
    hot::{self, Caller, Control, FRAMES_PER_POLL, HotContext, Watch},
    status, untyped,
};
use crate::{
    auth::{Role, policy::Verb},
    delivery::{
        Partition,
        core::{Op, OwnedSettlement, SettleKind},
        outbox::{ConsumeNews, ConsumeOutbox, SettledRange},
        sleeper::Sleepers,
        tick,
    },
    error::AppError,
    presence::PresenceGuard,
    telemetry::PartitionMetrics,
};

/// An open consumer session.
#[derive(Debug)]
struct Open {
    partition: Arc<Partition>,
    session: SessionKey,
    metrics: PartitionMetrics,
    /// Online while it lives.
    _presence: PresenceGuard,
}

/// What the stream does next.
enum Step {
    Send(ConsumeNews),
    Read,
    Close(ErrorCode),
}

/// The response stream of one consumer.
#[derive(Debug)]
pub(super) struct ConsumeStream {
    context: Arc<HotContext>,
    caller: Caller,
    input: Streaming<Bytes>,
    outbox: Arc<ConsumeOutbox>,
    open: Option<Open>,
    watch: Watch,
    fence: CancellationToken,
    /// What this stream itself has to say, before the outbox.
    own: v1::ConsumeResponse,
    /// Deliveries that did not fit into the last frame.
    rest: std::collections::VecDeque<Delivery>,
    done: bool,
    /// The client ended its side in good order: what it holds is given back at once.
    left: bool,
}

impl Drop for ConsumeStream {
    fn drop(&mut self) {
        self.context.metrics.consume_streams.dec();
        if let Some(open) = self.open.take() {
            if self.left {
                open.partition.leave(open.session);
            } else {
                open.partition.disconnect(open.session);
            }
        }
    }
}

impl ConsumeStream {
    pub(super) fn new(context: Arc<HotContext>, caller: Caller, input: Streaming<Bytes>) -> Self {
        context.metrics.consume_streams.inc();
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
            own: v1::ConsumeResponse::default(),
            rest: std::collections::VecDeque::new(),
            done: false,
            left: false,
        }
    }

    /// Takes one frame of the client.
    fn take(&mut self, frame: Bytes) -> Result<(), AppError> {
        if self.caller.session.is_revoked() {
            return Err(AppError::of(ErrorCode::TokenRevoked));
        }
        let request = v1::ConsumeRequest::decode(frame).map_err(|e| untyped::no_frame("ConsumeRequest", e))?;
        if let Some(reauth) = &request.reauth {
            self.caller.session = self.context.auth.reauth(&self.caller.session, &reauth.token)?;
            self.watch = Watch::new(&self.context, &self.caller.session, self.fence.clone(), false);
        }
        if let Some(open) = &request.open {
            self.open(open)?;
        }
        let Some(open) = &self.open else {
            return Err(AppError::missing("open"));
        };
        if let Some(credit) = &request.credit {
            open.partition.credit(open.session, credit_of(credit)?);
        }
        let settlements = settlements_of(&request, &mut self.own.settled, self.caller.request_id)?;
        if !settlements.is_empty() {
            open.partition.submit(Op::Settle { session: open.session, settlements });
        }
        Ok(())
    }

    fn open(&mut self, open: &v1::ConsumeOpen) -> Result<(), AppError> {
        if self.open.is_some() {
            return Err(AppError::new(ErrorCode::MalformedFrame, "open comes in the first frame only"));
        }
        let token: [u8; limits::SESSION_ID_BYTES] =
            open.session_id.as_ref().try_into().map_err(|_| {
                AppError::invalid("session_id", format!("must have {} bytes", limits::SESSION_ID_BYTES))
            })?;
        let credit = open.credit.as_ref().map_or(Ok(Credit { messages: 0, bytes: 0 }), credit_of)?;
        let principal = self.caller.session.principal.clone();
        let incarnation = Incarnation(open.incarnation);
        let presence = self.context.presence.stream_opened(&principal.tenant, &principal.agent, incarnation)?;
        let tenant = Arc::clone(&self.caller.tenant);
        let (class, subscription, ack_wait) = if let Some(spec) = &open.ephemeral {
            let (def, start) = super::subscription::ephemeral(spec, tenant.ephemeral_id())?;
            let ack_wait = def.ack_wait;
            let id = tenant.ephemeral_open(token, def, start)?;
            (ClassId::TOPICS, id, ack_wait)
        } else {
            let name = super::subscription::name_in("subscription", &open.subscription)?;
            if name.is_implicit() {
                let own = name == SubscriptionName::inbox(&principal.agent)
                    || name == SubscriptionName::reply(&principal.agent);
                if !own && !principal.roles.has(Role::Admin) {
                    return Err(AppError::new(ErrorCode::PermissionDenied, "an inbox is its agent's alone"));
                }
            }
            let (class, def) = tenant
                .subscription(&name)
                .ok_or_else(|| AppError::new(ErrorCode::SubscriptionNotFound, format!("no subscription {name}")))?;
            (class, def.id, def.ack_wait)
        };
        let partition =
            tenant.partition(class).cloned().ok_or_else(|| AppError::of(ErrorCode::SubscriptionNotFound))?;
        let resume_delivery = (open.resume_delivery != 0).then_some(open.resume_delivery);
        let def = SessionDef { token, agent: principal.agent.clone(), incarnation, credit, resume_delivery };
        let connected = partition.connect(subscription, def, Arc::clone(&self.outbox))?;
        self.fence = presence.fenced().clone();
        self.watch = Watch::new(&self.context, &self.caller.session, self.fence.clone(), false);
        self.own.opened = Some(v1::ConsumeOpened {
            resumed: connected.resumed,
            class: u32::from(class.0),
            partition: u32::from(crate::delivery::PARTITION),
            ack_wait_ms: u64::try_from(ack_wait.as_millis()).unwrap_or(u64::MAX),
            request_id: self.caller.request_id.to_string(),
        });
        let metrics = self.context.metrics.partition(partition.id());
        self.open = Some(Open { partition, session: connected.session, metrics, _presence: presence });
        Ok(())
    }

    fn fail(&mut self, error: &AppError) -> Poll<Option<Result<OutFrame, Status>>> {
        self.done = true;
        Poll::Ready(Some(Err(hot::failed(&self.context, Verb::Consume, error, self.caller.request_id))))
    }

    fn has_own(&self) -> bool {
        let own = &self.own;
        own.opened.is_some() || !own.settled.is_empty() || own.auth_expiring.is_some() || own.going_away.is_some()
    }

    /// One frame of what there is: this stream's own words, results, gaps, and as many deliveries as fit.
    fn frame(&mut self, news: ConsumeNews) -> OutFrame {
        let mut response = std::mem::take(&mut self.own);
        for s in news.settled {
            response.settled.push(settled_proto(s, self.caller.request_id));
        }
        for gap in news.gaps {
            response.gaps.push(v1::Gap { from_seq: gap.from_seq, to_seq: gap.to_seq, reason: "retention".into() });
        }
        if self.rest.is_empty() {
            self.rest = news.deliveries;
        } else {
            self.rest.extend(news.deliveries);
        }
        let mut parts: SmallVec<[Bytes; 2]> = SmallVec::new();
        let (mut count, mut bytes) = (0, 0);
        let mut last: Option<Delivery> = None;
        while let Some(next) = self.rest.front() {
            let full =
                count + next.count > limits::FRAME_MESSAGES_MAX || bytes + next.body.len() > limits::FRAME_BYTES_MAX;
            if count > 0 && full {
                break;
            }
            let Some(delivery) = self.rest.pop_front() else { break };
            count += delivery.count;
            bytes += delivery.body.len();
            if response.delivery == 0 {
                response.delivery = delivery.delivery;
            }
            self.observe(&delivery);
            parts.push(delivery.body.clone());
            match (&last, response.runs.last_mut()) {
                (Some(before), Some(run)) if goes_on(before, &delivery, run) => run.count += delivery.count,
                _ => response.runs.push(run_proto(&delivery)),
            }
            last = Some(delivery);
        }
        OutFrame { head: response.encode_to_vec().into(), parts }
    }

    fn observe(&self, delivery: &Delivery) {
        if delivery.attempt == 1
            && let Some(open) = &self.open
        {
            let waited = open.partition.now().wall.since(delivery.facts.stored_at);
            open.metrics.delivery_latency.observe_many(waited, u64::from(delivery.count));
        }
    }

    /// Reads what a lagging subscription may have now. The plan is made and kept under the lock, the disk is not.
    fn read(&mut self) -> Result<(), AppError> {
        let Some(open) = &self.open else { return Ok(()) };
        let Some(plan) = open.partition.plan(open.session) else { return Ok(()) };
        match open.partition.reader().read(&plan.request) {
            Ok(block) => {
                open.partition.commit_plan(plan, block);
                // More may lie behind it; the next plan says when there is none.
                let mut none = Sleepers::default();
                self.outbox.push(&mut none, |news| news.kicked = true);
                Ok(())
            }
            Err(error) => {
                open.partition.abandon(plan);
                Err(error.into())
            }
        }
    }

    fn step(&mut self, cx: &Context<'_>) -> Option<Step> {
        let waiting = !self.rest.is_empty() || self.has_own();
        self.outbox.with(cx, |news| {
            if !news.deliveries.is_empty() || !news.settled.is_empty() || !news.gaps.is_empty() || waiting {
                let kicked = std::mem::take(&mut news.kicked);
                let closed = news.closed.take();
                let out = std::mem::replace(news, ConsumeNews { kicked, closed, ..ConsumeNews::default() });
                return Some(Step::Send(out));
            }
            if let Some(code) = news.closed {
                return Some(Step::Close(code));
            }
            if news.kicked {
                news.kicked = false;
                return Some(Step::Read);
            }
            None
        })
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<OutFrame, Status>>> {
        while let Some(control) = self.watch.poll(cx) {
            if let Some(error) = hot::ending(control) {
                return self.fail(&error);
            }
            if control == Control::Drain {
                self.own.going_away = Some(hot::going_away());
                self.done = true;
                let frame = self.frame(ConsumeNews::default());
                return Poll::Ready(Some(Ok(frame)));
            }
            let at = self.caller.session.expires_at.0;
            self.own.auth_expiring = Some(v1::AuthExpiring { expires_at_ms: at });
            self.watch = Watch::new(&self.context, &self.caller.session, self.fence.clone(), true);
        }
        for frames in 1.. {
            match Pin::new(&mut self.input).poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => {
                    self.left = true;
                    self.done = true;
                    // The last results of settlements still go out.
                    return match self.step(cx) {
                        Some(Step::Send(news)) => {
                            let news = ConsumeNews { deliveries: std::collections::VecDeque::new(), ..news };
                            self.rest.clear();
                            Poll::Ready(Some(Ok(self.frame(news))))
                        }
                        _ => Poll::Ready(None),
                    };
                }
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
                    if frames == FRAMES_PER_POLL {
                        cx.waker().wake_by_ref();
                        break;
                    }
                }
            }
        }
        loop {
            match self.step(cx) {
                None => return Poll::Pending,
                Some(Step::Send(news)) => return Poll::Ready(Some(Ok(self.frame(news)))),
                Some(Step::Close(code)) => return self.fail(&AppError::of(code)),
                Some(Step::Read) => {
                    if let Err(error) = self.read() {
                        return self.fail(&error);
                    }
                }
            }
        }
    }
}

impl Stream for ConsumeStream {
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

/// Whether a delivery continues the run before it: then one run says it all.
fn goes_on(before: &Delivery, next: &Delivery, run: &v1::DeliveryRun) -> bool {
    run.first_seq + u64::from(run.count) == next.first_seq
        && before.attempt == next.attempt
        && before.facts.epoch == next.facts.epoch
        && before.facts.stored_at == next.facts.stored_at
        && (Arc::ptr_eq(&before.facts.sender, &next.facts.sender) || before.facts.sender == next.facts.sender)
}

fn run_proto(d: &Delivery) -> v1::DeliveryRun {
    v1::DeliveryRun {
        first_seq: d.first_seq,
        count: d.count,
        attempt: d.attempt,
        epoch: d.facts.epoch,
        stored_at_ms: d.facts.stored_at.0,
        from: d.facts.sender.agent.to_string(),
        from_incarnation: d.facts.sender.incarnation.0,
    }
}

fn settled_proto(s: SettledRange, request_id: crate::request_id::RequestId) -> v1::Settled {
    let error = s.result.err().map(|code| status::to_proto(&AppError::of(code), request_id));
    v1::Settled { first_seq: s.first_seq, count: s.count, error }
}

fn credit_of(credit: &v1::Credit) -> Result<Credit, AppError> {
    if credit.messages > limits::MAX_LEASED {
        return Err(AppError::too_large("credit.messages", credit.messages as usize, limits::MAX_LEASED as usize));
    }
    if credit.bytes > limits::CREDIT_BYTES_MAX {
        return Err(AppError::too_large("credit.bytes", credit.bytes as usize, limits::CREDIT_BYTES_MAX as usize));
    }
    Ok(Credit { messages: credit.messages, bytes: credit.bytes })
}

/// All settlements of a frame, in the order of its lists. Single bad ones are answered, not fatal.
fn settlements_of(
    request: &v1::ConsumeRequest,
    refused: &mut Vec<v1::Settled>,
    request_id: crate::request_id::RequestId,
) -> Result<Vec<OwnedSettlement>, AppError> {
    let total = request.acks.len()
        + request.confirmed_acks.len()
        + request.nacks.len()
        + request.progress.len()
        + request.terms.len()
        + request.releases.len();
    if total > limits::SETTLEMENTS_PER_FRAME_MAX {
        return Err(AppError::too_large("settlements", total, limits::SETTLEMENTS_PER_FRAME_MAX)
            .with_code(ErrorCode::TooManySettlements));
    }
    let mut out = Vec::with_capacity(total);
    let mut add = |first_seq: u64, count: u32, kind: Result<SettleKind, AppError>| {
        let position = if first_seq == 0 || count == 0 || first_seq.checked_add(u64::from(count)).is_none() {
            Err(AppError::new(ErrorCode::InvalidPosition, "a range starts at 1 or later and has at least one message"))
        } else {
            Ok(())
        };
        match position.and(kind) {
            Ok(kind) => out.push(OwnedSettlement { first_seq, count, kind }),
            Err(e) => {
                refused.push(v1::Settled { first_seq, count, error: Some(status::to_proto(&e, request_id)) });
            }
        }
    };
    for r in &request.acks {
        add(r.first_seq, r.count, Ok(SettleKind::Ack));
    }
    for r in &request.confirmed_acks {
        add(r.first_seq, r.count, Ok(SettleKind::ConfirmedAck));
    }
    for n in &request.nacks {
        let delay = Duration::from_millis(n.delay_ms);
        let kind = if delay > limits::NACK_DELAY_MAX {
            Err(AppError::invalid("delay_ms", format!("exceeds limit of {}", limits::NACK_DELAY_MAX.as_millis())))
        } else {
            reason(&n.reason).map(|reason| SettleKind::Nack { delay: (n.delay_ms != 0).then_some(delay), reason })
        };
        add(n.first_seq, n.count, kind);
    }
    for r in &request.progress {
        add(r.first_seq, r.count, Ok(SettleKind::Progress));
    }
    for t in &request.terms {
        add(t.first_seq, t.count, reason(&t.reason).map(|reason| SettleKind::Term { reason }));
    }
    for r in &request.releases {
        add(r.first_seq, r.count, Ok(SettleKind::Release));
    }
    Ok(out)
}

fn reason(text: &str) -> Result<String, AppError> {
    if text.len() > limits::REASON_BYTES_MAX {
        return Err(AppError::too_large("reason", text.len(), limits::REASON_BYTES_MAX));
    }
    Ok(text.to_owned())
}
