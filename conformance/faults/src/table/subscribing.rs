//! Subscriptions and dead letters.

use std::sync::Arc;

use acb_proto::{CONSUME, v1};

use super::{fault, wire};
use crate::{
    Fault, Lie,
    wire::{answered, down, instead_of, up},
};

const CREATE: &str = "/acb.v1.SubscriptionService/CreateSubscription";
const LIST: &str = "/acb.v1.SubscriptionService/ListSubscriptions";
const DELETE: &str = "/acb.v1.SubscriptionService/DeleteSubscription";
const LIST_DEAD: &str = "/acb.v1.DeadLetterService/ListDeadLetters";
const REDRIVE: &str = "/acb.v1.DeadLetterService/RedriveDeadLetter";
const DISCARD: &str = "/acb.v1.DeadLetterService/DiscardDeadLetter";

/// A change of each definition, of durable subscriptions and of ephemeral ones.
fn specs(change: impl Fn(&mut v1::SubscriptionSpec) + Send + Sync + 'static) -> Lie {
    let change = Arc::new(change);
    let ephemeral = Arc::clone(&change);
    wire([
        up(CREATE, move |request: &mut v1::CreateSubscriptionRequest| request.spec.iter_mut().for_each(&*change)),
        up(CONSUME, move |frame: &mut v1::ConsumeRequest| {
            frame.open.iter_mut().filter_map(|open| open.ephemeral.as_mut()).for_each(&*ephemeral);
        }),
    ])
}

/// Twelve hours: the longest lease that there is.
const LONG_MS: u64 = 12 * 3_600_000;

pub(super) const FAULTS: &[Fault] = &[
    fault(
        "filters-hear-everything",
        "a subscription hears topics that it did not ask for",
        &["to-a-topic-by-name", "wildcards"],
        || specs(|spec| spec.filters.iter_mut().for_each(|filter| ">".clone_into(filter))),
    ),
    fault("a-star-stands-for-many-tokens", "a * matches more than one token", &["wildcards"], || {
        specs(|spec| {
            for filter in &mut spec.filters {
                if let Some((head, _)) = filter.split_once(".*") {
                    *filter = format!("{head}.>");
                }
            }
        })
    }),
    fault(
        "most-attempts-are-ignored",
        "a message that failed as often as it may is tried again",
        &["attempts-run-out"],
        || specs(|spec| spec.max_attempts = 1000),
    ),
    fault(
        "leases-last-for-ever",
        "a lease does not end",
        &["lease-ends-and-another-gets-it", "lease-that-ends-counts-as-an-attempt"],
        || specs(|spec| spec.ack_wait_ms = LONG_MS),
    ),
    fault("retry-schedules-are-ignored", "a bare nack waits by another schedule", &["nack-by-the-schedule"], || {
        specs(|spec| spec.retry_schedule_ms = vec![600_000])
    }),
    fault(
        "a-subscriptions-bound-is-ignored",
        "a subscription gives out more than its max_leased",
        &["max-leased-bounds-a-subscription"],
        || specs(|spec| spec.max_leased = 0),
    ),
    fault(
        "the-dropped-are-kept",
        "dead messages are kept where they are to be dropped",
        &["drop-policy-keeps-nothing"],
        || specs(|spec| spec.set_dead_letters(v1::DeadLetterPolicy::Keep)),
    ),
    fault(
        "starts-are-ignored",
        "every subscription begins with what comes next",
        &["start-at-all", "start-at-a-sequence", "ephemeral-replays-too"],
        || specs(|spec| spec.set_start_at(v1::StartAt::New)),
    ),
    fault(
        "another-definition-is-taken",
        "another definition under a name that is taken is answered as made",
        &["same-definition-is-found-another-is-refused"],
        || {
            wire([instead_of(CREATE, "subscription_exists", |conversation| {
                let spec = conversation.request::<v1::CreateSubscriptionRequest>().spec;
                let subscription = Some(v1::Subscription { spec, ..Default::default() });
                v1::CreateSubscriptionResponse { subscription, existed: true }
            })])
        },
    ),
    fault(
        "deleting-does-nothing",
        "a subscription that was deleted goes on",
        &["deleted-subscription-is-gone"],
        || wire([answered(DELETE, |_| Some(v1::DeleteSubscriptionResponse {}))]),
    ),
    fault("pages-begin-again", "each page is the first", &["subscriptions-are-listed-in-pages"], || {
        wire([up(LIST, |request: &mut v1::ListSubscriptionsRequest| request.page_token.clear())])
    }),
    fault(
        "reasons-of-death-are-lost",
        "a dead letter does not say why it is one",
        &["term-makes-a-dead-letter-at-once", "attempts-run-out"],
        || {
            wire([down(LIST_DEAD, |response: &mut v1::ListDeadLettersResponse| {
                response.dead_letters.iter_mut().for_each(|letter| letter.reason.clear());
            })])
        },
    ),
    fault("redrives-forget-the-edit", "a redriven message has its old payload", &["redrive-edited"], || {
        wire([up(REDRIVE, |request: &mut v1::RedriveDeadLetterRequest| request.payload = None)])
    }),
    fault("discarding-does-nothing", "a discarded dead letter is still there", &["discard-is-for-good"], || {
        wire([answered(DISCARD, |_| Some(v1::DiscardDeadLetterResponse {}))])
    }),
];
