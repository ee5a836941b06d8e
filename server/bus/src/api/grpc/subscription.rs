//! `SubscriptionService`, its unary half.

use acb_ports::metadata::SubscriptionRow;
use acb_proto::v1;
use acb_types::{
    ErrorCode, SubscriptionId, SubscriptionName, Timestamp,
    batch::{DeadLetterPolicy, StartAt, SubscriptionDef},
};
use tonic::{Request, Response, Status};

use super::call::Grpc;
use crate::{
    app::subscription::SubscriptionView,
    auth::Verb,
    domain::subscription::{Wanted, define},
    error::AppError,
};

#[tonic::async_trait]
impl v1::subscription_service_server::SubscriptionService for Grpc {
    async fn create_subscription(
        &self,
        request: Request<v1::CreateSubscriptionRequest>,
    ) -> Result<Response<v1::CreateSubscriptionResponse>, Status> {
        self.call(Verb::CreateSubscription, request, |(app, ctx, r)| async move {
            let spec = r.spec.ok_or_else(|| AppError::missing("spec"))?;
            let name = SubscriptionName::user(&spec.name)?;
            let (view, existed) = app.subscription_create(&ctx, wanted_in(&spec, name)?, start_in(&spec)?).await?;
            Ok(v1::CreateSubscriptionResponse { subscription: Some(view_out(view)), existed })
        })
        .await
    }

    async fn get_subscription(
        &self,
        request: Request<v1::GetSubscriptionRequest>,
    ) -> Result<Response<v1::GetSubscriptionResponse>, Status> {
        self.call(Verb::GetSubscription, request, |(app, ctx, r)| async move {
            let view = app.subscription_get(&ctx, &name_in("name", &r.name)?).await?;
            Ok(v1::GetSubscriptionResponse { subscription: Some(view_out(view)) })
        })
        .await
    }

    async fn list_subscriptions(
        &self,
        request: Request<v1::ListSubscriptionsRequest>,
    ) -> Result<Response<v1::ListSubscriptionsResponse>, Status> {
        self.call(Verb::ListSubscriptions, request, |(app, ctx, r)| async move {
            let page = app.subscription_list(&ctx, r.page_size, &r.page_token).await?;
            Ok(v1::ListSubscriptionsResponse {
                subscriptions: page.items.into_iter().map(view_out).collect(),
                next_page_token: page.next,
            })
        })
        .await
    }

    async fn delete_subscription(
        &self,
        request: Request<v1::DeleteSubscriptionRequest>,
    ) -> Result<Response<v1::DeleteSubscriptionResponse>, Status> {
        self.call(Verb::DeleteSubscription, request, |(app, ctx, r)| async move {
            app.subscription_delete(&ctx, &name_in("name", &r.name)?).await?;
            Ok(v1::DeleteSubscriptionResponse {})
        })
        .await
    }
}

pub(super) fn name_in(field: &'static str, text: &str) -> Result<SubscriptionName, AppError> {
    if text.is_empty() { Err(AppError::missing(field)) } else { Ok(text.parse()?) }
}

fn wanted_in(spec: &v1::SubscriptionSpec, name: SubscriptionName) -> Result<Wanted, AppError> {
    use v1::DeadLetterPolicy as P;
    let unknown =
        |_| AppError::new(ErrorCode::UnknownEnum, format!("dead_letters has no member {}", spec.dead_letters));
    Ok(Wanted {
        name,
        filters: spec.filters.clone(),
        ack_wait_ms: spec.ack_wait_ms,
        retry_schedule_ms: spec.retry_schedule_ms.clone(),
        max_attempts: spec.max_attempts,
        dead_letters: match P::try_from(spec.dead_letters).map_err(unknown)? {
            P::Unspecified | P::Keep => DeadLetterPolicy::Keep,
            P::Drop => DeadLetterPolicy::Drop,
        },
        max_leased: spec.max_leased,
    })
}

fn start_in(spec: &v1::SubscriptionSpec) -> Result<StartAt, AppError> {
    use v1::StartAt as S;
    let unknown = |_| AppError::new(ErrorCode::UnknownEnum, format!("start_at has no member {}", spec.start_at));
    let start = S::try_from(spec.start_at).map_err(unknown)?;
    if spec.start_seq != 0 && start != S::Sequence {
        return Err(AppError::invalid("start_seq", "is given without START_AT_SEQUENCE"));
    }
    if spec.start_time_ms != 0 && start != S::Time {
        return Err(AppError::invalid("start_time_ms", "is given without START_AT_TIME"));
    }
    Ok(match start {
        S::Unspecified | S::New => StartAt::New,
        S::All => StartAt::All,
        S::Sequence if spec.start_seq == 0 => return Err(AppError::missing("start_seq")),
        S::Sequence => StartAt::Sequence(spec.start_seq),
        S::Time if spec.start_time_ms == 0 => return Err(AppError::missing("start_time_ms")),
        S::Time => StartAt::Time(Timestamp(spec.start_time_ms)),
    })
}

/// The rules of a subscription that lives with its session. It needs no name; the number makes one.
///
/// # Errors
/// As for a durable one.
pub(super) fn ephemeral(
    spec: &v1::SubscriptionSpec,
    id: SubscriptionId,
) -> Result<(SubscriptionDef, StartAt), AppError> {
    if !spec.name.is_empty() {
        SubscriptionName::user(&spec.name)?;
    }
    // Its name stands in no list; the number keeps two sessions of one name apart.
    let name = SubscriptionName::user(&format!("ephemeral-{id}"))?;
    let spec_out = define(wanted_in(spec, name)?)?;
    let row = SubscriptionRow {
        id,
        spec: spec_out,
        start: StartAt::New,
        // Only the rules are taken from the row; who and when are of no use for what lives with a session.
        created_by: crate::auth::authenticator::DEV_AGENT_DEFAULT.parse()?,
        created_at: Timestamp::NONE,
    };
    Ok((SubscriptionDef { ephemeral: true, ..row.def() }, start_in(spec)?))
}

fn view_out(view: SubscriptionView) -> v1::Subscription {
    let SubscriptionView { row, counts } = view;
    let ms = |d: std::time::Duration| d.as_millis() as u64;
    let (start_at, start_seq, start_time_ms) = match row.start {
        StartAt::New => (v1::StartAt::New, 0, 0),
        StartAt::All => (v1::StartAt::All, 0, 0),
        StartAt::Sequence(seq) => (v1::StartAt::Sequence, seq, 0),
        StartAt::Time(time) => (v1::StartAt::Time, 0, time.0),
    };
    let spec = v1::SubscriptionSpec {
        name: row.spec.name.to_string(),
        filters: row.spec.filters.iter().map(ToString::to_string).collect(),
        ack_wait_ms: ms(row.spec.ack_wait),
        retry_schedule_ms: row.spec.retry_schedule.iter().map(|d| ms(*d)).collect(),
        max_attempts: row.spec.max_attempts,
        dead_letters: match row.spec.dead_letters {
            DeadLetterPolicy::Keep => v1::DeadLetterPolicy::Keep,
            DeadLetterPolicy::Drop => v1::DeadLetterPolicy::Drop,
        } as i32,
        max_leased: row.spec.max_leased,
        start_at: start_at as i32,
        start_seq,
        start_time_ms,
    };
    let mut out = v1::Subscription {
        spec: Some(spec),
        created_at_ms: row.created_at.0,
        created_by: row.created_by.to_string(),
        ..v1::Subscription::default()
    };
    if let Some(counts) = counts {
        out.floor_seq = counts.engine.floor;
        out.cursor_seq = counts.engine.cursor;
        out.next_seq = counts.next_seq;
        out.leased = counts.engine.leased;
        out.waiting_retry = counts.engine.waiting_retry;
        out.consumers = counts.engine.consumers;
        out.dead_letters = counts.dead_letters;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(at: v1::StartAt, seq: u64, time: u64) -> Result<StartAt, ErrorCode> {
        let spec = v1::SubscriptionSpec {
            start_at: at as i32,
            start_seq: seq,
            start_time_ms: time,
            ..v1::SubscriptionSpec::default()
        };
        start_in(&spec).map_err(|e| e.code())
    }

    #[test]
    fn a_start_needs_its_own_field_and_no_other() {
        assert_eq!(start(v1::StartAt::Unspecified, 0, 0), Ok(StartAt::New));
        assert_eq!(start(v1::StartAt::Sequence, 5, 0), Ok(StartAt::Sequence(5)));
        assert_eq!(start(v1::StartAt::Time, 0, 9), Ok(StartAt::Time(Timestamp(9))));
        assert_eq!(start(v1::StartAt::Sequence, 0, 0), Err(ErrorCode::MissingField));
        assert_eq!(start(v1::StartAt::All, 5, 0), Err(ErrorCode::InvalidArgument));
        assert_eq!(start(v1::StartAt::New, 0, 5), Err(ErrorCode::InvalidArgument));
    }

    #[test]
    fn an_ephemeral_subscription_needs_no_name_and_two_of_one_name_differ() {
        let spec = v1::SubscriptionSpec { filters: vec!["a".to_owned()], ..v1::SubscriptionSpec::default() };
        let (a, _) = ephemeral(&spec, SubscriptionId(u64::MAX)).unwrap();
        let (b, _) = ephemeral(&spec, SubscriptionId(u64::MAX - 1)).unwrap();
        assert!(a.ephemeral && a.name != b.name);
    }
}
