//! Drivers of clients in other languages. What a scenario means is worked out here, once for all of them: payloads with
//! their marks, spans, counts, and when the server has taken a settlement. The program in the other language does one
//! plain call for each command, and tells what its client said.

mod bus;
mod process;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use acb_proto::v1;
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

pub use self::bus::GuestBus;
use self::process::{Process, Program};
use super::{Args, Driver, Kind, Place, args::BAD_SCENARIO, content::Content, shape};
use crate::{
    raw::{Failure, Identity, RawClient, Reach, answer},
    wait::{LOOK_AGAIN, PATIENCE},
};

/// The consumer that steps mean when they name none.
const MAIN: &str = "main";

/// How long a watch that has nothing to say is listened to, after the server answered what was asked behind it.
const MOMENT: Duration = Duration::from_millis(10);

/// Verbs whose `ttl` is a span for the client too.
const SPANNED: [&str; 8] =
    ["create_key", "share", "update_context", "renew_context", "set_activity", "upload", "begin_upload", "stop_upload"];

/// The smallest chunk that there is: scenarios are to be short.
const CHUNK_BYTES: u64 = acb_types::limits::CHUNK_BYTES_MIN as u64;

/// A client in another language.
#[derive(Debug)]
pub struct Guest {
    name: &'static str,
    program: Program,
    process: Mutex<Option<Arc<Process>>>,
    agents: AtomicU64,
}

/// How the Python client's program is started, with these arguments.
fn python(arguments: &[&str]) -> Program {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let python = std::env::var_os("ACB_PYTHON").map(PathBuf::from);
    let driver = root.join("sdk-python/conformance/driver.py");
    Program {
        command: python.unwrap_or_else(|| target.join("python/venv/bin/python")),
        arguments: [driver.display().to_string()]
            .into_iter()
            .chain(arguments.iter().map(|a| (*a).to_owned()))
            .collect(),
        made_by: "scripts/build-wheel.sh",
    }
}

impl Guest {
    /// The Python client's two faces, from the environment that `scripts/build-wheel.sh` makes.
    pub fn python() -> [Self; 2] {
        ["async", "sync"].map(|face| {
            let name = if face == "async" { "python-async" } else { "python-sync" };
            Self { name, program: python(&[face]), process: Mutex::default(), agents: AtomicU64::new(1) }
        })
    }
}

impl Kind for Guest {
    fn name(&self) -> &'static str {
        self.name
    }

    fn driver(&self, place: Place) -> Box<dyn Driver> {
        let mut running = self.process.lock();
        let process = match (&place.reach, &*running) {
            // A bus inside a program has its clients there.
            (Reach::Guest(bus), _) => Ok(bus.process()),
            (_, Some(process)) => Ok(Arc::clone(process)),
            (_, None) => Process::start(&self.program).map(|p| Arc::clone(running.insert(Arc::new(p)))),
        };
        Box::new(GuestDriver {
            place,
            process,
            number: self.agents.fetch_add(1, Ordering::Relaxed),
            placed: false,
            ack_waits: HashMap::new(),
            last: HashMap::new(),
            ids: HashMap::new(),
            probe: None,
        })
    }
}

/// One agent, in the program.
#[derive(Debug)]
struct GuestDriver {
    place: Place,
    process: Result<Arc<Process>, Failure>,
    number: u64,
    placed: bool,
    ack_waits: HashMap<String, Duration>,
    /// Seq of the last message, by consumer.
    last: HashMap<String, u64>,
    /// Ids of received messages, by consumer and seq.
    ids: HashMap<(String, u64), String>,
    /// Looks at the server beside the client, to know when it has taken something.
    probe: Option<RawClient>,
}

impl Drop for GuestDriver {
    fn drop(&mut self) {
        if let Ok(process) = &self.process {
            let (process, number) = (Arc::clone(process), self.number);
            let bus = if let Reach::Guest(bus) = &self.place.reach { Some(bus.clone()) } else { None };
            tokio::spawn(async move {
                // Whatever it held goes with it; a program that is gone holds nothing.
                let _ = process.call(number, "forget", Value::Null).await;
                if let Some(bus) = bus {
                    bus.forget(number).await;
                }
            });
        }
    }
}

fn consumer(args: &Args) -> Result<String, Failure> {
    Ok(args.text("session")?.unwrap_or_else(|| MAIN.to_owned()))
}

fn seconds(span: Duration) -> f64 {
    span.as_secs_f64()
}

impl GuestDriver {
    async fn tell(&mut self, verb: &str, args: Value) -> Result<Value, Failure> {
        let process = self.process.clone()?;
        if !self.placed {
            self.placed = true;
            let endpoint = match &self.place.reach {
                Reach::Tcp(address) => format!("acb://{address}"),
                Reach::Guest(_) => bus::ENDPOINT.to_owned(),
                Reach::Dialer(_) => {
                    return Err(Failure::own(BAD_SCENARIO, "a program of its own reaches a bus by a socket"));
                }
            };
            let place = json!({
                "endpoint": endpoint, "tenant": self.place.tenant,
                "agent": self.place.agent, "patience": PATIENCE.as_secs_f64(),
            });
            process.call(self.number, "place", place).await?;
        }
        let mut result = process.call(self.number, verb, args).await?;
        self.open(&mut result)?;
        Ok(result)
    }

    /// Payloads as scenarios see them, wherever they stand in a result.
    fn open(&self, value: &mut Value) -> Result<(), Failure> {
        match value {
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.open(item)),
            Value::Object(map) => {
                if let Some(text) = map.remove("payload_b64") {
                    let bytes = STANDARD
                        .decode(text.as_str().unwrap_or_default())
                        .map_err(|e| Failure::own("protocol_error", format!("a payload in base64: {e}")))?;
                    map.insert("payload".to_owned(), self.place.mark.open(&bytes)?);
                }
                map.values_mut().try_for_each(|item| self.open(item))
            }
            _ => Ok(()),
        }
    }

    /// What a step gives, in plain values: spans in seconds, texts filled, the payload with its mark.
    fn plain(&self, args: &Args, names: &[&str], number: u64) -> Result<Map<String, Value>, Failure> {
        let mut out = Map::new();
        for name in names.iter().filter(|n| args.has(n)) {
            let value = match *name {
                "ack_wait" | "delay" | "timeout" => json!(args.span(name)?.map(seconds)),
                "retry" => json!(args.spans(name)?.into_iter().map(seconds).collect::<Vec<_>>()),
                // By the server's clock, which the test moves: the client's own stands elsewhere.
                "ttl" => {
                    let at = args.span(name)?.map(|ttl| self.place.clock.after(ttl));
                    out.insert("expires_at_ms".to_owned(), json!(at));
                    continue;
                }
                "payload" => {
                    let bytes = self.place.mark.payload(args, number)?;
                    out.insert("payload_b64".to_owned(), STANDARD.encode(bytes).into());
                    continue;
                }
                "key" => json!(args.text(name)?.map(|key| key.replace("{i}", &number.to_string()))),
                "filters" | "groups" | "roles" | "context_refs" | "fields" | "capabilities_all"
                | "capabilities_any" | "labels" | "agents" => json!(args.texts(name)?),
                "attributes" | "metadata" | "shares" => json!(args.pairs(name)?.into_iter().collect::<HashMap<_, _>>()),
                "count" | "seq" | "time" | "max_attempts" | "max_leased" | "credit" | "credit_bytes" | "page_size"
                | "messages" | "bytes" | "if_rev" | "at_rev" | "after_rev" | "after" | "from" | "settled_bytes"
                | "chunk_bytes" | "window_bytes" => json!(args.number(name)?),
                // Its bytes go their own way.
                "content" => continue,
                "all" | "confirm" | "keep_inbox" | "capabilities" | "force" => {
                    args.get(name).cloned().unwrap_or_default()
                }
                _ => json!(args.text(name)?),
            };
            out.insert((*name).to_owned(), value);
        }
        Ok(out)
    }

    async fn pass(&mut self, verb: &str, args: &Args) -> Result<Value, Failure> {
        let plain = self.prepared(verb, args)?;
        self.tell(verb, plain.into()).await
    }

    fn prepared(&self, verb: &str, args: &Args) -> Result<Map<String, Value>, Failure> {
        let Some(known) = crate::scenario::verbs::VERBS.iter().find(|v| v.name == verb) else {
            return Err(Failure::own(BAD_SCENARIO, format!("no verb is called {verb}")));
        };
        let mut plain = self.plain(args, known.args, 0)?;
        // What lives for a span says so in seconds, and not by its end.
        if SPANNED.contains(&verb) && plain.remove("expires_at_ms").is_some() {
            plain.insert("ttl".to_owned(), json!(args.span("ttl")?.map(seconds)));
        }
        if ["request", "reply", "send", "share"].contains(&verb) && !plain.contains_key("payload_b64") {
            plain.insert("payload_b64".to_owned(), STANDARD.encode(self.place.mark.payload(args, 0)?).into());
        }
        Ok(plain)
    }

    async fn upload(&mut self, verb: &str, args: &Args) -> Result<Value, Failure> {
        let mut plain = self.prepared(verb, args)?;
        let content = Content::need(args, &self.place.mark)?;
        plain.insert("content_b64".to_owned(), STANDARD.encode(content.bytes()).into());
        plain.entry("chunk_bytes").or_insert_with(|| CHUNK_BYTES.into());
        self.tell(verb, plain.into()).await
    }

    async fn download(&mut self, args: &Args) -> Result<Value, Failure> {
        let mut result = self.pass("download", args).await?;
        let received = result["content_b64"].take();
        let received = STANDARD
            .decode(received.as_str().unwrap_or_default())
            .map_err(|e| Failure::own("protocol_error", format!("a content in base64: {e}")))?;
        let from = args.number_or("from", 0)?;
        let end = args.number("bytes")?.map_or(u64::MAX, |bytes| from + bytes);
        let same = Content::read(args, &self.place.mark)?.map(|content| content.part(from..end) == received);
        result["same"] = json!(same);
        Ok(result)
    }

    async fn publish(&mut self, args: &Args) -> Result<Value, Failure> {
        let names: Vec<&str> = crate::scenario::verbs::VERBS
            .iter()
            .find(|v| v.name == "publish")
            .map_or(Vec::new(), |v| v.args.iter().copied().filter(|a| *a != "count").collect());
        let mut items = Vec::new();
        for number in 0..args.number_or("count", 1)? {
            let mut item = self.plain(args, &names, number)?;
            if !item.contains_key("payload_b64") {
                item.insert("payload_b64".to_owned(), STANDARD.encode(self.place.mark.payload(args, number)?).into());
            }
            items.push(Value::Object(item));
        }
        self.tell("publish", json!({ "items": items })).await
    }

    async fn receive(&mut self, args: &Args) -> Result<Value, Failure> {
        let name = consumer(args)?;
        let result = self.tell("receive", json!({"session": name, "count": args.number_or("count", 1)?})).await?;
        let mut messages = result["messages"].as_array().cloned().unwrap_or_default();
        for message in &messages {
            let seq = message["seq"].as_u64().unwrap_or_default();
            let id = message["message_id"].as_str().unwrap_or_default().to_owned();
            self.last.insert(name.clone(), seq);
            self.ids.insert((name.clone(), seq), id);
        }
        if !args.has("count") {
            return Ok(messages.pop().unwrap_or_default());
        }
        let payloads: Vec<&Value> = messages.iter().map(|m| &m["payload"]).collect();
        Ok(json!({"payloads": payloads, "messages": messages}))
    }

    async fn settle(&mut self, verb: &str, args: &Args) -> Result<Value, Failure> {
        let name = consumer(args)?;
        let nothing = || Failure::own(BAD_SCENARIO, "nothing was received yet");
        let first = match args.number("seq")? {
            Some(seq) => seq,
            None => self.last.get(&name).copied().ok_or_else(nothing)?,
        };
        for seq in first..first + args.number_or("count", 1)? {
            self.settle_one(verb, args, &name, seq).await?;
        }
        Ok(Value::Null)
    }

    async fn settle_one(&mut self, verb: &str, args: &Args, name: &str, seq: u64) -> Result<(), Failure> {
        let key = (name.to_owned(), seq);
        let unknown = || Failure::own(BAD_SCENARIO, format!("seq {seq} was not received"));
        let id = self.ids.get(&key).cloned().ok_or_else(unknown)?;
        let before = self.standing(&id).await?;
        let confirm = args.flag("confirm")?;
        let command = json!({
            "session": name, "seq": seq, "confirm": confirm, "delay": args.span("delay")?.map(seconds),
            "reason": args.text_or_empty("reason")?,
        });
        self.tell(verb, command).await?;
        // Given back, it may be with the same consumer again before anybody looks.
        if confirm || verb == "release" || verb == "progress" && !self.may_move(&before, name) {
            return Ok(());
        }
        // A client does not say when the server has taken a settlement; the server does.
        let started = Instant::now();
        while self.standing(&id).await? == before && started.elapsed() < PATIENCE {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Whether a lease that starts anew now ends later than it did.
    fn may_move(&self, before: &Value, name: &str) -> bool {
        let wait = self.ack_waits.get(name).copied().unwrap_or_default();
        let end = self.place.clock.after(wait);
        let leases = before.as_array().into_iter().flatten();
        leases.filter(|s| s["state"] == "leased").any(|s| s["due_at_ms"].as_u64().is_some_and(|due| due < end))
    }

    /// Where a message stands, as the server says.
    async fn standing(&mut self, id: &str) -> Result<Value, Failure> {
        if let Reach::Guest(bus) = &self.place.reach {
            return Ok(bus.standing(self.number, &self.place.tenant, id).await);
        }
        let probe = if let Some(probe) = &self.probe {
            probe.clone()
        } else {
            let identity = Identity::dev(&self.place.tenant, "probe");
            self.probe.insert(RawClient::connect_over(&self.place.reach, &identity).await?).clone()
        };
        let request = v1::GetMessageStatusRequest { message_id: id.to_owned() };
        match answer(probe.messages().get_message_status(request)).await {
            Ok(status) => Ok(shape::status(&status)["subscriptions"].clone()),
            Err(failure) if failure.is_lost() => {
                self.probe = None;
                Ok(Value::Null)
            }
            Err(_) => Ok(Value::Null),
        }
    }
}

#[async_trait]
impl Driver for GuestDriver {
    async fn call(&mut self, verb: &str, args: &Args) -> Result<Value, Failure> {
        match verb {
            "publish" => self.publish(args).await,
            "receive" => self.receive(args).await,
            "upload" | "begin_upload" | "stop_upload" => self.upload(verb, args).await,
            "download" => self.download(args).await,
            "no_agent_events" => {
                let command = json!({"session": consumer(args)?, "moment": seconds(MOMENT)});
                self.tell(verb, command).await
            }
            "ack" | "nack" | "progress" | "term" | "release" => self.settle(verb, args).await,
            "consume" => {
                let result = self.pass(verb, args).await?;
                let wait = result["ack_wait_ms"].as_u64().unwrap_or_default();
                self.ack_waits.insert(consumer(args)?, Duration::from_millis(wait));
                Ok(result)
            }
            "connect" | "close" => {
                self.last.clear();
                self.ids.clear();
                self.pass(verb, args).await
            }
            _ => self.pass(verb, args).await,
        }
    }

    async fn server_gone(&mut self) {
        // The client notices by itself; the probe is ours.
        self.probe = None;
    }
}
