//! [`SqliteMetadata`]: the metadata store in one SQLite file.
//!
//! Write-ahead log and `synchronous=FULL`: a commit is on disk before anybody hears of it. One writer commits in groups,
//! see [`pool`]; readers never wait for it. Every statement is prepared once per connection.

mod agent;
mod audit;
mod change;
mod context;
mod convert;
mod credential;
mod error;
mod group;
pub mod pool;
mod schema;
mod subscription;
mod tenant;
mod upload;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use acb_ports::{
    MetadataStore, StoreError,
    metadata::{
        AgentFilter, AgentRemoval, AgentRow, AgentSecretRow, AgentUpdate, AuditEntry, AuditRow, ChangePage,
        ContextFilter, ContextRemoval, ContextRenewal, ContextRow, ContextWrite, Created, EnrolmentKeyRow, GroupMember,
        GroupRow, ListedAt, Memberships, NewAgentSecret, NewContext, NewFamily, NewGroup, NewSubscription, Payloads,
        ROWS_MAX, Registered, Registration, RemovedAgent, Result, Rotation, RotationRequest, SecretSet, SigningKeyRow,
        SubscriptionRow, SubscriptionSet, TenantRow, TokenFamilyRow, Trim, Trimmed, Written,
    },
};
use acb_types::{
    AgentId, ContextId, ContextKey, CredentialId, ErrorCode, GroupName, Sha256Digest, SubscriptionId, SubscriptionName,
    TenantId, Timestamp,
};
use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::watch;

pub use self::schema::{MIGRATIONS, Migration};
use self::{
    change::Signals,
    error::Failure,
    pool::{Lane, WriteCounts},
};

/// Reader threads when nobody says otherwise.
pub const READERS: usize = 2;
/// Most reader threads.
pub const READERS_MAX: usize = 16;
/// Pages of the write-ahead log before they are written back when nobody says otherwise: SQLite's own number.
const CHECKPOINT_PAGES: u32 = 1000;
/// How long a connection waits for a lock that another process holds, such as a backup.
const BUSY_TIMEOUT_MS: u32 = 5000;

/// Where the metadata is and how it is read.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    /// The file. Its folder is made when it is absent.
    pub path: PathBuf,
    /// Reader threads, 1 to [`READERS_MAX`].
    pub readers: usize,
    /// Largest size of the file, in bytes; then writes are `storage_full`. `None` leaves it to the disk.
    pub bytes_max: Option<u64>,
    /// Pages of the write-ahead log after which a commit writes them back into the file, 1 or more.
    pub checkpoint_pages: u32,
    /// Name of a VFS (<https://sqlite.org/vfs.html>) that this process registered and that has the file; `None` takes the
    /// system's files. For tests that cut the power.
    pub vfs: Option<String>,
}

impl SqliteConfig {
    /// A file with every default.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), readers: READERS, bytes_max: None, checkpoint_pages: CHECKPOINT_PAGES, vfs: None }
    }
}

/// The metadata store in SQLite.
#[derive(Debug)]
pub struct SqliteMetadata {
    writer: Lane,
    readers: Lane,
    counts: Arc<WriteCounts>,
    signals: Arc<Signals>,
}

/// Makes writes fail on purpose, for tests and drills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drill {
    /// Nothing fails.
    Off,
    /// As on a full disk: the file may not grow.
    Full,
    /// As on a read-only disk.
    ReadOnly,
}

impl SqliteMetadata {
    /// Opens the file, makes it when it is absent, and brings its schema to the newest version. Blocks.
    ///
    /// # Errors
    /// `unsupported_feature` when a newer program wrote it, `data_damaged` when it is no database of ours, and the codes
    /// of the disk.
    pub fn open(config: &SqliteConfig) -> Result<Self> {
        let folder = config.path.parent().unwrap_or(Path::new(".")).to_owned();
        Self::open_in(config, &folder).map_err(|e| e.into_store("metadata.open", &folder))
    }

    fn open_in(config: &SqliteConfig, folder: &Path) -> error::Result<Self> {
        if config.vfs.is_none() {
            prepare_file(&config.path, folder)?;
        }
        let mut writer = connect(config)?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        writer.pragma_update(None, "wal_autocheckpoint", config.checkpoint_pages.max(1))?;
        schema::migrate(&mut writer, schema::MIGRATIONS)?;
        if let Some(bytes) = config.bytes_max {
            let page: u64 = writer.query_row("PRAGMA page_size", (), |row| row.get::<_, u32>(0))?.into();
            limit_pages(&writer, (bytes / page).max(1))?;
        }
        let mut readers = Vec::new();
        for _ in 0..config.readers.clamp(1, READERS_MAX) {
            let reader = connect(config)?;
            reader.pragma_update(None, "query_only", true)?;
            readers.push(reader);
        }
        let (counts, signals) = (Arc::<WriteCounts>::default(), Arc::<Signals>::default());
        Ok(Self {
            writer: pool::writer(writer, folder.to_owned(), Arc::clone(&counts), Arc::clone(&signals))?,
            readers: pool::readers(readers, folder.to_owned())?,
            counts,
            signals,
        })
    }

    /// How much was written since it was opened.
    pub fn counts(&self) -> &WriteCounts {
        &self.counts
    }

    /// Makes writes fail from now on, or heals them.
    pub async fn drill(&self, drill: Drill) -> Result<()> {
        let pages = if drill == Drill::Full { 1 } else { u64::from(u32::MAX) - 1 };
        let read_only = drill == Drill::ReadOnly;
        self.writer
            .control("metadata.drill", move |c| {
                // A limit below the present size is taken as the present size.
                limit_pages(c, pages)?;
                Ok(c.pragma_update(None, "query_only", read_only)?)
            })
            .await
    }

    /// Journal mode and level of `synchronous`, as the writer has them: `wal` and 2 keep every commit over a power cut.
    pub async fn durability_settings(&self) -> Result<(String, u32)> {
        self.writer
            .control("metadata.settings", |c| {
                let mode = c.query_row("PRAGMA journal_mode", (), |row| row.get(0))?;
                Ok((mode, c.query_row("PRAGMA synchronous", (), |row| row.get(0))?))
            })
            .await
    }

    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> error::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer.call(operation, work).await
    }

    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> error::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.readers.call(operation, work).await
    }
}

/// Makes folder and file, for the owner alone: signing keys are in it. SQLite gives its side files the same rights.
fn prepare_file(path: &Path, folder: &Path) -> error::Result<()> {
    let failed = |e: std::io::Error| {
        let code = match e.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorCode::StorageFull,
            std::io::ErrorKind::ReadOnlyFilesystem => ErrorCode::StorageReadOnly,
            _ => ErrorCode::StorageFailed,
        };
        Failure::Refused(code, format!("{} cannot be opened: {e}", path.display()))
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(failed)?;
    Ok(())
}

fn connect(config: &SqliteConfig) -> error::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let c = match &config.vfs {
        None => Connection::open_with_flags(&config.path, flags)?,
        Some(vfs) => {
            Connection::open_with_flags_and_vfs(&config.path, flags | OpenFlags::SQLITE_OPEN_CREATE, vfs.as_str())?
        }
    };
    c.pragma_update(None, "busy_timeout", BUSY_TIMEOUT_MS)?;
    c.pragma_update(None, "synchronous", "FULL")?;
    c.pragma_update(None, "foreign_keys", true)?;
    c.pragma_update(None, "trusted_schema", false)?;
    c.pragma_update(None, "temp_store", "MEMORY")?;
    c.pragma_update(None, "journal_size_limit", 16 << 20)?;
    Ok(c)
}

fn limit_pages(c: &Connection, pages: u64) -> error::Result<()> {
    Ok(c.query_row(&format!("PRAGMA max_page_count = {pages}"), (), |_| Ok(()))?)
}

/// Checks a list's limit (META-21).
fn rows(operation: &'static str, limit: u32) -> Result<u32> {
    if limit == 0 || limit > ROWS_MAX {
        let message = format!("limit of {limit} rows is outside 1 to {ROWS_MAX}");
        return Err(StoreError::new(ErrorCode::InvalidArgument, operation, message));
    }
    Ok(limit)
}

#[async_trait]
impl MetadataStore for SqliteMetadata {
    async fn tenant_create(&self, tenant: &TenantId, name: &str, now: Timestamp) -> Result<TenantRow> {
        let (tenant, name) = (tenant.clone(), name.to_owned());
        self.write("tenant.create", move |c| tenant::create(c, &tenant, &name, now)).await
    }

    async fn tenant_get(&self, tenant: &TenantId) -> Result<Option<TenantRow>> {
        let tenant = tenant.clone();
        self.read("tenant.get", move |c| tenant::get(c, &tenant)).await
    }

    async fn tenant_list(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantRow>> {
        let (after, limit) = (after.cloned(), rows("tenant.list", limit)?);
        self.read("tenant.list", move |c| tenant::list(c, after.as_ref(), limit)).await
    }

    async fn tenant_revision(&self, tenant: &TenantId) -> Result<u64> {
        let tenant = tenant.clone();
        self.read("tenant.revision", move |c| tenant::revision(c, &tenant)).await
    }

    async fn agent_register(&self, tenant: &TenantId, registration: Registration) -> Result<Registered> {
        let tenant = tenant.clone();
        self.write("agent.register", move |c| agent::register(c, &tenant, registration)).await
    }

    async fn agent_get(&self, tenant: &TenantId, agent: &AgentId) -> Result<Option<AgentRow>> {
        let (tenant, agent) = (tenant.clone(), agent.clone());
        self.read("agent.get", move |c| agent::get(c, &tenant, &agent)).await
    }

    async fn agent_update(&self, tenant: &TenantId, agent: &AgentId, update: AgentUpdate) -> Result<AgentRow> {
        let (tenant, agent) = (tenant.clone(), agent.clone());
        self.write("agent.update", move |c| agent::update(c, &tenant, &agent, &update)).await
    }

    async fn agent_remove(&self, tenant: &TenantId, agent: &AgentId, removal: AgentRemoval) -> Result<RemovedAgent> {
        let (tenant, agent) = (tenant.clone(), agent.clone());
        self.write("agent.remove", move |c| agent::remove(c, &tenant, &agent, &removal)).await
    }

    async fn agent_list(
        &self,
        tenant: &TenantId,
        filter: &AgentFilter,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<AgentRow>> {
        let limit = rows("agent.list", limit)?;
        let (tenant, filter, after) = (tenant.clone(), filter.clone(), after.cloned());
        self.read("agent.list", move |c| agent::list(c, &tenant, &filter, after.as_ref(), limit)).await
    }

    fn revision_signal(&self, tenant: &TenantId) -> watch::Receiver<u64> {
        self.signals.of(tenant)
    }

    async fn change_list(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<ChangePage> {
        let (tenant, limit) = (tenant.clone(), rows("change.list", limit)?);
        self.read("change.list", move |c| change::list(c, &tenant, after, limit)).await
    }

    async fn change_trim(&self, tenant: &TenantId, trim: Trim) -> Result<Trimmed> {
        let tenant = tenant.clone();
        rows("change.trim", trim.limit)?;
        self.write("change.trim", move |c| change::trim(c, &tenant, trim)).await
    }

    async fn context_create(&self, tenant: &TenantId, new: NewContext) -> Result<Created<ContextRow>> {
        let tenant = tenant.clone();
        self.write("context.create", move |c| context::create(c, &tenant, new)).await
    }

    async fn context_update(&self, tenant: &TenantId, id: &ContextId, write: ContextWrite) -> Result<Written> {
        let (tenant, id) = (tenant.clone(), *id);
        self.write("context.update", move |c| context::update(c, &tenant, &id, &write)).await
    }

    async fn context_remove(
        &self,
        tenant: &TenantId,
        id: &ContextId,
        removal: ContextRemoval,
    ) -> Result<Option<ContextRow>> {
        let (tenant, id) = (tenant.clone(), *id);
        self.write("context.remove", move |c| context::remove(c, &tenant, &id, &removal)).await
    }

    async fn context_renew(&self, tenant: &TenantId, id: &ContextId, renewal: ContextRenewal) -> Result<ContextRow> {
        let (tenant, id) = (tenant.clone(), *id);
        self.write("context.renew", move |c| context::renew(c, &tenant, &id, &renewal)).await
    }

    async fn context_get(&self, tenant: &TenantId, id: &ContextId) -> Result<Option<ContextRow>> {
        let (tenant, id) = (tenant.clone(), *id);
        self.read("context.get", move |c| context::get(c, &tenant, &id, Payloads::Read)).await
    }

    async fn context_get_at(&self, tenant: &TenantId, id: &ContextId, rev: u64) -> Result<Option<ContextRow>> {
        let (tenant, id) = (tenant.clone(), *id);
        self.read("context.get", move |c| context::get_at(c, &tenant, &id, rev)).await
    }

    async fn context_find(&self, tenant: &TenantId, key: &ContextKey, at: Option<u64>) -> Result<Option<ContextId>> {
        let (tenant, key) = (tenant.clone(), key.clone());
        self.read("context.find", move |c| context::find(c, &tenant, &key, at)).await
    }

    async fn context_list(
        &self,
        tenant: &TenantId,
        filter: &ContextFilter,
        at: ListedAt,
        payloads: Payloads,
        after: Option<&ContextId>,
        limit: u32,
    ) -> Result<Vec<ContextRow>> {
        let limit = rows("context.list", limit)?;
        let (tenant, filter, after) = (tenant.clone(), filter.clone(), after.copied());
        self.read("context.list", move |c| context::list(c, &tenant, &filter, at, payloads, after.as_ref(), limit))
            .await
    }

    async fn context_history(
        &self,
        tenant: &TenantId,
        id: &ContextId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<ContextRow>> {
        let limit = rows("context.history", limit)?;
        let (tenant, id) = (tenant.clone(), *id);
        self.read("context.history", move |c| context::history(c, &tenant, &id, before, limit)).await
    }

    async fn context_expire(&self, tenant: &TenantId, now: Timestamp, limit: u32) -> Result<Vec<ContextRow>> {
        let (tenant, limit) = (tenant.clone(), rows("context.expire", limit)?);
        self.write("context.expire", move |c| context::expire(c, &tenant, now, limit)).await
    }

    async fn context_next_expiry(&self, tenant: &TenantId) -> Result<Option<Timestamp>> {
        let tenant = tenant.clone();
        self.read("context.next_expiry", move |c| context::next_expiry(c, &tenant)).await
    }

    async fn context_blobs_named(
        &self,
        tenant: &TenantId,
        after: Option<&Sha256Digest>,
        limit: u32,
    ) -> Result<Vec<Sha256Digest>> {
        let limit = rows("context.blobs_named", limit)?;
        let (tenant, after) = (tenant.clone(), after.copied());
        self.read("context.blobs_named", move |c| context::blobs_named(c, &tenant, after.as_ref(), limit)).await
    }

    async fn group_create(&self, tenant: &TenantId, new: NewGroup) -> Result<Created<GroupRow>> {
        let tenant = tenant.clone();
        self.write("group.create", move |c| group::create(c, &tenant, new)).await
    }

    async fn group_delete(&self, tenant: &TenantId, name: &GroupName) -> Result<Option<GroupRow>> {
        let (tenant, name) = (tenant.clone(), name.clone());
        self.write("group.delete", move |c| group::delete(c, &tenant, &name)).await
    }

    async fn group_list(&self, tenant: &TenantId, after: Option<&GroupName>, limit: u32) -> Result<Vec<GroupRow>> {
        let limit = rows("group.list", limit)?;
        let (tenant, after) = (tenant.clone(), after.cloned());
        self.read("group.list", move |c| group::list(c, &tenant, after.as_ref(), limit)).await
    }

    async fn group_members_add(
        &self,
        tenant: &TenantId,
        name: &GroupName,
        agents: &[AgentId],
        now: Timestamp,
    ) -> Result<GroupRow> {
        rows("group.members_add", u32::try_from(agents.len().max(1)).unwrap_or(u32::MAX))?;
        let (tenant, name, agents) = (tenant.clone(), name.clone(), agents.to_vec());
        self.write("group.members_add", move |c| group::members_add(c, &tenant, &name, &agents, now)).await
    }

    async fn group_members_remove(&self, tenant: &TenantId, name: &GroupName, agents: &[AgentId]) -> Result<GroupRow> {
        rows("group.members_remove", u32::try_from(agents.len().max(1)).unwrap_or(u32::MAX))?;
        let (tenant, name, agents) = (tenant.clone(), name.clone(), agents.to_vec());
        self.write("group.members_remove", move |c| group::members_remove(c, &tenant, &name, &agents)).await
    }

    async fn group_member_list(
        &self,
        tenant: &TenantId,
        name: &GroupName,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Option<Vec<GroupMember>>> {
        let limit = rows("group.member_list", limit)?;
        let (tenant, name, after) = (tenant.clone(), name.clone(), after.cloned());
        self.read("group.member_list", move |c| group::member_list(c, &tenant, &name, after.as_ref(), limit)).await
    }

    async fn memberships(&self, tenant: &TenantId, agent: &AgentId, at: Option<u64>) -> Result<Memberships> {
        let (tenant, agent) = (tenant.clone(), agent.clone());
        self.read("memberships", move |c| group::memberships(c, &tenant, &agent, at)).await
    }

    async fn subscription_create(&self, tenant: &TenantId, new: NewSubscription) -> Result<Created<SubscriptionRow>> {
        let tenant = tenant.clone();
        self.write("subscription.create", move |c| subscription::create(c, &tenant, new)).await
    }

    async fn subscription_get(&self, tenant: &TenantId, name: &SubscriptionName) -> Result<Option<SubscriptionRow>> {
        let (tenant, name) = (tenant.clone(), name.clone());
        self.read("subscription.get", move |c| subscription::get(c, &tenant, &name)).await
    }

    async fn subscription_get_by_id(&self, tenant: &TenantId, id: SubscriptionId) -> Result<Option<SubscriptionRow>> {
        let tenant = tenant.clone();
        self.read("subscription.get", move |c| subscription::get_by_id(c, &tenant, id)).await
    }

    async fn subscription_list(
        &self,
        tenant: &TenantId,
        set: SubscriptionSet,
        after: Option<&SubscriptionName>,
        limit: u32,
    ) -> Result<Vec<SubscriptionRow>> {
        let limit = rows("subscription.list", limit)?;
        let (tenant, after) = (tenant.clone(), after.cloned());
        self.read("subscription.list", move |c| subscription::list(c, &tenant, set, after.as_ref(), limit)).await
    }

    async fn subscription_list_by_id(
        &self,
        tenant: &TenantId,
        after: Option<SubscriptionId>,
        limit: u32,
    ) -> Result<Vec<SubscriptionRow>> {
        let limit = rows("subscription.list", limit)?;
        let tenant = tenant.clone();
        self.read("subscription.list", move |c| subscription::list_by_id(c, &tenant, after, limit)).await
    }

    async fn subscription_delete(&self, tenant: &TenantId, name: &SubscriptionName) -> Result<Option<SubscriptionRow>> {
        let (tenant, name) = (tenant.clone(), name.clone());
        self.write("subscription.delete", move |c| subscription::delete(c, &tenant, &name)).await
    }

    async fn enrolment_key_create(&self, tenant: &TenantId, key: EnrolmentKeyRow) -> Result<()> {
        let tenant = tenant.clone();
        self.write("enrolment_key.create", move |c| credential::key_create(c, &tenant, &key)).await
    }

    async fn enrolment_key_get(&self, tenant: &TenantId, key_id: &str) -> Result<Option<EnrolmentKeyRow>> {
        let (tenant, key_id) = (tenant.clone(), key_id.to_owned());
        self.read("enrolment_key.get", move |c| credential::key_get(c, &tenant, &key_id)).await
    }

    async fn enrolment_key_list(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<EnrolmentKeyRow>> {
        let limit = rows("enrolment_key.list", limit)?;
        let (tenant, after) = (tenant.clone(), after.map(str::to_owned));
        self.read("enrolment_key.list", move |c| credential::key_list(c, &tenant, after.as_deref(), limit)).await
    }

    async fn enrolment_key_revoke(&self, tenant: &TenantId, key_id: &str, now: Timestamp) -> Result<Vec<String>> {
        let (tenant, key_id) = (tenant.clone(), key_id.to_owned());
        self.write("enrolment_key.revoke", move |c| credential::key_revoke(c, &tenant, &key_id, now)).await
    }

    async fn agent_secret_set(&self, tenant: &TenantId, agent: &AgentId, secret: NewAgentSecret) -> Result<SecretSet> {
        let (tenant, agent) = (tenant.clone(), agent.clone());
        self.write("agent_secret.set", move |c| credential::secret_set(c, &tenant, &agent, &secret)).await
    }

    async fn agent_secret_get(&self, tenant: &TenantId, agent: &AgentId) -> Result<Option<AgentSecretRow>> {
        let (tenant, agent) = (tenant.clone(), agent.clone());
        self.read("agent_secret.get", move |c| credential::secret_get(c, &tenant, &agent)).await
    }

    async fn signing_key_rotate(&self, key: SigningKeyRow) -> Result<()> {
        self.write("signing_key.rotate", move |c| credential::signing_rotate(c, &key)).await
    }

    async fn signing_key_list(&self) -> Result<Vec<SigningKeyRow>> {
        self.read("signing_key.list", credential::signing_list).await
    }

    async fn signing_key_forget(&self, retired_before: Timestamp) -> Result<u64> {
        self.write("signing_key.forget", move |c| credential::signing_forget(c, retired_before)).await
    }

    async fn family_create(&self, tenant: &TenantId, family: NewFamily) -> Result<()> {
        let tenant = tenant.clone();
        self.write("family.create", move |c| credential::family_create(c, &tenant, &family)).await
    }

    async fn family_get(&self, tenant: &TenantId, family_id: &str) -> Result<Option<TokenFamilyRow>> {
        let (tenant, family_id) = (tenant.clone(), family_id.to_owned());
        self.read("family.get", move |c| credential::family_get(c, &tenant, &family_id)).await
    }

    async fn family_rotate(&self, tenant: &TenantId, family_id: &str, request: RotationRequest) -> Result<Rotation> {
        let (tenant, family_id) = (tenant.clone(), family_id.to_owned());
        self.write("family.rotate", move |c| credential::family_rotate(c, &tenant, &family_id, &request)).await
    }

    async fn family_revoke(&self, tenant: &TenantId, family_id: &str, now: Timestamp) -> Result<bool> {
        let (tenant, family_id) = (tenant.clone(), family_id.to_owned());
        self.write("family.revoke", move |c| credential::family_revoke(c, &tenant, &family_id, now)).await
    }

    async fn family_revoke_credential(
        &self,
        tenant: &TenantId,
        credential: &CredentialId,
        now: Timestamp,
    ) -> Result<Vec<String>> {
        let (tenant, credential) = (tenant.clone(), credential.clone());
        self.write("family.revoke", move |c| credential::revoke_credential(c, &tenant, &credential, now)).await
    }

    async fn family_list_revoked(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>> {
        let limit = rows("family.list_revoked", limit)?;
        let (tenant, after) = (tenant.clone(), after.map(str::to_owned));
        self.read("family.list_revoked", move |c| credential::list_revoked(c, &tenant, now, after.as_deref(), limit))
            .await
    }

    async fn family_forget(&self, tenant: &TenantId, over_before: Timestamp) -> Result<u64> {
        let tenant = tenant.clone();
        self.write("family.forget", move |c| credential::family_forget(c, &tenant, over_before)).await
    }

    async fn audit_append(&self, tenant: &TenantId, entry: AuditEntry) -> Result<AuditRow> {
        let tenant = tenant.clone();
        self.write("audit.append", move |c| audit::append(c, &tenant, entry)).await
    }

    async fn audit_list(&self, tenant: &TenantId, after: Option<u64>, limit: u32) -> Result<Vec<AuditRow>> {
        let limit = rows("audit.list", limit)?;
        let tenant = tenant.clone();
        self.read("audit.list", move |c| audit::list(c, &tenant, after, limit)).await
    }

    async fn setting_get(&self, key: &str) -> Result<Option<String>> {
        let key = key.to_owned();
        self.read("setting.get", move |c| tenant::setting_get(c, &key)).await
    }

    async fn setting_put(&self, key: &str, value: &str) -> Result<()> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.write("setting.put", move |c| tenant::setting_put(c, &key, &value)).await
    }

    async fn setting_put_if_absent(&self, key: &str, value: &str) -> Result<String> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.write("setting.put", move |c| tenant::setting_put_if_absent(c, &key, &value)).await
    }

    async fn close(&self) -> Result<()> {
        // Readers first: the writer's last checkpoint wants the file to itself.
        self.readers.close().await;
        self.writer.close().await;
        Ok(())
    }
}
