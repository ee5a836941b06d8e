//! Redis Streams by the `redis` crate: one `XADD BENCH * d <payload>` per message, no trimming.
//!
//! - Pipelined: two pipelines in flight, each half the window; the append-only file is flushed once per turn
//!   of the server's event loop, so a pipeline shares its flush.
//! - One in flight: an `XADD` per round trip, one connection per client.
//! - Backlog: `XREADGROUP COUNT 500`, then one `XACK` per message; the acks of a batch travel in one pipeline
//!   with the next read, so a batch costs one round trip.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use redis::{AsyncConnectionConfig, Client, Pipeline, Value, aio::MultiplexedConnection};

use crate::{
    case::{Language, Shape},
    load::{
        Outcome, Plan,
        client::{Head, Payloads, Publish},
        deliver,
        meter::{Latencies, Meter},
        publish, python, settle_disk,
    },
};

const KEY: &str = "BENCH";
const GROUP: &str = "g";
const FIELD: &str = "d";

/// Deliveries per second a backlog is sized for.
const BACKLOG: u64 = 200_000;
const BACKLOG_PYTHON: u64 = 110_000;

/// Runs the plan against a Redis server; the second figure is what the server says it stored.
pub(crate) async fn load(plan: Plan) -> Result<(Outcome, Option<u64>)> {
    let before = stored(&plan).await?;
    let outcome = match plan.case.shape {
        Shape::Pipelined if plan.language == Language::Python => python::publish(&plan).await?,
        Shape::Pipelined => pipelined(&plan).await?,
        Shape::OneInFlight { clients } => {
            let publishers =
                publish::open_many(clients, |_| async { Ok(Publisher { connection: connect(&plan).await? }) }).await?;
            publish::one_in_flight(&plan, publishers).await?
        }
        Shape::Backlog => backlog(&plan).await?,
        _ => bail!("{} is not measured against Redis", plan.case.name),
    };
    Ok((outcome, Some(stored(&plan).await? - before)))
}

async fn connect(plan: &Plan) -> Result<MultiplexedConnection> {
    // The default answer timeout of half a second is shorter than a slow disk's worst flush.
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
    let client = Client::open(format!("redis://{}/", plan.address))?;
    client.get_multiplexed_async_connection_with_config(&config).await.context("cannot connect to redis-server")
}

async fn stored(plan: &Plan) -> Result<u64> {
    Ok(redis::cmd("XLEN").arg(KEY).query_async(&mut connect(plan).await?).await?)
}

fn add(pipeline: &mut Pipeline, payload: &[u8]) {
    pipeline.cmd("XADD").arg(KEY).arg("*").arg(FIELD).arg(payload).ignore();
}

/// Two pipelines of half the window until the time is up.
async fn pipelined(plan: &Plan) -> Result<Outcome> {
    let half = (plan.window / 2).max(1);
    let connection = connect(plan).await?;
    let payload = Payloads::new(plan.case.payload).shared();
    let meter = Meter::start(plan.server_pid)?;
    let started = meter.started();
    let duration = plan.duration;
    let lanes: Vec<_> = (0..2)
        .map(|_| {
            let mut connection = connection.clone();
            let payload = payload.clone();
            tokio::spawn(async move {
                let mut latencies = Latencies::new();
                let mut pipeline = Pipeline::with_capacity(half);
                let mut acked = 0u64;
                while started.elapsed() < duration {
                    pipeline.clear();
                    for _ in 0..half {
                        add(&mut pipeline, &payload);
                    }
                    let moment = Instant::now();
                    pipeline.exec_async(&mut connection).await?;
                    latencies.record(moment.elapsed());
                    acked += half as u64;
                }
                Ok::<_, anyhow::Error>((acked, latencies))
            })
        })
        .collect();
    let mut latencies = Latencies::new();
    let mut acked = 0;
    for lane in lanes {
        let (count, own) = lane.await??;
        acked += count;
        latencies.merge(&own);
    }
    let measured = meter.stop()?;
    Ok(Outcome { published: acked, acked, delivered: 0, counted: acked, value: None, wakes: None, latencies, measured })
}

struct Publisher {
    connection: MultiplexedConnection,
}

impl Publish for Publisher {
    type Receipt = ();

    async fn publish(&self, payload: Bytes) -> Result<()> {
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("XADD");
        command.arg(KEY).arg("*").arg(FIELD).arg(&payload[..]);
        command.exec_async(&mut connection).await?;
        Ok(())
    }

    async fn settle((): ()) -> Result<()> {
        Ok(())
    }
}

/// Fills, then works the backlog off through a consumer group.
async fn backlog(plan: &Plan) -> Result<Outcome> {
    let count = deliver::backlog_size(plan, if plan.language == Language::Python { BACKLOG_PYTHON } else { BACKLOG })?;
    let mut connection = connect(plan).await?;
    let payloads = Payloads::new(plan.case.payload);
    let mut pipeline = Pipeline::with_capacity(512);
    let mut index = 0;
    while index < count {
        pipeline.clear();
        while index < count && pipeline.len() < 512 {
            add(&mut pipeline, &payloads.with_head(Head { index, stamp: 0 }));
            index += 1;
        }
        pipeline.exec_async(&mut connection).await.context("cannot fill the backlog")?;
    }
    settle_disk().await?;
    if plan.language == Language::Python {
        return python::receive(plan, count, nothing_pending(plan, count)).await;
    }
    let meter = Meter::start(plan.server_pid)?;
    let mut connection = connect(plan).await?;
    redis::cmd("XGROUP").arg("CREATE").arg(KEY).arg(GROUP).arg("0").exec_async(&mut connection).await?;
    let mut delivered = 0u64;
    let mut ids: Vec<Vec<u8>> = Vec::with_capacity(plan.window);
    loop {
        pipeline.clear();
        for id in ids.drain(..) {
            pipeline.cmd("XACK").arg(KEY).arg(GROUP).arg(id).ignore();
        }
        pipeline
            .cmd("XREADGROUP")
            .arg("GROUP")
            .arg(GROUP)
            .arg("c")
            .arg("COUNT")
            .arg(plan.window)
            .arg("STREAMS")
            .arg(KEY)
            .arg(">");
        let (read,): (Value,) = pipeline.query_async(&mut connection).await?;
        for entry in entries(read)? {
            let (id, payload) = entry_parts(entry)?;
            let head = Head::of(&payload, plan.case.payload)?;
            ensure!(head.index == delivered, "message {} came where {delivered} was due", head.index);
            delivered += 1;
            ids.push(id);
        }
        // Nothing new: the acks of the last batch were in front of this very read.
        if ids.is_empty() {
            break;
        }
    }
    nothing_pending(plan, count).await?;
    let measured = meter.stop()?;
    Ok(Outcome {
        published: count,
        acked: count,
        delivered,
        counted: delivered,
        value: None,
        wakes: None,
        latencies: Latencies::new(),
        measured,
    })
}

/// Refuses messages that were read and are not acknowledged.
async fn nothing_pending(plan: &Plan, count: u64) -> Result<()> {
    let (pending, ..): (u64, Value, Value, Value) =
        redis::cmd("XPENDING").arg(KEY).arg(GROUP).query_async(&mut connect(plan).await?).await?;
    ensure!(pending == 0, "{pending} of {count} messages are still pending");
    Ok(())
}

/// The entries of an `XREADGROUP` answer of one stream: `[[key, [entry, ..]]]`, or nil.
fn entries(read: Value) -> Result<Vec<Value>> {
    let Value::Array(streams) = read else {
        return match read {
            Value::Nil => Ok(Vec::new()),
            other => bail!("not an answer to XREADGROUP: {other:?}"),
        };
    };
    match streams.into_iter().next() {
        None => Ok(Vec::new()),
        Some(Value::Array(mut stream)) => match stream.pop() {
            Some(Value::Array(entries)) => Ok(entries),
            other => bail!("not a stream's entries: {other:?}"),
        },
        Some(other) => bail!("not a stream: {other:?}"),
    }
}

/// Id and payload of an entry: `[id, [field, payload]]`.
fn entry_parts(entry: Value) -> Result<(Vec<u8>, Vec<u8>)> {
    let Value::Array(mut parts) = entry else { bail!("not an entry: {entry:?}") };
    let (Some(Value::Array(mut fields)), Some(Value::BulkString(id))) = (parts.pop(), parts.pop()) else {
        bail!("an entry without id and fields");
    };
    let Some(Value::BulkString(payload)) = fields.pop() else { bail!("an entry without a payload") };
    Ok((id, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn entries_are_taken_out_of_a_read() {
        let entry = Value::Array(vec![bulk("1-0"), Value::Array(vec![bulk("d"), bulk("payload")])]);
        let read = Value::Array(vec![Value::Array(vec![bulk(KEY), Value::Array(vec![entry])])]);
        let mut found = entries(read).unwrap();
        assert_eq!(found.len(), 1);
        let (id, payload) = entry_parts(found.remove(0)).unwrap();
        assert_eq!((&id[..], &payload[..]), (&b"1-0"[..], &b"payload"[..]));
    }

    #[test]
    fn nothing_new_is_no_entries_and_nonsense_is_an_error() {
        assert!(entries(Value::Nil).unwrap().is_empty());
        assert!(entries(Value::Int(1)).is_err());
        assert!(entry_parts(Value::Nil).is_err());
    }
}
