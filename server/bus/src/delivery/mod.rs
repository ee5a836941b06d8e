//! Delivery: the one room that drives engines and logs. Batches in, batches out; no HTTP, no SQL.
//!
//! A tenant has one partition per class. Each is a [`partition::Partition`]: an engine and a log behind one lock, driven
//! by the hot runtimes ([`tick`]), the committer threads and the ticker (`committer`). Streams put operations in and
//! read their own [`outbox`]. What is rare (making a subscription, asking for a status, dead letters) goes through
//! [`Delivery`] itself.

mod committer;
pub mod core;
mod dead_letters;
mod deaths;
mod keys;
pub mod outbox;
mod partition;
pub mod sleeper;
mod surveyor;
pub mod tick;
mod ticker;

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use acb_engine::{Counts, Engine, EngineConfig, MessageState};
use acb_ports::{Clock, MessageLog, MetadataStore};
use acb_types::{
    AgentId, Durability, Envelope, ErrorCode, ProducerKey, SubscriptionId, SubscriptionName, TenantId, Timestamp,
    TopicFilter,
    batch::{Batch, ReadRequest, Sender, StartAt, StoredRun, SubscriptionDef},
    frame,
    name::Address,
    position::{ClassId, MessageId, PartitionId, Seq},
};
use ahash::AHashMap;
use bytes::BytesMut;
use parking_lot::{Mutex, RwLock};

use self::{
    committer::Committer,
    core::{Op, PartitionCore},
    deaths::Deaths,
    outbox::PublishOutbox,
    ticker::{Partitions, Ticker},
};
pub use self::{
    dead_letters::DeadLetter,
    keys::{keys_of, producer_key},
    partition::Partition,
};
use crate::{error::AppError, telemetry::Metrics};

/// The partition that every class has in this profile.
pub const PARTITION: u16 = 0;

/// Ephemeral subscriptions that are remembered before those that are over are looked for.
const EPHEMERALS_SWEEP: usize = 1024;

/// How delivery runs.
#[derive(Clone, Debug)]
pub struct DeliveryConfig {
    /// Threads that flush logs side by side. Default 2.
    pub committer_threads: usize,
    /// How often retention is looked at. Default 10 s.
    pub retain_every: Duration,
    /// How often what absent consumers will never be given is looked for; also once at the start. Default 1 h.
    pub survey_every: Duration,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self { committer_threads: 2, retain_every: Duration::from_secs(10), survey_every: Duration::from_hours(1) }
    }
}

/// What delivery stands on.
#[derive(Debug)]
pub struct DeliveryDeps {
    /// The logs.
    pub log: Arc<dyn MessageLog>,
    /// Where subscriptions are defined.
    pub metadata: Arc<dyn MetadataStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How it runs.
    pub config: DeliveryConfig,
}

/// A message to store, from a unary call.
#[derive(Clone, Debug)]
pub struct SendInput {
    /// Who sends it.
    pub sender: Arc<Sender>,
    /// What.
    pub envelope: Envelope,
    /// To which level.
    pub durability: Durability,
}

/// Where a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendReceipt {
    /// Its id. `None` for a duplicate so old that its position is no longer known.
    pub id: Option<MessageId>,
    /// Level that was reached.
    pub durability: Durability,
    /// Whether it was there before.
    pub duplicate: bool,
}

/// Where a message stands.
#[derive(Clone, Debug)]
pub struct MessageStatus {
    /// Its topic.
    pub topic: String,
    /// Who sent it.
    pub from: AgentId,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// For each subscription that hears it, by name.
    pub subscriptions: Vec<MessageState>,
}

/// A subscription's counts.
#[derive(Clone, Debug)]
pub struct SubscriptionCounts {
    /// The engine's.
    pub engine: Counts,
    /// Next seq of the partition.
    pub next_seq: Seq,
    /// Dead letters kept.
    pub dead_letters: u64,
}

/// A tenant's partitions and the subscriptions that live on them.
#[derive(Debug)]
pub struct TenantDelivery {
    id: TenantId,
    partitions: [Arc<Partition>; 3],
    subscriptions: RwLock<AHashMap<SubscriptionName, (ClassId, SubscriptionDef)>>,
    dead_letters: dead_letters::Kept,
    /// Numbers of ephemeral subscriptions: from the top, where the metadata store never comes.
    next_ephemeral: std::sync::atomic::AtomicU64,
    /// By the id of their session, so that a lost connection finds its own again.
    ephemerals: Mutex<AHashMap<[u8; acb_types::limits::SESSION_ID_BYTES], SubscriptionId>>,
}

impl TenantDelivery {
    /// Whose it is.
    pub fn id(&self) -> &TenantId {
        &self.id
    }

    /// The partition of a built-in class.
    pub fn partition(&self, class: ClassId) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::from(class.0))
    }

    fn inbox(&self) -> &Arc<Partition> {
        &self.partitions[0]
    }

    fn topics(&self) -> &Arc<Partition> {
        &self.partitions[1]
    }

    fn graves(&self) -> &Arc<Partition> {
        &self.partitions[2]
    }

    /// The partition that a checked topic belongs to, for clients.
    ///
    /// # Errors
    /// `topic_reserved` for what clients may not name, `unsupported_feature` for a capability.
    pub fn route(&self, topic: &str) -> Result<&Arc<Partition>, ErrorCode> {
        match Address::of(topic) {
            Address::Topic(_) => Ok(self.topics()),
            Address::Inbox(_) | Address::Reply(_) | Address::All => Ok(self.inbox()),
            Address::Capability(_) => Err(ErrorCode::UnsupportedFeature),
            Address::DeadLetters(_) | Address::Redrive(_) | Address::Unknown(_) => Err(ErrorCode::TopicReserved),
        }
    }

    /// A subscription by name.
    pub fn subscription(&self, name: &SubscriptionName) -> Option<(ClassId, SubscriptionDef)> {
        self.subscriptions.read().get(name).cloned()
    }

    /// A number for an ephemeral subscription.
    pub fn ephemeral_id(&self) -> SubscriptionId {
        SubscriptionId(self.next_ephemeral.fetch_sub(1, Ordering::Relaxed))
    }

    /// Opens the ephemeral subscription of a session, or finds the one that its last connection left.
    ///
    /// # Errors
    /// As [`Self::start_seq`].
    pub fn ephemeral_open(
        &self,
        session: [u8; acb_types::limits::SESSION_ID_BYTES],
        def: SubscriptionDef,
        start: StartAt,
    ) -> Result<SubscriptionId, AppError> {
        let partition = self.topics();
        let mut ephemerals = self.ephemerals.lock();
        if let Some(id) = ephemerals.get(&session).copied()
            && partition.with(|core, _, _| core.engine().counts(id).is_some())
        {
            return Ok(id);
        }
        // Those whose session is over are forgotten by the engine, and here when somebody comes.
        if ephemerals.len() >= EPHEMERALS_SWEEP {
            partition.with(|core, _, _| ephemerals.retain(|_, id| core.engine().counts(*id).is_some()));
        }
        let seq = self.start_seq(partition, start)?;
        let id = def.id;
        partition.with(|core, now, _| core.engine().subscribe(def, seq, now));
        ephemerals.insert(session, id);
        Ok(id)
    }

    /// Where a new subscription begins in a partition.
    ///
    /// # Errors
    /// As the log's reads.
    pub fn start_seq(&self, partition: &Arc<Partition>, start: StartAt) -> Result<Seq, AppError> {
        Ok(match start {
            StartAt::New => partition.with(|core, _, _| core.log().next_seq()),
            StartAt::All => partition.reader().first_seq(),
            StartAt::Sequence(seq) => seq.max(1),
            StartAt::Time(time) => partition.reader().seq_at(time)?,
        })
    }
}

/// All tenants' delivery.
#[derive(Debug)]
pub struct Delivery {
    deps: DeliveryDeps,
    tenants: RwLock<AHashMap<TenantId, Arc<TenantDelivery>>>,
    /// One opening at a time.
    opening: tokio::sync::Mutex<()>,
    partitions: Arc<Partitions>,
    committer: Arc<Committer>,
    deaths: Arc<Deaths>,
    ticker: Arc<Ticker>,
    ticking: Mutex<Option<JoinHandle<()>>>,
    surveyor: Mutex<Option<JoinHandle<()>>>,
    stopping: Arc<AtomicBool>,
}

impl Delivery {
    /// Opens every tenant that the metadata store knows and starts the threads. Must run inside a tokio runtime, on
    /// which dead letters are written.
    ///
    /// # Errors
    /// When a thread cannot be had or the metadata cannot be read. A partition that is damaged is logged and left
    /// closed; the others open.
    pub async fn start(deps: DeliveryDeps) -> Result<Arc<Self>, AppError> {
        let thread = |e: std::io::Error| AppError::internal("no thread").caused_by(e);
        let committer = Committer::start(deps.config.committer_threads).map_err(thread)?;
        let partitions = Arc::new(Partitions::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let ticker = Arc::new(Ticker::default());
        let ticking =
            ticker.start(Arc::clone(&partitions), Arc::clone(&deps.clock), deps.config.retain_every).map_err(thread)?;
        let delivery = Arc::new(Self {
            tenants: RwLock::default(),
            opening: tokio::sync::Mutex::default(),
            partitions,
            committer,
            deaths: Deaths::new(),
            ticker,
            ticking: Mutex::new(Some(ticking)),
            surveyor: Mutex::default(),
            stopping,
            deps,
        });
        delivery.deaths.start(Arc::downgrade(&delivery));
        let mut after: Option<TenantId> = None;
        loop {
            let page = delivery.deps.metadata.tenant_list(after.as_ref(), acb_types::limits::PAGE_SIZE_MAX).await?;
            for row in &page {
                if let Err(error) = delivery.tenant_open(&row.id).await {
                    tracing::error!(tenant = %row.id, report = ?error.report(), "tenant not opened: {error}");
                }
            }
            match page.last() {
                Some(row) if page.len() == acb_types::limits::PAGE_SIZE_MAX as usize => after = Some(row.id.clone()),
                _ => break,
            }
        }
        let (open, stop) = (Arc::clone(&delivery.partitions), Arc::clone(&delivery.stopping));
        let surveyor = surveyor::start(open, stop, delivery.deps.config.survey_every).map_err(thread)?;
        *delivery.surveyor.lock() = Some(surveyor);
        Ok(delivery)
    }

    /// An open tenant.
    ///
    /// # Errors
    /// `tenant_not_found` when it is not open.
    pub fn tenant(&self, tenant: &TenantId) -> Result<Arc<TenantDelivery>, AppError> {
        self.tenants.read().get(tenant).cloned().ok_or_else(|| AppError::of(ErrorCode::TenantNotFound))
    }

    /// A tenant, opened when the metadata store has it and it is not open yet; made first where `may_make` allows.
    ///
    /// # Errors
    /// `tenant_not_found`, or as [`Self::tenant_open`].
    pub async fn tenant_ready(&self, tenant: &TenantId, may_make: bool) -> Result<Arc<TenantDelivery>, AppError> {
        if let Ok(open) = self.tenant(tenant) {
            return Ok(open);
        }
        let metadata = &self.deps.metadata;
        if metadata.tenant_get(tenant).await?.is_none() {
            if !may_make {
                return Err(AppError::of(ErrorCode::TenantNotFound));
            }
            match metadata.tenant_create(tenant, tenant.as_str(), self.deps.clock.now().wall).await {
                // Somebody else may have been first.
                Err(e) if e.code != ErrorCode::TenantExists => return Err(e.into()),
                _ => {}
            }
        }
        self.tenant_open(tenant).await?;
        self.tenant(tenant)
    }

    /// Opens a tenant's partitions, recovering what is in them. Opening twice is opening once.
    ///
    /// # Errors
    /// `data_damaged` and the like, of the first partition that does not open.
    pub async fn tenant_open(&self, tenant: &TenantId) -> Result<(), AppError> {
        let _one = self.opening.lock().await;
        if self.tenants.read().contains_key(tenant) {
            return Ok(());
        }
        let rows = self.deps.metadata.subscription_list_all(tenant).await?;
        let defs: Vec<(ClassId, StartAt, SubscriptionDef)> =
            rows.iter().map(|row| (row.spec.class, row.start, row.def())).collect();
        let mut partitions = Vec::with_capacity(ClassId::BUILT_IN.len());
        for class in ClassId::BUILT_IN {
            partitions.push(self.partition_open(tenant, class, &defs).await?);
        }
        let Ok(partitions) = <[Arc<Partition>; 3]>::try_from(partitions) else {
            return Err(AppError::internal("three classes are built in"));
        };
        let names = defs.into_iter().map(|(class, _, def)| (def.name.clone(), (class, def))).collect();
        let opened = TenantDelivery {
            id: tenant.clone(),
            partitions,
            subscriptions: RwLock::new(names),
            dead_letters: dead_letters::Kept::default(),
            next_ephemeral: std::sync::atomic::AtomicU64::new(u64::MAX),
            ephemerals: Mutex::default(),
        };
        opened.count_dead_letters()?;
        let opened = Arc::new(opened);
        self.partitions.write().extend(opened.partitions.iter().cloned());
        self.tenants.write().insert(tenant.clone(), opened);
        Ok(())
    }

    async fn partition_open(
        &self,
        tenant: &TenantId,
        class: ClassId,
        defs: &[(ClassId, StartAt, SubscriptionDef)],
    ) -> Result<Arc<Partition>, AppError> {
        let id = PartitionId { tenant: tenant.clone(), class, partition: PARTITION };
        let opened = self.deps.log.open(&id).await?;
        let reader = opened.log.reader();
        let (first, end) = (opened.log.first_seq(), opened.log.next_seq());
        let mut own = Vec::new();
        for (of, start, def) in defs {
            if class == ClassId::DEAD_LETTERS {
                own.push((dead_letters::twin(def), 1));
            } else if *of == class {
                let start = match start {
                    // Where it began was journaled before its making was answered, and this only bounds that from below.
                    // Without the record it was never answered; then hearing too much is better than missing something.
                    StartAt::New => 1,
                    StartAt::All => first,
                    StartAt::Sequence(seq) => (*seq).max(1),
                    StartAt::Time(time) => reader.seq_at(*time)?,
                };
                own.push((def.clone(), start));
            }
        }
        let seed = u64::from(class.0) << 56 | end;
        let mut engine = Engine::new(EngineConfig { seed, ..EngineConfig::default() });
        engine
            .restore(&opened.state, &own, first, end, self.deps.clock.now())
            .map_err(|e| AppError::of(ErrorCode::DataDamaged).private(format!("{id}: delivery state")).caused_by(e))?;
        let core = PartitionCore::new(engine, opened.log, class);
        let metrics = self.deps.metrics.partition(&id);
        let partition = Arc::new(Partition::new(
            id,
            core,
            Arc::clone(&self.deps.clock),
            Arc::clone(&self.committer),
            Arc::clone(&self.ticker),
            Arc::clone(&self.deaths),
            metrics,
        ));
        // The ticker hears of what recovery left to do.
        partition.with(|_, _, _| ());
        Ok(partition)
    }

    /// Stores one message and waits for its level.
    ///
    /// *Cancel safety*: dropped, the message may or may not be stored; an idempotency key makes a repeat safe.
    ///
    /// # Errors
    /// Whatever the message is refused with.
    pub async fn send(&self, tenant: &TenantId, input: SendInput) -> Result<SendReceipt, AppError> {
        let tenant = self.tenant(tenant)?;
        let partition = tenant.route(&input.envelope.topic)?;
        let keys = if input.envelope.idempotency_key.is_empty() {
            Vec::new()
        } else {
            vec![keys::key_of(&input.sender.agent, &input.envelope)]
        };
        store(partition, &[input.envelope], keys, input.sender, input.durability).await
    }

    /// Makes a subscription live, from a start on. Answers when its first position is on disk, so that a crash cannot
    /// move it.
    ///
    /// # Errors
    /// `tenant_not_found`, or the log's.
    pub async fn subscription_open(
        &self,
        tenant: &TenantId,
        def: SubscriptionDef,
        class: ClassId,
        start: StartAt,
    ) -> Result<(), AppError> {
        let tenant = self.tenant(tenant)?;
        let partition = tenant.partition(class).ok_or_else(|| AppError::of(ErrorCode::InvalidArgument))?;
        if tenant.subscription(&def.name).is_some() {
            return Ok(());
        }
        let seq = tenant.start_seq(partition, start)?;
        tenant.subscriptions.write().insert(def.name.clone(), (class, def.clone()));
        let twin = dead_letters::twin(&def);
        tenant.graves().with(|core, now, _| core.engine().subscribe(twin, 1, now));
        partition.with(|core, now, _| core.engine().subscribe(def, seq, now));
        partition.flushed().await;
        Ok(())
    }

    /// Ends a subscription. Its dead letters stay until they expire.
    pub fn subscription_close(&self, tenant: &TenantId, class: ClassId, name: &SubscriptionName) {
        let Ok(tenant) = self.tenant(tenant) else { return };
        let Some((_, def)) = tenant.subscriptions.write().remove(name) else { return };
        if let Some(partition) = tenant.partition(class) {
            partition.with(|core, _, after| core.unsubscribe(def.id, after));
        }
    }

    /// A subscription's counts; `None` when it is not there.
    pub fn subscription_counts(&self, tenant: &TenantId, name: &SubscriptionName) -> Option<SubscriptionCounts> {
        let tenant = self.tenant(tenant).ok()?;
        let (class, def) = tenant.subscription(name)?;
        let partition = tenant.partition(class)?;
        let (engine, next_seq) = partition.with(|core, _, _| (core.engine().counts(def.id), core.log().next_seq()));
        Some(SubscriptionCounts { engine: engine?, next_seq, dead_letters: tenant.dead_letters.count(def.id) })
    }

    /// Where a message stands.
    ///
    /// # Errors
    /// `message_not_found` when the id names nothing that is kept.
    pub fn message_status(&self, tenant: &TenantId, id: MessageId) -> Result<MessageStatus, AppError> {
        let gone = || AppError::of(ErrorCode::MessageNotFound);
        let tenant = self.tenant(tenant)?;
        let partition = tenant.partition(id.class).filter(|_| id.partition == PARTITION).ok_or_else(gone)?;
        let run = read_one(partition, id.seq)?.filter(|run| run.facts.epoch == id.epoch).ok_or_else(gone)?;
        let topic = String::from_utf8_lossy(&run.topic).into_owned();
        let subscriptions = partition.with(|core, now, _| core.engine().status(&topic, id.seq, now));
        Ok(MessageStatus { topic, from: run.facts.sender.agent.clone(), stored_at: run.facts.stored_at, subscriptions })
    }

    /// All open partitions.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().clone()
    }

    /// Ends every consumer's stream with a word why.
    pub fn close_sessions(&self, code: ErrorCode) {
        for partition in self.partitions() {
            partition.with(|core, _, after| core.close_sessions(code, after));
        }
    }

    /// Flushes and closes every log and ends the threads. Blocks; call it from a blocking thread once streams are done.
    pub fn close(&self) {
        self.end_threads();
        for partition in std::mem::take(&mut *self.partitions.write()) {
            if let Err(error) = partition.close() {
                tracing::error!(partition = %partition.id(), "not closed cleanly: {error}");
            }
        }
        self.let_go();
    }

    /// Ends the threads and lets go of every log as it is, as the end of the process does. Blocks as [`Self::close`].
    pub fn abandon(&self) {
        self.end_threads();
        self.let_go();
    }

    /// Forgets the partitions, in the queues too that nobody works off any more: partitions hold these queues, so whatever
    /// stayed in one would keep all of them for ever.
    fn let_go(&self) {
        self.partitions.write().clear();
        self.tenants.write().clear();
        self.ticker.forget();
        self.committer.forget();
        self.deaths.forget();
    }

    fn end_threads(&self) {
        self.stopping.store(true, Ordering::Release);
        self.ticker.stop();
        for (name, slot) in [("ticker", &self.ticking), ("surveyor", &self.surveyor)] {
            let Some(thread) = slot.lock().take() else { continue };
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the {name} panicked");
            }
        }
        self.committer.stop();
    }
}

/// Filters that hear everything, the bus's own tree included.
fn everything() -> Arc<[TopicFilter]> {
    [">", "$acb.>"].into_iter().filter_map(|f| f.parse().ok()).collect()
}

/// Reads the message at a seq; `None` when there is none.
pub(crate) fn read_one(partition: &Arc<Partition>, seq: Seq) -> Result<Option<StoredRun>, AppError> {
    let end = partition.with(|core, _, _| core.log().written_end());
    if seq == 0 || seq >= end {
        return Ok(None);
    }
    let request = ReadRequest { from_seq: seq, end_seq: seq + 1, filters: everything(), messages_max: 1, bytes_max: 1 };
    let block = partition.reader().read(&request)?;
    Ok(block.runs.into_iter().find(|run| run.first_seq == seq))
}

/// Stores messages as one batch of no producer session, and waits for their level. Answers for the first.
async fn store(
    partition: &Arc<Partition>,
    envelopes: &[Envelope],
    keys: Vec<acb_types::batch::Keyed>,
    sender: Arc<Sender>,
    level: Durability,
) -> Result<SendReceipt, AppError> {
    let mut body = BytesMut::new();
    for envelope in envelopes {
        frame::encode(&mut body, envelope);
    }
    let body = body.freeze();
    let walked = frame::walk(&body)?;
    let outbox = Arc::new(PublishOutbox::default());
    let batch = Batch {
        count: walked.count,
        flags: walked.flags,
        body,
        runs: walked.runs,
        sender,
        producer: ProducerKey::NONE,
        producer_epoch: 0,
        counter: 0,
        keys: keys.into(),
    };
    partition.submit(Op::Append { batch, level, outbox: Arc::clone(&outbox) });
    let news = poll_fn(|cx| match outbox.take(cx) {
        Some(news) => std::task::Poll::Ready(news),
        None => std::task::Poll::Pending,
    })
    .await;
    if let Some(reject) = news.rejects.first() {
        return Err(AppError::of(reject.code));
    }
    let Some(ack) = news.acks.first() else { return Err(AppError::internal("an append without an answer")) };
    let id = (ack.first_seq != 0).then_some(MessageId {
        class: ack.class,
        partition: PARTITION,
        epoch: ack.epoch,
        seq: ack.first_seq,
    });
    Ok(SendReceipt { id, durability: ack.level, duplicate: ack.duplicate })
}
