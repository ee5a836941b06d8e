//! What changed in a tenant, for those who follow it: one feed per tenant, read from the store once for all of them.
//!
//! A feed keeps the newest changes in a ring. Whoever follows holds a revision and asks for what came after it: the ring
//! answers, or the store does for one who is further behind. Nobody's queue grows when he does not ask. The store's signal
//! says that there is more; the first follower who hears it reads it into the ring, the others find it there. So a feed has
//! no task of its own: without followers nothing runs.
//!
//! Not in this room: who may see what. That is the affair of the watch that follows.

pub mod agent_watch;
pub mod context_watch;

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::Future,
    sync::{Arc, Weak},
};

use acb_ports::{
    MetadataStore,
    metadata::{Change, ChangePage, Changed, ContentPlace},
};
use acb_types::TenantId;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::AppError;

/// Changes that a ring holds.
const RING_CHANGES_MAX: usize = 4096;
/// Bytes of payloads that a ring holds.
const RING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Changes that are read or handed out at once.
const BATCH: u32 = 256;

/// A watch that is open.
pub trait Watch: Send {
    /// Events that go out together.
    type Frame: Send;

    /// The next frame; one without events when nothing happened for a while. The watch is over after an error.
    ///
    /// # Errors
    /// What ends it.
    fn next(&mut self) -> impl Future<Output = Result<Self::Frame, AppError>> + Send;

    /// How many events a frame has.
    fn events(frame: &Self::Frame) -> usize;
}

/// The feeds of all tenants that somebody follows.
pub struct Changes {
    metadata: Arc<dyn MetadataStore>,
    feeds: Mutex<HashMap<TenantId, Weak<Feed>>>,
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

impl Changes {
    /// No feed yet.
    pub fn new(metadata: Arc<dyn MetadataStore>) -> Self {
        Self { metadata, feeds: Mutex::default() }
    }

    /// Follows a tenant's changes after a revision.
    pub fn follow(&self, tenant: &TenantId, after: u64) -> Follower {
        let mut feeds = self.feeds.lock();
        feeds.retain(|_, feed| feed.strong_count() > 0);
        let feed = feeds.get(tenant).and_then(Weak::upgrade).unwrap_or_else(|| {
            let feed = Arc::new(Feed::new(tenant.clone(), Arc::clone(&self.metadata)));
            feeds.insert(tenant.clone(), Arc::downgrade(&feed));
            feed
        });
        // Taken before the first look at the ring: what comes between the two wakes.
        let signal = self.metadata.revision_signal(tenant);
        Follower { feed, signal, after }
    }
}

/// The newest changes of a tenant.
struct Feed {
    tenant: TenantId,
    metadata: Arc<dyn MetadataStore>,
    ring: Mutex<Ring>,
    /// One reads into the ring at a time.
    reading: tokio::sync::Mutex<()>,
}

/// Changes without a hole, up to `head`.
#[derive(Default)]
struct Ring {
    /// Revision before the first that is held.
    floor: u64,
    /// Revision of the last that is held.
    head: u64,
    started: bool,
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
}

/// What a ring has for a follower.
enum Found {
    Changes(Vec<Arc<Change>>),
    /// He is at its head.
    Nothing,
    /// He is behind its first change.
    Behind,
}

impl Ring {
    fn after(&self, revision: u64) -> Found {
        if !self.started || revision >= self.head {
            return Found::Nothing;
        }
        let Some(skip) = revision.checked_sub(self.floor) else { return Found::Behind };
        let later = self.changes.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX));
        Found::Changes(later.take(BATCH as usize).map(Arc::clone).collect())
    }

    fn push(&mut self, change: Arc<Change>) {
        self.head = change.revision;
        self.bytes += payload_bytes(&change);
        self.changes.push_back(change);
        while self.changes.len() > RING_CHANGES_MAX || self.bytes > RING_BYTES_MAX {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.bytes -= payload_bytes(&oldest);
            self.floor = oldest.revision;
        }
    }

    fn start_at(&mut self, revision: u64) {
        *self = Self { floor: revision, head: revision, started: true, ..Self::default() };
    }
}

fn payload_bytes(change: &Change) -> usize {
    match &change.what {
        Changed::Context { after, .. } => match &after.content.place {
            ContentPlace::Inline(bytes) => bytes.len(),
            ContentPlace::Blob | ContentPlace::Unread => 0,
        },
        _ => 0,
    }
}

impl Feed {
    fn new(tenant: TenantId, metadata: Arc<dyn MetadataStore>) -> Self {
        Self { tenant, metadata, ring: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    /// Reads what the ring lacks. Whoever comes while another reads waits, and finds it done.
    async fn fill(&self, asked_after: u64) -> Result<(), AppError> {
        let _reading = self.reading.lock().await;
        let (started, mut head) = {
            let ring = self.ring.lock();
            (ring.started, ring.head)
        };
        if started && head > asked_after {
            return Ok(());
        }
        if !started {
            // A new ring begins at the present: who is behind reads the store by himself.
            let revision = self.metadata.tenant_revision(&self.tenant).await?;
            self.ring.lock().start_at(revision);
            return Ok(());
        }
        loop {
            let page = self.metadata.change_list(&self.tenant, head, BATCH).await?;
            let more = page.changes.len() == BATCH as usize;
            let mut ring = self.ring.lock();
            if page.oldest > head {
                // Nobody read for so long that changes were trimmed meanwhile.
                ring.start_at(page.revision);
                return Ok(());
            }
            for change in page.changes {
                ring.push(Arc::new(change));
            }
            head = ring.head;
            if !more {
                return Ok(());
            }
        }
    }
}

/// Somebody's place in a tenant's changes.
pub struct Follower {
    feed: Arc<Feed>,
    signal: watch::Receiver<u64>,
    after: u64,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("tenant", &self.feed.tenant)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

/// What came next.
#[derive(Clone, Debug)]
pub enum Next {
    /// Changes, in order, without a hole.
    Changes(Vec<Arc<Change>>),
    /// Changes after the follower's revision are no longer kept; those after this one are.
    Gap(u64),
}

impl Follower {
    /// The revision up to which changes were handed out.
    pub fn after(&self) -> u64 {
        self.after
    }

    /// A revision that the tenant has reached; it may be further by now.
    pub fn present(&self) -> u64 {
        *self.signal.borrow()
    }

    /// Waits for changes and hands them out; at most 256 at once.
    ///
    /// # Errors
    /// The store's.
    ///
    /// *Cancel safety*: dropped, it has handed out nothing.
    pub async fn next(&mut self) -> Result<Next, AppError> {
        loop {
            // Before the look: what comes after it wakes the wait below.
            self.signal.borrow_and_update();
            let found = self.look().await?;
            if let Some(next) = found {
                if let Next::Changes(changes) = &next
                    && let Some(last) = changes.last()
                {
                    self.after = last.revision;
                }
                return Ok(next);
            }
            if self.signal.changed().await.is_err() {
                // The store is gone; so is the server, in a moment.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn look(&self) -> Result<Option<Next>, AppError> {
        let found = self.feed.ring.lock().after(self.after);
        match found {
            Found::Changes(changes) => return Ok(Some(Next::Changes(changes))),
            Found::Behind => return self.read_store().await,
            Found::Nothing => {}
        }
        self.feed.fill(self.after).await?;
        let found = self.feed.ring.lock().after(self.after);
        match found {
            Found::Changes(changes) => Ok(Some(Next::Changes(changes))),
            Found::Behind => self.read_store().await,
            Found::Nothing => Ok(None),
        }
    }

    async fn read_store(&self) -> Result<Option<Next>, AppError> {
        let ChangePage { changes, oldest, .. } =
            self.feed.metadata.change_list(&self.feed.tenant, self.after, BATCH).await?;
        if oldest > self.after {
            return Ok(Some(Next::Gap(oldest)));
        }
        Ok((!changes.is_empty()).then(|| Next::Changes(changes.into_iter().map(Arc::new).collect())))
    }
}
