//! What a subscription may ask for: limits and defaults of its definition.

use std::time::Duration;

use acb_ports::metadata::SubscriptionSpec;
use acb_types::{ClassId, ErrorCode, SubscriptionName, TopicFilter, batch::DeadLetterPolicy, limits};

use crate::error::AppError;

/// A definition as a caller gives it. Zeros and empty lists take the defaults.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its name.
    pub name: SubscriptionName,
    /// What it hears, as text.
    pub filters: Vec<String>,
    /// How long a consumer has for one message, in milliseconds.
    pub ack_wait_ms: u64,
    /// Waits before redeliveries, in milliseconds.
    pub retry_schedule_ms: Vec<u64>,
    /// Attempts before a message is dead.
    pub max_attempts: u32,
    /// What becomes of the dead.
    pub dead_letters: DeadLetterPolicy,
    /// Messages leased at once.
    pub max_leased: u32,
}

/// Fills the defaults in and checks every field. Users' subscriptions read the class `topics`.
///
/// # Errors
/// `invalid_filter`, `topic_reserved`, `field_too_large` or `invalid_argument`, naming the first field that is wrong.
pub fn define(wanted: Wanted) -> Result<SubscriptionSpec, AppError> {
    let mut spec = SubscriptionSpec::new(wanted.name, ClassId::TOPICS, filters(&wanted.filters)?);
    if wanted.ack_wait_ms != 0 {
        spec.ack_wait = within("ack_wait_ms", wanted.ack_wait_ms, limits::LEASE_MIN, limits::LEASE_MAX)?;
    }
    if !wanted.retry_schedule_ms.is_empty() {
        let count = wanted.retry_schedule_ms.len();
        if count > limits::RETRY_SCHEDULE_MAX {
            return Err(AppError::too_large("retry_schedule_ms", count, limits::RETRY_SCHEDULE_MAX));
        }
        let wait = |ms: &u64| within("retry_schedule_ms", *ms, Duration::ZERO, limits::NACK_DELAY_MAX);
        spec.retry_schedule = wanted.retry_schedule_ms.iter().map(wait).collect::<Result<_, _>>()?;
    }
    if wanted.max_attempts != 0 {
        spec.max_attempts = at_most("max_attempts", wanted.max_attempts, limits::MAX_ATTEMPTS_MAX)?;
    }
    if wanted.max_leased != 0 {
        spec.max_leased = at_most("max_leased", wanted.max_leased, limits::MAX_LEASED)?;
    }
    spec.dead_letters = wanted.dead_letters;
    Ok(spec)
}

fn filters(texts: &[String]) -> Result<Vec<TopicFilter>, AppError> {
    if texts.is_empty() || texts.len() > limits::FILTERS_MAX {
        let message = format!("{} filters, allowed are 1 to {}", texts.len(), limits::FILTERS_MAX);
        return Err(AppError::new(ErrorCode::InvalidFilter, message).detail("limit", limits::FILTERS_MAX.to_string()));
    }
    let mut filters: Vec<TopicFilter> = Vec::with_capacity(texts.len());
    for text in texts {
        let filter = TopicFilter::user(text)?;
        // The same pattern twice says nothing more, and must not make another definition of it.
        if !filters.contains(&filter) {
            filters.push(filter);
        }
    }
    Ok(filters)
}

fn within(field: &'static str, ms: u64, min: Duration, max: Duration) -> Result<Duration, AppError> {
    let span = Duration::from_millis(ms);
    if (min..=max).contains(&span) {
        return Ok(span);
    }
    Err(AppError::invalid(field, format!("of {ms} must be {} to {}", min.as_millis(), max.as_millis())))
}

fn at_most(field: &'static str, given: u32, max: u32) -> Result<u32, AppError> {
    if given <= max { Ok(given) } else { Err(AppError::invalid(field, format!("of {given} must be 1 to {max}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            name: SubscriptionName::user("s").unwrap(),
            filters: vec!["a.>".to_owned()],
            ack_wait_ms: 0,
            retry_schedule_ms: Vec::new(),
            max_attempts: 0,
            dead_letters: DeadLetterPolicy::Keep,
            max_leased: 0,
        }
    }

    #[test]
    fn what_is_not_given_takes_its_default() {
        let spec = define(wanted()).unwrap();
        assert_eq!(spec.ack_wait, limits::LEASE);
        assert_eq!(spec.retry_schedule, limits::RETRY_SCHEDULE);
        assert_eq!((spec.max_attempts, spec.max_leased), (limits::MAX_ATTEMPTS, limits::MAX_LEASED));
    }

    #[test]
    fn each_field_is_bounded() {
        let code = |change: fn(&mut Wanted)| {
            let mut w = wanted();
            change(&mut w);
            define(w).map(|_| ()).map_err(|e| e.code())
        };
        let invalid = Err(ErrorCode::InvalidArgument);
        assert_eq!(code(|w| w.ack_wait_ms = 999), invalid);
        assert_eq!(code(|w| w.ack_wait_ms = 12 * 3_600_000), Ok(()));
        assert_eq!(code(|w| w.ack_wait_ms = 12 * 3_600_000 + 1), invalid);
        assert_eq!(code(|w| w.max_attempts = 1001), invalid);
        assert_eq!(code(|w| w.max_leased = 65_537), invalid);
        assert_eq!(code(|w| w.retry_schedule_ms = vec![8 * 86_400_000]), invalid);
        assert_eq!(code(|w| w.retry_schedule_ms = vec![1; 17]), Err(ErrorCode::FieldTooLarge));
        assert_eq!(code(|w| w.filters = Vec::new()), Err(ErrorCode::InvalidFilter));
        assert_eq!(code(|w| w.filters = vec!["a".to_owned(); 33]), Err(ErrorCode::InvalidFilter));
        assert_eq!(code(|w| w.filters = vec!["a.>.b".to_owned()]), Err(ErrorCode::InvalidFilter));
        assert_eq!(code(|w| w.filters = vec!["$acb.all".to_owned()]), Err(ErrorCode::TopicReserved));
    }

    #[test]
    fn a_filter_given_twice_counts_once() {
        let spec =
            define(Wanted { filters: vec!["a".to_owned(), "b".to_owned(), "a".to_owned()], ..wanted() }).unwrap();
        assert_eq!(spec.filters.len(), 2);
    }
}
