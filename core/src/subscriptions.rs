//! Durable subscriptions: what they hear and how they deliver.

use std::time::Duration;

use acb_proto::v1::subscription_service_client::SubscriptionServiceClient;
use acb_types::{SubscriptionName, Timestamp, TopicFilter, batch::DeadLetterPolicy, batch::StartAt, limits};

use crate::{
    client::Handle,
    convert,
    error::{Error, ErrorCode, Result},
    pages::{Page, Pages},
    retry::Safety,
};

/// A subscription's definition. Absent values take the server's defaults.
///
/// ```
/// use std::time::Duration;
/// use acb_sdk::{StartAt, SubscriptionSpec};
///
/// let spec = SubscriptionSpec::new("work").filter("jobs.*").filter("urgent.>")
///     .ack_wait(Duration::from_secs(60)).max_attempts(3).start_at(StartAt::All);
/// assert_eq!(spec.name(), "work");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct SubscriptionSpec {
    pub(crate) name: String,
    pub(crate) filters: Vec<String>,
    pub(crate) ack_wait: Option<Duration>,
    pub(crate) retry_schedule: Vec<Duration>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) dead_letters: Option<DeadLetterPolicy>,
    pub(crate) max_leased: Option<u32>,
    pub(crate) start_at: Option<StartAt>,
}

/// The rules of a [`SubscriptionSpec`], as far as they are given: what the server answers has them all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecParts {
    /// How long a consumer has for one message.
    pub ack_wait: Option<Duration>,
    /// Waits before redeliveries; the last repeats. Empty means the default.
    pub retry_schedule: Vec<Duration>,
    /// Attempts before a message is dead.
    pub max_attempts: Option<u32>,
    /// What becomes of the dead.
    pub dead_letters: Option<DeadLetterPolicy>,
    /// Messages leased at once, over all consumers.
    pub max_leased: Option<u32>,
    /// Where it begins.
    pub start_at: Option<StartAt>,
}

impl SubscriptionSpec {
    /// Its rules, for showing them.
    pub fn parts(&self) -> SpecParts {
        SpecParts {
            ack_wait: self.ack_wait,
            retry_schedule: self.retry_schedule.clone(),
            max_attempts: self.max_attempts,
            dead_letters: self.dead_letters,
            max_leased: self.max_leased,
            start_at: self.start_at,
        }
    }

    /// A subscription of this name (`[A-Za-z0-9][A-Za-z0-9_-]{0,127}`). It needs at least one filter.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Hears topics of this pattern too: dot tokens, `*` one token, a last `>` one or more. At most 32 of them.
    pub fn filter(mut self, pattern: impl Into<String>) -> Self {
        self.filters.push(pattern.into());
        self
    }

    /// How long a consumer has for one message: 1 s to 12 h, 30 s by default.
    pub fn ack_wait(mut self, span: Duration) -> Self {
        self.ack_wait = Some(span);
        self
    }

    /// Waits before each redelivery, at most 16; the last repeats. 1 s, 5 s, 30 s, 2 min, 10 min by default.
    pub fn retry_schedule(mut self, waits: impl IntoIterator<Item = Duration>) -> Self {
        self.retry_schedule = waits.into_iter().collect();
        self
    }

    /// Attempts before a message is dead: 1 to 1,000, 5 by default.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// What becomes of the dead; kept by default.
    pub fn dead_letters(mut self, policy: DeadLetterPolicy) -> Self {
        self.dead_letters = Some(policy);
        self
    }

    /// Messages that may be leased at once over all consumers: 1 to 65,536, which is also the default.
    pub fn max_leased(mut self, messages: u32) -> Self {
        self.max_leased = Some(messages);
        self
    }

    /// Where it begins; at new messages by default. Only looked at when it is made.
    pub fn start_at(mut self, start: StartAt) -> Self {
        self.start_at = Some(start);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it hears.
    pub fn filters(&self) -> &[String] {
        &self.filters
    }

    /// Checks what the bus would refuse.
    pub(crate) fn check(&self, operation: &'static str, named: bool) -> Result<()> {
        if named {
            SubscriptionName::user(&self.name).map_err(|e| Error::name(operation, &e))?;
        }
        if self.filters.is_empty() || self.filters.len() > limits::FILTERS_MAX {
            let text = format!("{} filters, allowed are 1 to {}", self.filters.len(), limits::FILTERS_MAX);
            return Err(Error::new(ErrorCode::InvalidFilter, operation, text).with("field", "filters"));
        }
        for filter in &self.filters {
            TopicFilter::user(filter).map_err(|e| Error::name(operation, &e))?;
        }
        if self.retry_schedule.len() > limits::RETRY_SCHEDULE_MAX {
            let (given, limit) = (self.retry_schedule.len(), limits::RETRY_SCHEDULE_MAX);
            let text = format!("retry schedule of {given} waits exceeds limit of {limit}");
            return Err(Error::new(ErrorCode::InvalidArgument, operation, text).with("field", "retry_schedule"));
        }
        Ok(())
    }
}

/// A subscription with its counts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionInfo {
    /// Its definition, defaults filled in.
    pub spec: SubscriptionSpec,
    /// When it was made.
    pub created_at: Timestamp,
    /// Agent that made it.
    pub created_by: String,
    /// Everything below this seq is settled.
    pub floor_seq: u64,
    /// Next seq to be delivered for the first time.
    pub cursor_seq: u64,
    /// Next seq of the partition.
    pub next_seq: u64,
    /// Messages with a running lease.
    pub leased: u64,
    /// Messages that wait for a redelivery.
    pub waiting_retry: u64,
    /// Consumers connected now.
    pub consumers: u32,
    /// Dead letters kept.
    pub dead_letters: u64,
}

/// Answer to [`Subscriptions::create`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedSubscription {
    /// As it is now.
    pub subscription: SubscriptionInfo,
    /// Whether it was there before.
    pub existed: bool,
}

/// Subscriptions of a client's tenant. Made by [`Client::subscriptions`](crate::Client::subscriptions).
///
#[doc = "```no_run"]
#[doc = include_str!("../doc/subscriptions.rs")]
#[doc = "```"]
#[derive(Clone, Debug)]
pub struct Subscriptions {
    core: Handle,
}

impl Subscriptions {
    pub(crate) fn new(core: Handle) -> Self {
        Self { core }
    }

    /// Makes a durable subscription. The same definition again gives the one that is there.
    ///
    /// # Errors
    /// `subscription_exists` when one of that name is there with another definition; `invalid_filter`;
    /// `subscription_limit`.
    ///
    /// # Cancel safety
    /// It may have been made; calling again is safe.
    pub async fn create(&self, spec: SubscriptionSpec) -> Result<CreatedSubscription> {
        let operation = "subscriptions.create";
        spec.check(operation, true)?;
        let response = self
            .core
            .call(operation, Safety::Idempotent, convert::create_subscription(&spec), |to, request| async move {
                SubscriptionServiceClient::with_origin(to.channel, to.origin).create_subscription(request).await
            })
            .await?;
        let subscription = convert::subscription(operation, response.subscription)?;
        Ok(CreatedSubscription { subscription, existed: response.existed })
    }

    /// Shows one with its counts.
    ///
    /// # Errors
    /// `subscription_not_found`.
    pub async fn get(&self, name: impl Into<String>) -> Result<SubscriptionInfo> {
        let operation = "subscriptions.get";
        let response = self
            .core
            .call(operation, Safety::Idempotent, convert::get_subscription(name.into()), |to, request| async move {
                SubscriptionServiceClient::with_origin(to.channel, to.origin).get_subscription(request).await
            })
            .await?;
        convert::subscription(operation, response.subscription)
    }

    /// All of the tenant, by name.
    pub fn list(&self) -> Pages<SubscriptionInfo> {
        let me = self.clone();
        Pages::new(move |token| {
            let me = me.clone();
            async move { me.page(limits::PAGE_SIZE_MAX, token).await }
        })
    }

    /// One page of the tenant's: 1 to 500 of them, from the token of the page before, or an empty one.
    ///
    /// # Errors
    /// `invalid_page_token`.
    pub async fn page(&self, size: u32, token: impl Into<String>) -> Result<Page<SubscriptionInfo>> {
        let operation = "subscriptions.list";
        let request = convert::list_subscriptions(size, token.into());
        let response = self
            .core
            .call(operation, Safety::Idempotent, request, |to, request| async move {
                SubscriptionServiceClient::with_origin(to.channel, to.origin).list_subscriptions(request).await
            })
            .await?;
        let items = response
            .subscriptions
            .into_iter()
            .map(|s| convert::subscription(operation, Some(s)))
            .collect::<Result<_>>()?;
        Ok(Page::new(items, response.next_page_token))
    }

    /// Ends one; its dead letters stay. Deleting what is absent succeeds.
    ///
    /// # Errors
    /// `permission_denied`.
    pub async fn delete(&self, name: impl Into<String>) -> Result<()> {
        let operation = "subscriptions.delete";
        self.core
            .call(operation, Safety::Idempotent, convert::delete_subscription(name.into()), |to, request| async move {
                SubscriptionServiceClient::with_origin(to.channel, to.origin).delete_subscription(request).await
            })
            .await?;
        Ok(())
    }
}
