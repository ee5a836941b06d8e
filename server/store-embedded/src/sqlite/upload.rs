//! Uploads in SQLite.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use acb_ports::{
    StoreError,
    metadata::{
        AddedChunks, Completing, ContextChange, ContextScope, ContextSpec, Created, FoundChunk, NewUpload, ShareAccess,
        UPLOAD_CHUNKS_MAX, UploadRow, UploadStore, UploadTarget,
    },
};
use acb_types::{
    AgentId, ContextId, ErrorCode, Sha256Digest, StreamId, TenantId, Timestamp, limits,
    stream::{ChunkSet, Chunking, StreamState},
};
use async_trait::async_trait;
use rusqlite::{Connection, Row, named_params};
use serde::{Deserialize, Serialize};

use super::{
    SqliteMetadata,
    convert::{collect, digest, first, json, number, parse, put, time, to_json},
    error::{Failure, Result, refuse},
    rows, tenant,
};

const COLUMNS: &str = "stream_id, owner, context_id, target, chunk_bytes, total_bytes, state, session, received_bytes, \
                       sha256, rev, created_at, expires_at";

/// A target as its column has it.
#[derive(Serialize, Deserialize)]
enum StoredTarget {
    Create(Said),
    Update { change: Said, if_rev: Option<u64> },
}

/// What is said of a context; what is not said is not there.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Said {
    key: Option<String>,
    context_type: Option<String>,
    scope: Option<String>,
    groups: Option<BTreeSet<String>>,
    /// By agent; whether it may write.
    shares: Option<BTreeMap<String, bool>>,
    content_type: Option<String>,
    description: Option<String>,
    labels: Option<BTreeSet<String>>,
    metadata: Option<BTreeMap<String, String>>,
    /// In milliseconds; 0 is for ever.
    ttl_ms: Option<u64>,
    version: Option<String>,
}

fn ttl_ms(ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |ttl| ttl.as_millis() as u64)
}

fn shares_in(shares: &BTreeMap<AgentId, ShareAccess>) -> BTreeMap<String, bool> {
    shares.iter().map(|(agent, access)| (agent.to_string(), *access == ShareAccess::Write)).collect()
}

impl From<&UploadTarget> for StoredTarget {
    fn from(target: &UploadTarget) -> Self {
        let names = |groups: &BTreeSet<_>| groups.iter().map(ToString::to_string).collect();
        match target {
            UploadTarget::Create { spec } => Self::Create(Said {
                key: spec.key.as_ref().map(ToString::to_string),
                context_type: Some(spec.context_type.clone()),
                scope: Some(spec.scope.name().to_owned()),
                groups: Some(names(&spec.groups)),
                shares: Some(shares_in(&spec.shares)),
                content_type: Some(spec.content_type.clone()),
                description: Some(spec.description.clone()),
                labels: Some(spec.labels.clone()),
                metadata: Some(spec.metadata.clone()),
                ttl_ms: Some(ttl_ms(spec.ttl)),
                version: Some(spec.version.to_string()),
            }),
            UploadTarget::Update { change, if_rev } => Self::Update {
                change: Said {
                    key: None,
                    context_type: None,
                    scope: change.scope.map(|scope| scope.name().to_owned()),
                    groups: change.groups.as_ref().map(names),
                    shares: change.shares.as_ref().map(shares_in),
                    content_type: change.content_type.clone(),
                    description: change.description.clone(),
                    labels: change.labels.clone(),
                    metadata: change.metadata.clone(),
                    ttl_ms: change.ttl.map(ttl_ms),
                    version: change.version.as_ref().map(ToString::to_string),
                },
                if_rev: *if_rev,
            },
        }
    }
}

fn read<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T> {
    text.parse().map_err(|e| Failure::Damaged(format!("target: {text:?}: {e}")))
}

impl Said {
    fn scope(&self) -> Result<Option<ContextScope>> {
        let read = |name: &String| {
            ContextScope::from_name(name).ok_or_else(|| Failure::Damaged(format!("target: scope {name:?}")))
        };
        self.scope.as_ref().map(read).transpose()
    }

    #[expect(clippy::option_option, reason = "not said, for ever, or a time: as the port has it")]
    fn ttl(&self) -> Option<Option<Duration>> {
        self.ttl_ms.map(|ms| (ms > 0).then(|| Duration::from_millis(ms)))
    }

    fn change(self) -> Result<ContextChange> {
        let share = |(agent, write): (&String, &bool)| -> Result<(AgentId, ShareAccess)> {
            Ok((read(agent)?, if *write { ShareAccess::Write } else { ShareAccess::Read }))
        };
        Ok(ContextChange {
            scope: self.scope()?,
            groups: self.groups.as_ref().map(|groups| groups.iter().map(|name| read(name)).collect()).transpose()?,
            shares: self.shares.as_ref().map(|shares| shares.iter().map(share).collect()).transpose()?,
            ttl: self.ttl(),
            version: self.version.as_deref().map(read).transpose()?,
            content_type: self.content_type,
            description: self.description,
            labels: self.labels,
            metadata: self.metadata,
        })
    }

    fn spec(self) -> Result<ContextSpec> {
        let (key, context_type) = (self.key.clone(), self.context_type.clone());
        let change = self.change()?;
        Ok(ContextSpec {
            key: key.as_deref().map(read).transpose()?,
            context_type: context_type.unwrap_or_default(),
            scope: change.scope.unwrap_or_default(),
            groups: change.groups.unwrap_or_default(),
            shares: change.shares.unwrap_or_default(),
            content_type: change.content_type.unwrap_or_default(),
            description: change.description.unwrap_or_default(),
            labels: change.labels.unwrap_or_default(),
            metadata: change.metadata.unwrap_or_default(),
            ttl: change.ttl.flatten(),
            version: change.version.unwrap_or(ContextSpec::FIRST_VERSION),
        })
    }
}

/// A column of 16 bytes.
fn bytes16(row: &Row<'_>, column: &str) -> Result<[u8; 16]> {
    let bytes = row.get_ref(column)?.as_blob().map_err(|e| Failure::Damaged(format!("{column}: {e}")))?;
    bytes.try_into().map_err(|_| Failure::Damaged(format!("{column}: {} bytes instead of 16", bytes.len())))
}

fn upload_row(row: &Row<'_>) -> Result<UploadRow> {
    let state: String = row.get("state")?;
    let has_sha256 = row.get_ref("sha256")? != rusqlite::types::ValueRef::Null;
    Ok(UploadRow {
        id: StreamId(bytes16(row, "stream_id")?),
        owner: parse(row, "owner")?,
        context: ContextId::from_bytes(bytes16(row, "context_id")?)?,
        target: match json(row, "target")? {
            StoredTarget::Create(said) => UploadTarget::Create { spec: said.spec()? },
            StoredTarget::Update { change, if_rev } => UploadTarget::Update { change: change.change()?, if_rev },
        },
        chunking: Chunking {
            chunk_bytes: row.get("chunk_bytes")?,
            total_bytes: u64::try_from(row.get::<_, i64>("total_bytes")?).ok(),
        },
        state: StreamState::from_name(&state).ok_or_else(|| Failure::Damaged(format!("state: {state:?}")))?,
        session: number(row, "session")?,
        received_bytes: number(row, "received_bytes")?,
        sha256: if has_sha256 { Some(Sha256Digest(digest(row, "sha256")?)) } else { None },
        rev: number(row, "rev")?,
        created_at: time(row, "created_at")?,
        expires_at: time(row, "expires_at")?,
    })
}

fn total(total: Option<u64>) -> i64 {
    total.map_or(-1, put)
}

fn get(c: &Connection, tenant: &TenantId, id: &StreamId) -> Result<Option<UploadRow>> {
    let sql = format!("SELECT {COLUMNS} FROM uploads WHERE tenant_id = ?1 AND stream_id = ?2");
    first(c.prepare_cached(&sql)?.query((tenant.as_str(), id.0))?, upload_row)
}

fn must_get(c: &Connection, tenant: &TenantId, id: &StreamId) -> Result<UploadRow> {
    tenant::must_exist(c, tenant)?;
    match get(c, tenant, id)? {
        Some(row) => Ok(row),
        None => refuse(ErrorCode::StreamNotFound, format!("no stream {id}")),
    }
}

/// The rules of the port, which are the same for every store.
fn rule<T>(outcome: std::result::Result<T, StoreError>) -> Result<T> {
    outcome.map_err(|e| Failure::Refused(e.code, e.message))
}

fn create(c: &Connection, tenant: &TenantId, new: &NewUpload) -> Result<Created<UploadRow>> {
    const COUNT: &str = "SELECT count(*) FROM uploads WHERE tenant_id = ?1 AND state IN ('open', 'completing')";
    tenant::must_exist(c, tenant)?;
    if let Some(row) = get(c, tenant, &new.id)? {
        if row.owner != new.owner {
            return refuse(ErrorCode::StreamNotFound, format!("no stream {}", new.id));
        }
        return Ok(Created { row, existed: true });
    }
    let unfinished: i64 = c.prepare_cached(COUNT)?.query_row([tenant.as_str()], |row| row.get(0))?;
    if unfinished >= limits::STREAMS_MAX as i64 {
        let message = format!("the tenant has {unfinished} unfinished uploads, which is the limit");
        return refuse(ErrorCode::TooManyStreams, message);
    }
    let row = new.row();
    let sql = format!(
        "INSERT INTO uploads (tenant_id, {COLUMNS}) VALUES (:tenant, :id, :owner, :context, :target, :chunk, :total, \
         :state, :session, 0, NULL, 0, :at, :expires)"
    );
    c.prepare_cached(&sql)?.execute(named_params! {
        ":tenant": tenant.as_str(),
        ":id": row.id.0,
        ":owner": row.owner.as_str(),
        ":context": row.context.as_bytes(),
        ":target": to_json(&StoredTarget::from(&row.target))?,
        ":chunk": row.chunking.chunk_bytes,
        ":total": total(row.chunking.total_bytes),
        ":state": row.state.name(),
        ":session": put(row.session),
        ":at": put(row.created_at.0),
        ":expires": put(row.expires_at.0),
    })?;
    Ok(Created { row, existed: false })
}

fn open(c: &Connection, tenant: &TenantId, id: &StreamId) -> Result<Option<UploadRow>> {
    const SQL: &str = "UPDATE uploads SET session = session + 1 \
                       WHERE tenant_id = ?1 AND stream_id = ?2 AND state IN ('open', 'completing')";
    tenant::must_exist(c, tenant)?;
    c.prepare_cached(SQL)?.execute((tenant.as_str(), id.0))?;
    get(c, tenant, id)
}

fn received(c: &Connection, tenant: &TenantId, id: &StreamId) -> Result<ChunkSet> {
    const SQL: &str =
        "SELECT chunk_index FROM upload_chunks WHERE tenant_id = ?1 AND stream_id = ?2 ORDER BY chunk_index";
    let mut query = c.prepare_cached(SQL)?;
    let mut rows = query.query((tenant.as_str(), id.0))?;
    let mut set = ChunkSet::new();
    while let Some(row) = rows.next()? {
        set.insert(number(row, "chunk_index")?);
    }
    Ok(set)
}

fn chunk(c: &Connection, tenant: &TenantId, id: &StreamId, index: u64) -> Result<Option<Sha256Digest>> {
    const SQL: &str = "SELECT sha256 FROM upload_chunks WHERE tenant_id = ?1 AND stream_id = ?2 AND chunk_index = ?3";
    first(c.prepare_cached(SQL)?.query((tenant.as_str(), id.0, put(index)))?, |row| {
        Ok(Sha256Digest(digest(row, "sha256")?))
    })
}

fn add(c: &Connection, tenant: &TenantId, id: &StreamId, added: &AddedChunks) -> Result<()> {
    const SQL: &str = "UPDATE uploads SET received_bytes = received_bytes + ?3, expires_at = ?4, \
                       total_bytes = CASE WHEN total_bytes < 0 THEN ?5 ELSE total_bytes END \
                       WHERE tenant_id = ?1 AND stream_id = ?2";
    let row = must_get(c, tenant, id)?;
    rule(row.check("upload.add", added.session, StreamState::Open))?;
    let mut insert = c.prepare_cached(
        "INSERT INTO upload_chunks (tenant_id, stream_id, chunk_index, sha256) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT DO NOTHING",
    )?;
    for (index, sha256) in &added.chunks {
        let is_new = insert.execute((tenant.as_str(), id.0, put(*index), sha256.0))? == 1;
        if !is_new && chunk(c, tenant, id, *index)? != Some(*sha256) {
            return refuse(ErrorCode::ChunkMismatch, format!("chunk {index} is there with another content"));
        }
    }
    c.prepare_cached(SQL)?.execute((
        tenant.as_str(),
        id.0,
        put(added.bytes),
        put(added.expires_at.0),
        total(added.total_bytes),
    ))?;
    Ok(())
}

fn completing(c: &Connection, tenant: &TenantId, id: &StreamId, completing: &Completing) -> Result<UploadRow> {
    const SQL: &str = "UPDATE uploads SET state = 'completing', sha256 = ?3, total_bytes = ?4, expires_at = ?5 \
                       WHERE tenant_id = ?1 AND stream_id = ?2";
    let row = must_get(c, tenant, id)?;
    rule(row.check_completing("upload.completing", completing))?;
    c.prepare_cached(SQL)?.execute((
        tenant.as_str(),
        id.0,
        completing.sha256.0,
        put(completing.total_bytes),
        put(completing.expires_at.0),
    ))?;
    must_get(c, tenant, id)
}

/// Ends an upload as the context that it became (UP-6), within the caller's transaction.
pub(super) fn complete(c: &Connection, tenant: &TenantId, id: &StreamId, rev: u64, now: Timestamp) -> Result<()> {
    const SQL: &str = "UPDATE uploads SET state = 'complete', rev = ?3, expires_at = ?4 \
                       WHERE tenant_id = ?1 AND stream_id = ?2";
    rule(must_get(c, tenant, id)?.check_complete("upload.complete"))?;
    let forget_at = now.after(limits::STREAM_TTL);
    c.prepare_cached(SQL)?.execute((tenant.as_str(), id.0, put(rev), put(forget_at.0)))?;
    Ok(())
}

fn end(
    c: &Connection,
    tenant: &TenantId,
    id: &StreamId,
    state: StreamState,
    forget_at: Timestamp,
) -> Result<Option<UploadRow>> {
    const SQL: &str = "UPDATE uploads SET state = ?3, expires_at = ?4 \
                       WHERE tenant_id = ?1 AND stream_id = ?2 AND state IN ('open', 'completing')";
    tenant::must_exist(c, tenant)?;
    if c.prepare_cached(SQL)?.execute((tenant.as_str(), id.0, state.name(), put(forget_at.0)))? == 1 {
        c.prepare_cached("DELETE FROM upload_chunks WHERE tenant_id = ?1 AND stream_id = ?2")?
            .execute((tenant.as_str(), id.0))?;
    }
    get(c, tenant, id)
}

fn list(c: &Connection, tenant: &TenantId, after: Option<&StreamId>, limit: u32) -> Result<Vec<UploadRow>> {
    let sql =
        format!("SELECT {COLUMNS} FROM uploads WHERE tenant_id = ?1 AND stream_id > ?2 ORDER BY stream_id LIMIT ?3");
    // The empty blob comes before every id.
    let after = after.map_or(&[][..], |id| &id.0[..]);
    collect(c.prepare_cached(&sql)?.query((tenant.as_str(), after, limit))?, upload_row)
}

fn forget(c: &Connection, tenant: &TenantId, id: &StreamId) -> Result<()> {
    const SQL: &str = "DELETE FROM uploads WHERE tenant_id = ?1 AND stream_id = ?2 \
                       AND state NOT IN ('open', 'completing')";
    tenant::must_exist(c, tenant)?;
    c.prepare_cached(SQL)?.execute((tenant.as_str(), id.0))?;
    Ok(())
}

fn find(c: &Connection, tenant: &TenantId, wanted: &[Sha256Digest]) -> Result<Vec<FoundChunk>> {
    const SQL: &str = "SELECT k.chunk_index, u.sha256, u.chunk_bytes, u.total_bytes, u.context_id \
         FROM upload_chunks k JOIN uploads u ON u.tenant_id = k.tenant_id AND u.stream_id = k.stream_id \
         WHERE k.tenant_id = ?1 AND k.sha256 = ?2 AND u.state = 'complete' LIMIT ?3";
    let mut query = c.prepare_cached(SQL)?;
    let mut out = Vec::new();
    for sha256 in wanted {
        let mut rows = query.query((tenant.as_str(), sha256.0, FoundChunk::PER_DIGEST as u32))?;
        while let Some(row) = rows.next()? {
            let index = number(row, "chunk_index")?;
            let cut = Chunking {
                chunk_bytes: row.get("chunk_bytes")?,
                total_bytes: u64::try_from(row.get::<_, i64>("total_bytes")?).ok(),
            };
            let offset = cut.offset(index).ok_or_else(|| Failure::Damaged(format!("chunk_index: {index}")))?;
            out.push(FoundChunk {
                sha256: *sha256,
                blob: Sha256Digest(digest(row, "sha256")?),
                offset,
                len: cut.len(index),
                context: ContextId::from_bytes(bytes16(row, "context_id")?)?,
            });
        }
    }
    Ok(out)
}

fn at_most(operation: &'static str, chunks: usize) -> acb_ports::metadata::Result<()> {
    if chunks > UPLOAD_CHUNKS_MAX {
        let message = format!("{chunks} chunks at once, and at most {UPLOAD_CHUNKS_MAX} are taken");
        return Err(StoreError::new(ErrorCode::InvalidArgument, operation, message));
    }
    Ok(())
}

type Answer<T> = acb_ports::metadata::Result<T>;

#[async_trait]
impl UploadStore for SqliteMetadata {
    async fn upload_create(&self, tenant: &TenantId, new: NewUpload) -> Answer<Created<UploadRow>> {
        let tenant = tenant.clone();
        self.write("upload.create", move |c| create(c, &tenant, &new)).await
    }

    async fn upload_get(&self, tenant: &TenantId, id: &StreamId) -> Answer<Option<UploadRow>> {
        let (tenant, id) = (tenant.clone(), *id);
        self.read("upload.get", move |c| get(c, &tenant, &id)).await
    }

    async fn upload_open(&self, tenant: &TenantId, id: &StreamId) -> Answer<Option<UploadRow>> {
        let (tenant, id) = (tenant.clone(), *id);
        self.write("upload.open", move |c| open(c, &tenant, &id)).await
    }

    async fn upload_received(&self, tenant: &TenantId, id: &StreamId) -> Answer<ChunkSet> {
        let (tenant, id) = (tenant.clone(), *id);
        self.read("upload.received", move |c| received(c, &tenant, &id)).await
    }

    async fn upload_chunk(&self, tenant: &TenantId, id: &StreamId, index: u64) -> Answer<Option<Sha256Digest>> {
        let (tenant, id) = (tenant.clone(), *id);
        self.read("upload.chunk", move |c| chunk(c, &tenant, &id, index)).await
    }

    async fn upload_add(&self, tenant: &TenantId, id: &StreamId, added: AddedChunks) -> Answer<()> {
        at_most("upload.add", added.chunks.len())?;
        let (tenant, id) = (tenant.clone(), *id);
        self.write("upload.add", move |c| add(c, &tenant, &id, &added)).await
    }

    async fn upload_completing(&self, tenant: &TenantId, id: &StreamId, wanted: Completing) -> Answer<UploadRow> {
        let (tenant, id) = (tenant.clone(), *id);
        self.write("upload.completing", move |c| completing(c, &tenant, &id, &wanted)).await
    }

    async fn upload_end(
        &self,
        tenant: &TenantId,
        id: &StreamId,
        state: StreamState,
        forget_at: Timestamp,
    ) -> Answer<Option<UploadRow>> {
        UploadRow::check_end("upload.end", state)?;
        let (tenant, id) = (tenant.clone(), *id);
        self.write("upload.end", move |c| end(c, &tenant, &id, state, forget_at)).await
    }

    async fn upload_list(&self, tenant: &TenantId, after: Option<&StreamId>, limit: u32) -> Answer<Vec<UploadRow>> {
        let limit = rows("upload.list", limit)?;
        let (tenant, after) = (tenant.clone(), after.copied());
        self.read("upload.list", move |c| list(c, &tenant, after.as_ref(), limit)).await
    }

    async fn upload_forget(&self, tenant: &TenantId, id: &StreamId) -> Answer<()> {
        let (tenant, id) = (tenant.clone(), *id);
        self.write("upload.forget", move |c| forget(c, &tenant, &id)).await
    }

    async fn upload_find(&self, tenant: &TenantId, sha256: &[Sha256Digest]) -> Answer<Vec<FoundChunk>> {
        at_most("upload.find", sha256.len())?;
        let (tenant, wanted) = (tenant.clone(), sha256.to_vec());
        self.read("upload.find", move |c| find(c, &tenant, &wanted)).await
    }
}
