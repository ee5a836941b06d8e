//! The data folder: one server at a time, one format, a folder per tenant and in it one per log.
//!
//! ```text
//! FORMAT  LOCK
//! tenants/<tenant>/log/<class>-<partition>/   segments and sidecars of one log
//! tenants/<tenant>/pool/                      segments that wait for their next use
//! ```

use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use acb_types::{ClassId, ErrorCode, PartitionId, TenantId, Timestamp, limits};
use parking_lot::Mutex;

use crate::{
    dedupe::Budget,
    disk::{Disk, DiskLock, OpenMode, read_all},
    error::{LogError, Result},
    options::LogOptions,
    recovery::{self, OpenedLog},
    recycle::SegmentPool,
    shared::{Caches, Tenant},
};

/// The format of data folders that this server writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

pub(crate) const FORMAT_FILE: &str = "FORMAT";
pub(crate) const LOCK_FILE: &str = "LOCK";
const FORMAT_WORDS: &str = "acb data format ";

/// Limits of a data folder.
#[derive(Clone, Copy, Debug)]
pub struct DataDirOptions {
    /// Idempotency keys of a tenant at once.
    pub keys_max: usize,
    /// Producer sessions of a tenant at once.
    pub producers_max: usize,
    /// Bytes of a tenant's segments that wait for their next use.
    pub pool_bytes_max: u64,
    /// Bytes of sidecars that are held in memory, over all logs.
    pub cache_bytes: u64,
    /// Files of sealed segments that are held open, over all logs.
    pub cache_files: u64,
}

impl Default for DataDirOptions {
    fn default() -> Self {
        Self {
            keys_max: limits::IDEMPOTENCY_KEYS_MAX,
            producers_max: limits::PRODUCERS_MAX,
            pool_bytes_max: 256 << 20,
            cache_bytes: 64 << 20,
            cache_files: 256,
        }
    }
}

/// A data folder in the hands of one process.
#[derive(Debug)]
pub struct DataDir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    options: DataDirOptions,
    caches: Arc<Caches>,
    tenants: Mutex<HashMap<TenantId, Weak<Tenant>>>,
    open: Arc<Mutex<HashSet<PartitionId>>>,
    _lock: Box<dyn DiskLock>,
}

/// Says that a log is open for as long as it lives.
#[derive(Debug)]
pub(crate) struct OpenMark {
    open: Arc<Mutex<HashSet<PartitionId>>>,
    id: PartitionId,
}

impl Drop for OpenMark {
    fn drop(&mut self) {
        self.open.lock().remove(&self.id);
    }
}

impl DataDir {
    /// Takes a data folder, making it when it is absent.
    ///
    /// # Errors
    /// `invalid_state` when another server holds it (the message names its process) or when its format is another;
    /// storage errors when it cannot be made.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, options: DataDirOptions) -> Result<Self> {
        let fail = |e| LogError::io("data.open", path.display(), e);
        disk.create_dir_all(path).map_err(fail)?;
        let lock = match disk.lock(&path.join(LOCK_FILE), &format!("{}\n", std::process::id())) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let message = format!(
                    "data folder {} is in use by another acb-server (pid {}); stop it, or give this one a folder of its own",
                    path.display(),
                    e.to_string().trim()
                );
                return Err(LogError::new(ErrorCode::InvalidState, "data.open", message));
            }
            other => other.map_err(fail)?,
        };
        check_format(&*disk, path)?;
        Ok(Self {
            disk,
            path: path.to_path_buf(),
            options,
            caches: Caches::new(options.cache_bytes, options.cache_files),
            tenants: Mutex::default(),
            open: Arc::default(),
            _lock: lock,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of a log.
    pub fn log_dir(&self, id: &PartitionId) -> PathBuf {
        log_dir(&self.path, id)
    }

    /// What a tenant's logs share.
    ///
    /// # Errors
    /// When its folder cannot be made or read.
    pub fn tenant(&self, id: &TenantId) -> Result<Arc<Tenant>> {
        let mut tenants = self.tenants.lock();
        if let Some(tenant) = tenants.get(id).and_then(Weak::upgrade) {
            return Ok(tenant);
        }
        let fail = |e| LogError::io("data.tenant", id, e);
        let dir = tenant_dir(&self.path, id);
        let pool = SegmentPool::open(Arc::clone(&self.disk), dir.join("pool"), self.options.pool_bytes_max);
        let tenant = Arc::new(Tenant {
            id: id.clone(),
            disk: Arc::clone(&self.disk),
            pool: pool.map_err(fail)?,
            keys: Budget::new(self.options.keys_max),
            producers: Budget::new(self.options.producers_max),
            caches: Arc::clone(&self.caches),
        });
        tenants.insert(id.clone(), Arc::downgrade(&tenant));
        Ok(tenant)
    }

    /// Opens a log, making it when it is absent, and recovers it. `now` decides which idempotency keys are still known.
    ///
    /// # Errors
    /// `invalid_state` when it is open already or of a newer format; `data_damaged` when a fault lies below what was
    /// synced (other logs open); storage errors. A full or read-only disk is no error: the log can be read, and appends
    /// say so.
    pub fn open_log(&self, id: &PartitionId, options: LogOptions, now: Timestamp) -> Result<OpenedLog> {
        if !self.open.lock().insert(id.clone()) {
            return Err(LogError::new(ErrorCode::InvalidState, "log.open", format!("log {id} is open already")));
        }
        let mark = OpenMark { open: Arc::clone(&self.open), id: id.clone() };
        let tenant = self.tenant(&id.tenant)?;
        let dir = self.log_dir(id);
        self.make_dirs(&dir).map_err(|e| LogError::io("log.open", dir.display(), e))?;
        let mut opened = recovery::open(id, dir, tenant, options, now)?;
        opened.log.mark = Some(mark);
        Ok(opened)
    }

    /// Makes a folder, and makes durable that it and those above it are there.
    fn make_dirs(&self, dir: &Path) -> io::Result<()> {
        if !self.disk.list(dir)?.is_empty() {
            return Ok(());
        }
        self.disk.create_dir_all(dir)?;
        for above in dir.ancestors().skip(1).take_while(|a| a.starts_with(&self.path)) {
            self.disk.sync_dir(above)?;
        }
        Ok(())
    }

    /// Logs that are there, in order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn partitions(&self) -> Result<Vec<PartitionId>> {
        partitions(&*self.disk, &self.path)
    }

    /// Removes all logs of a tenant with their data. Removing what is absent succeeds.
    ///
    /// # Errors
    /// `invalid_state` when one of them is open; storage errors.
    pub fn remove_tenant(&self, id: &TenantId) -> Result<()> {
        if let Some(open) = self.open.lock().iter().find(|p| p.tenant == *id) {
            return Err(LogError::new(ErrorCode::InvalidState, "data.remove", format!("log {open} is open")));
        }
        self.tenants.lock().remove(id);
        let dir = tenant_dir(&self.path, id);
        let above = dir.parent().unwrap_or(&self.path);
        let gone = self.disk.remove_dir_all(&dir);
        let there = |()| self.disk.list(above).map(|entries| !entries.is_empty());
        gone.and_then(there)
            .and_then(|there| if there { self.disk.sync_dir(above) } else { Ok(()) })
            .map_err(|e| LogError::io("data.remove", dir.display(), e))
    }
}

fn tenant_dir(root: &Path, id: &TenantId) -> PathBuf {
    root.join("tenants").join(id.as_str())
}

pub(crate) fn log_dir(root: &Path, id: &PartitionId) -> PathBuf {
    tenant_dir(root, &id.tenant).join("log").join(format!("{}-{}", id.class, id.partition))
}

/// Logs that are there, in order.
pub(crate) fn partitions(disk: &dyn Disk, root: &Path) -> Result<Vec<PartitionId>> {
    let fail = |e| LogError::io("data.partitions", root.display(), e);
    let mut out = Vec::new();
    let tenants = root.join("tenants");
    for entry in disk.list(&tenants).map_err(fail)? {
        let Ok(tenant) = entry.name.parse::<TenantId>() else { continue };
        for log in disk.list(&tenants.join(&entry.name).join("log")).map_err(fail)? {
            if let Some((class, partition)) = parse_log_name(&log.name) {
                out.push(PartitionId { tenant: tenant.clone(), class, partition });
            }
        }
    }
    out.sort();
    Ok(out)
}

fn parse_log_name(name: &str) -> Option<(ClassId, u16)> {
    let (class, partition) = name.rsplit_once('-')?;
    let named = || class.strip_prefix("class")?.parse().ok().map(ClassId);
    Some((ClassId::from_name(class).or_else(named)?, partition.parse().ok()?))
}

/// Reads the format of a folder, writing it into an empty one.
pub(crate) fn check_format(disk: &dyn Disk, path: &Path) -> Result<()> {
    let fail = |e| LogError::io("data.open", path.display(), e);
    let file = path.join(FORMAT_FILE);
    let found = match disk.open(&file, OpenMode::Read) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return write_format(disk, path).map_err(fail),
        other => read_all(&*other.map_err(fail)?).map_err(fail)?,
    };
    let text = String::from_utf8_lossy(&found);
    let refuse = |message| Err(LogError::new(ErrorCode::InvalidState, "data.open", message));
    let shown = path.display();
    match text.strip_prefix(FORMAT_WORDS).and_then(|rest| rest.trim().parse::<u32>().ok()) {
        Some(FORMAT) => Ok(()),
        Some(newer) if newer > FORMAT => refuse(format!(
            "data folder {shown} was written by a newer acb-server (format {newer}, this one reads {FORMAT}): run that version, or restore a backup of this one's"
        )),
        Some(older) => refuse(format!(
            "data folder {shown} has format {older}, this acb-server reads {FORMAT}: upgrade it first as docs/upgrade.md says under \"from format {older}\""
        )),
        None => refuse(format!("{} says no format of acb-server: is this a data folder of it?", file.display())),
    }
}

fn write_format(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let temporary = path.join("FORMAT.tmp");
    disk.remove(&temporary)?;
    let file = disk.open(&temporary, OpenMode::Create)?;
    file.pwrite(format!("{FORMAT_WORDS}{FORMAT}\n").as_bytes(), 0)?;
    file.fdatasync()?;
    disk.rename(&temporary, &path.join(FORMAT_FILE))?;
    disk.sync_dir(path)?;
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => disk.sync_dir(above),
        _ => Ok(()),
    }
}
