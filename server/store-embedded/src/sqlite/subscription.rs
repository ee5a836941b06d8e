//! Subscriptions in SQLite.

use std::time::Duration;

use acb_ports::metadata::{Created, NewSubscription, SubscriptionRow, SubscriptionSet, SubscriptionSpec};
use acb_types::{
    AgentId, ClassId, ErrorCode, SubscriptionId, SubscriptionName, TenantId, Timestamp, TopicFilter,
    batch::{DeadLetterPolicy, StartAt},
    limits,
};
use rusqlite::{Connection, Row, named_params};

use super::{
    convert::{collect, first, json, number, parse, put, time, to_json},
    error::{Failure, Result, refuse},
    tenant,
};

const COLUMNS: &str = "subscription_id, name, class, filters, ack_wait_ms, retry_schedule, max_attempts, dead_letters, \
                       max_leased, start_at, start_value, created_by, created_at";

fn ms(span: Duration) -> u64 {
    span.as_millis() as u64
}

fn subscription_row(row: &Row<'_>) -> Result<SubscriptionRow> {
    let filters: Vec<String> = json(row, "filters")?;
    let schedule: Vec<u64> = json(row, "retry_schedule")?;
    let value = number(row, "start_value")?;
    Ok(SubscriptionRow {
        id: SubscriptionId(number(row, "subscription_id")?),
        spec: SubscriptionSpec {
            name: parse(row, "name")?,
            class: ClassId(row.get("class")?),
            filters: filters.iter().map(|text| text.parse().map_err(Failure::from)).collect::<Result<_>>()?,
            ack_wait: Duration::from_millis(number(row, "ack_wait_ms")?),
            retry_schedule: schedule.into_iter().map(Duration::from_millis).collect(),
            max_attempts: row.get("max_attempts")?,
            dead_letters: match row.get::<_, String>("dead_letters")?.as_str() {
                "keep" => DeadLetterPolicy::Keep,
                "drop" => DeadLetterPolicy::Drop,
                other => return Err(Failure::Damaged(format!("dead_letters: {other:?}"))),
            },
            max_leased: row.get("max_leased")?,
        },
        start: match row.get::<_, String>("start_at")?.as_str() {
            "new" => StartAt::New,
            "all" => StartAt::All,
            "sequence" => StartAt::Sequence(value),
            "time" => StartAt::Time(Timestamp(value)),
            other => return Err(Failure::Damaged(format!("start_at: {other:?}"))),
        },
        created_by: parse(row, "created_by")?,
        created_at: time(row, "created_at")?,
    })
}

pub(super) fn get(c: &Connection, tenant: &TenantId, name: &SubscriptionName) -> Result<Option<SubscriptionRow>> {
    let sql = format!("SELECT {COLUMNS} FROM subscriptions WHERE tenant_id = ?1 AND name = ?2");
    first(c.prepare_cached(&sql)?.query([tenant.as_str(), name.as_str()])?, subscription_row)
}

pub(super) fn get_by_id(c: &Connection, tenant: &TenantId, id: SubscriptionId) -> Result<Option<SubscriptionRow>> {
    let sql = format!("SELECT {COLUMNS} FROM subscriptions WHERE tenant_id = ?1 AND subscription_id = ?2");
    first(c.prepare_cached(&sql)?.query((tenant.as_str(), put(id.0)))?, subscription_row)
}

pub(super) fn list(
    c: &Connection,
    tenant: &TenantId,
    set: SubscriptionSet,
    after: Option<&SubscriptionName>,
    limit: u32,
) -> Result<Vec<SubscriptionRow>> {
    let chosen = match set {
        SubscriptionSet::Chosen => "AND implicit = 0",
        SubscriptionSet::All => "",
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM subscriptions WHERE tenant_id = ?1 AND name > ?2 {chosen} ORDER BY name LIMIT ?3"
    );
    // Implicit names begin with `$`, before every name of users: those are skipped, not walked.
    let first_chosen = if set == SubscriptionSet::Chosen { "$~" } else { "" };
    let after = after.map_or(first_chosen, SubscriptionName::as_str).max(first_chosen);
    collect(c.prepare_cached(&sql)?.query((tenant.as_str(), after, limit))?, subscription_row)
}

pub(super) fn list_by_id(
    c: &Connection,
    tenant: &TenantId,
    after: Option<SubscriptionId>,
    limit: u32,
) -> Result<Vec<SubscriptionRow>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM subscriptions WHERE tenant_id = ?1 AND subscription_id > ?2 \
         ORDER BY subscription_id LIMIT ?3"
    );
    let after = after.map_or(0, |id| put(id.0));
    collect(c.prepare_cached(&sql)?.query((tenant.as_str(), after, limit))?, subscription_row)
}

/// Gives the next number (META-10) and keeps the row, within the caller's transaction.
pub(super) fn add(c: &Connection, tenant: &TenantId, new: NewSubscription) -> Result<SubscriptionRow> {
    const SQL: &str = "INSERT INTO subscriptions (tenant_id, subscription_id, name, class, filters, ack_wait_ms, \
         retry_schedule, max_attempts, dead_letters, max_leased, start_at, start_value, created_by, created_at, implicit) \
         VALUES (:tenant, :id, :name, :class, :filters, :ack_wait, :schedule, :attempts, :dead, :leased, :start, :value, \
         :by, :at, :implicit)";
    let id = tenant::one(
        c,
        tenant,
        "UPDATE tenants SET last_subscription = last_subscription + 1 WHERE tenant_id = ?1 RETURNING last_subscription",
    )?;
    let NewSubscription { spec, start, created_by, now } = new;
    let filters: Vec<&str> = spec.filters.iter().map(TopicFilter::as_str).collect();
    let schedule: Vec<u64> = spec.retry_schedule.iter().copied().map(ms).collect();
    let (start_at, value) = match start {
        StartAt::New => ("new", 0),
        StartAt::All => ("all", 0),
        StartAt::Sequence(seq) => ("sequence", seq),
        StartAt::Time(time) => ("time", time.0),
    };
    c.prepare_cached(SQL)?.execute(named_params! {
        ":tenant": tenant.as_str(),
        ":id": put(id),
        ":name": spec.name.as_str(),
        ":class": spec.class.0,
        ":filters": to_json(&filters)?,
        ":ack_wait": put(ms(spec.ack_wait)),
        ":schedule": to_json(&schedule)?,
        ":attempts": spec.max_attempts,
        ":dead": match spec.dead_letters {
            DeadLetterPolicy::Keep => "keep",
            DeadLetterPolicy::Drop => "drop",
        },
        ":leased": spec.max_leased,
        ":start": start_at,
        ":value": put(value),
        ":by": created_by.as_str(),
        ":at": put(now.0),
        ":implicit": spec.name.is_implicit(),
    })?;
    Ok(SubscriptionRow { id: SubscriptionId(id), spec, start, created_by, created_at: now })
}

pub(super) fn create(c: &Connection, tenant: &TenantId, new: NewSubscription) -> Result<Created<SubscriptionRow>> {
    let chosen = tenant::one(c, tenant, "SELECT chosen_subscriptions FROM tenants WHERE tenant_id = ?1")?;
    let name = &new.spec.name;
    if name.is_implicit() {
        return refuse(ErrorCode::InvalidArgument, format!("{name} is a name of the bus's own"));
    }
    if let Some(row) = get(c, tenant, name)? {
        if row.spec == new.spec {
            return Ok(Created { row, existed: true });
        }
        return refuse(ErrorCode::SubscriptionExists, format!("subscription {name} is there with another definition"));
    }
    if chosen >= limits::SUBSCRIPTIONS_MAX as u64 {
        return refuse(
            ErrorCode::SubscriptionLimit,
            format!("the tenant has {chosen} subscriptions, which is the limit"),
        );
    }
    count_chosen(c, tenant, 1)?;
    Ok(Created { row: add(c, tenant, new)?, existed: false })
}

fn count_chosen(c: &Connection, tenant: &TenantId, change: i64) -> Result<()> {
    c.prepare_cached("UPDATE tenants SET chosen_subscriptions = chosen_subscriptions + ?2 WHERE tenant_id = ?1")?
        .execute((tenant.as_str(), change))?;
    Ok(())
}

pub(super) fn delete(c: &Connection, tenant: &TenantId, name: &SubscriptionName) -> Result<Option<SubscriptionRow>> {
    tenant::must_exist(c, tenant)?;
    if name.is_implicit() {
        return refuse(ErrorCode::InvalidArgument, format!("{name} goes with its agent"));
    }
    let sql = format!("DELETE FROM subscriptions WHERE tenant_id = ?1 AND name = ?2 RETURNING {COLUMNS}");
    let row = first(c.prepare_cached(&sql)?.query([tenant.as_str(), name.as_str()])?, subscription_row)?;
    if row.is_some() {
        count_chosen(c, tenant, -1)?;
    }
    Ok(row)
}

/// Ends an agent's implicit subscriptions; in order of their numbers.
pub(super) fn end_implicit(c: &Connection, tenant: &TenantId, agent: &AgentId) -> Result<Vec<SubscriptionRow>> {
    let sql = format!(
        "DELETE FROM subscriptions WHERE tenant_id = ?1 AND created_by = ?2 AND implicit = 1 RETURNING {COLUMNS}"
    );
    let mut rows = collect(c.prepare_cached(&sql)?.query([tenant.as_str(), agent.as_str()])?, subscription_row)?;
    rows.sort_by_key(|row| row.id);
    Ok(rows)
}
