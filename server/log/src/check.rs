//! Looks at a data folder without a server, and saves what can be read. Never writes into the folder it looks at, and
//! believes no sidecar: every batch is read and checked.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use acb_types::{
    ErrorCode, PartitionId,
    position::{Epoch, Seq},
};

use crate::{
    batch::{self, Fault, HEADER, Header, Kind},
    data_dir::{self, LOCK_FILE, check_format},
    disk::{Disk, DiskFile, OpenMode},
    error::{LogError, Result},
    scan::Scanner,
    segment::{BODY_START, HeaderFault, Ident, Pos, SegmentHeader},
    sidecar::Sidecar,
};

/// What a data folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its logs, in order.
    pub logs: Vec<LogReport>,
}

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogReport {
    /// Which log.
    pub id: PartitionId,
    /// Its folder.
    pub path: PathBuf,
    /// Its segments, in order.
    pub segments: Vec<SegmentReport>,
    /// First and last message that can be read.
    pub seqs: Option<(Seq, Seq)>,
    /// First and last epoch.
    pub epochs: Option<(Epoch, Epoch)>,
    /// Batches that can be read.
    pub batches: u64,
    /// Messages that can be read.
    pub messages: u64,
    /// Batches of delivery state that can be read.
    pub state_batches: u64,
    /// Everything below had been synced, as the highest mark says.
    pub synced: Pos,
    /// Whether the log was closed in good order.
    pub clean: bool,
    /// The first damage: a fault below what had been synced. The log does not open.
    pub damage: Option<Damage>,
}

/// What a segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its file.
    pub path: PathBuf,
    /// Its number.
    pub number: u32,
    /// Bytes of the file.
    pub size: u64,
    /// Where its last good batch ends.
    pub end: u32,
    /// Batches that can be read.
    pub batches: u64,
    /// Messages that can be read.
    pub messages: u64,
    /// Its sidecar. One that is not good is made anew by the next opening.
    pub sidecar: SidecarReport,
}

/// The state of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SidecarReport {
    /// Its header is good.
    Good,
    /// There is none; the last segments have none.
    None,
    /// It cannot be read.
    Damaged,
}

/// A place that cannot be read although it had been synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in it, in bytes.
    pub offset: u32,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.path.display(), self.offset, self.what)
    }
}

/// What was saved of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// Which log.
    pub id: PartitionId,
    /// Batches that were copied.
    pub batches: u64,
    /// Messages that were copied.
    pub messages: u64,
    /// Stretches that could not be read: file, from, to.
    pub skipped: Vec<(PathBuf, u32, u32)>,
}

/// Reads all logs of a data folder and says what is in them. A server that runs on it meanwhile makes the last batches
/// look torn; nothing else.
///
/// # Errors
/// The folder is none of acb-server, of another format, or cannot be read.
pub fn inspect(disk: &dyn Disk, folder: &Path) -> Result<Report> {
    require_format(disk, folder)?;
    let logs = data_dir::partitions(disk, folder)?;
    let logs = logs.into_iter().map(|id| inspect_log(disk, folder, id)).collect::<Result<_>>()?;
    Ok(Report { logs })
}

/// Copies every batch that can be read into a new folder, log by log, in order. The folder that is saved from is not
/// changed. Only logs are copied: metadata is a database of its own.
///
/// # Errors
/// A server holds the folder, it is none of acb-server, the new folder is not empty or lies inside the old one, or the
/// disk fails.
pub fn salvage(disk: &Arc<dyn Disk>, folder: &Path, into: &Path) -> Result<Vec<Salvaged>> {
    let refuse = |message: String| Err(LogError::new(ErrorCode::InvalidArgument, "check.salvage", message));
    let fail = |e| LogError::io("check.salvage", into.display(), e);
    require_format(&**disk, folder)?;
    if into.starts_with(folder) || folder.starts_with(into) {
        return refuse(format!("{} and {} lie inside each other", into.display(), folder.display()));
    }
    if !disk.list(into).map_err(fail)?.is_empty() {
        return refuse(format!("{} is not empty", into.display()));
    }
    let _lock = disk.lock(&folder.join(LOCK_FILE), &format!("{}\n", std::process::id())).map_err(|e| {
        LogError::new(
            ErrorCode::InvalidState,
            "check.salvage",
            format!("{} is in use by an acb-server (pid {}): stop it first", folder.display(), e.to_string().trim()),
        )
    })?;
    disk.create_dir_all(into).map_err(fail)?;
    check_format(&**disk, into)?;
    let mut out = Vec::new();
    for id in data_dir::partitions(&**disk, folder)? {
        out.push(salvage_log(&**disk, folder, into, id)?);
    }
    Ok(out)
}

fn require_format(disk: &dyn Disk, folder: &Path) -> Result<()> {
    let fail = |e| LogError::io("check", folder.display(), e);
    if disk.list(folder).map_err(fail)?.iter().any(|e| e.name == data_dir::FORMAT_FILE) {
        return check_format(disk, folder);
    }
    let message = format!("{} is no data folder of acb-server: it has no file FORMAT", folder.display());
    Err(LogError::new(ErrorCode::InvalidArgument, "check", message))
}

/// A segment's file as it lies in the folder.
struct Raw {
    ident: Ident,
    path: PathBuf,
    size: u64,
    file: Arc<dyn DiskFile>,
    header: std::result::Result<(), HeaderFault>,
}

fn segments(disk: &dyn Disk, dir: &Path, id: &PartitionId) -> Result<Vec<Raw>> {
    let fail = |e| LogError::io("check", dir.display(), e);
    let mut out = Vec::new();
    for entry in disk.list(dir).map_err(fail)? {
        let Some((ident, "seg")) = Ident::parse(&entry.name) else { continue };
        let path = dir.join(&entry.name);
        let file = disk.open(&path, OpenMode::Read).map_err(fail)?;
        let mut head = Vec::new();
        file.pread(&mut head, BODY_START as usize, 0).map_err(fail)?;
        let header = SegmentHeader::expect(&head, ident, id).map(|_| ());
        out.push(Raw { ident, path, size: file.len().map_err(fail)?, file, header });
    }
    out.sort_by_key(|raw| raw.ident.number);
    Ok(out)
}

/// What was found in a segment, in order.
enum Step<'a> {
    Batch(u32, &'a Header, &'a [u8], &'a [u8]),
    /// A stretch that is no batch: from, and why. It ends with the next batch.
    Break(u32, Fault),
}

/// Walks a whole segment, stepping over what cannot be read.
fn walk(raw: &Raw, mut see: impl FnMut(Step<'_>) -> Result<()>) -> Result<()> {
    let fail = |e: io::Error| LogError::io("check", raw.path.display(), e);
    let size = u32::try_from(raw.size).unwrap_or(u32::MAX);
    let mut scanner = Scanner::new(&*raw.file, raw.ident, BODY_START, size);
    loop {
        let at = scanner.offset();
        match scanner.next().map_err(fail)? {
            Ok(found) => {
                see(Step::Batch(found.offset, &found.header, found.meta, found.body))?;
                if found.header.kind == Kind::Seal {
                    return Ok(());
                }
            }
            Err(fault) => {
                see(Step::Break(at, fault))?;
                match scanner.find(at + 1).map_err(fail)? {
                    Some((next, _)) => scanner = Scanner::new(&*raw.file, raw.ident, next, size),
                    None => return Ok(()),
                }
            }
        }
    }
}

fn inspect_log(disk: &dyn Disk, folder: &Path, id: PartitionId) -> Result<LogReport> {
    let path = data_dir::log_dir(folder, &id);
    let mut report = LogReport {
        id,
        path,
        segments: Vec::new(),
        seqs: None,
        epochs: None,
        batches: 0,
        messages: 0,
        state_batches: 0,
        synced: Pos::default(),
        clean: false,
        damage: None,
    };
    let raws = segments(disk, &report.path, &report.id)?;
    let mut faults: Vec<(Pos, Damage)> = Vec::new();
    let mut order = (0, 0);
    let mut last = None;
    for (i, raw) in raws.iter().enumerate() {
        let number = raw.ident.number;
        let mut fault = |offset: u32, what: String| {
            faults.push((Pos::new(number, offset), Damage { path: raw.path.clone(), offset, what }));
        };
        if let Some(before) = i.checked_sub(1).map(|i| raws[i].ident.number)
            && before + 1 < number
        {
            fault(0, format!("segment {} is missing", before + 1));
        }
        match raw.header {
            Err(HeaderFault::Version(v)) => fault(0, format!("the segment is of version {v}")),
            Err(_) => fault(0, "the segment's header is damaged".into()),
            Ok(()) => {}
        }
        let mut segment = SegmentReport {
            path: raw.path.clone(),
            number,
            size: raw.size,
            end: BODY_START,
            batches: 0,
            messages: 0,
            sidecar: sidecar_of(disk, raw),
        };
        walk(raw, |step| {
            match step {
                Step::Break(at, why) => fault(at, why.to_string()),
                Step::Batch(at, header, ..) => {
                    report.synced = report.synced.max(header.synced);
                    if (header.epoch, header.first_seq) < order {
                        return Ok(());
                    }
                    order = (header.epoch, header.end_seq());
                    last = Some(header.kind);
                    segment.end = at + header.len();
                    segment.batches += 1;
                    segment.messages += u64::from(header.seqs());
                    report.state_batches += u64::from(header.kind == Kind::State);
                    let epoch = header.epoch;
                    report.epochs = Some(report.epochs.map_or((epoch, epoch), |(first, _)| (first, epoch)));
                    if header.seqs() > 0 {
                        let first = report.seqs.map_or(header.first_seq, |(first, _)| first);
                        report.seqs = Some((first, header.end_seq() - 1));
                    }
                }
            }
            Ok(())
        })?;
        if segment.sidecar == SidecarReport::Good {
            // It was written after its segment was synced.
            report.synced = report.synced.max(Pos::new(number + 1, BODY_START));
        }
        report.batches += segment.batches;
        report.messages += segment.messages;
        report.segments.push(segment);
    }
    report.clean = last == Some(Kind::Close);
    report.damage = faults.into_iter().find(|(at, _)| *at < report.synced).map(|(_, damage)| damage);
    Ok(report)
}

fn sidecar_of(disk: &dyn Disk, raw: &Raw) -> SidecarReport {
    match disk.open(&raw.path.with_extension("idx"), OpenMode::Read) {
        Ok(file) if Sidecar::load(&*file, raw.ident).is_ok() => SidecarReport::Good,
        Ok(_) => SidecarReport::Damaged,
        Err(_) => SidecarReport::None,
    }
}

fn salvage_log(disk: &dyn Disk, folder: &Path, into: &Path, id: PartitionId) -> Result<Salvaged> {
    let raws = segments(disk, &data_dir::log_dir(folder, &id), &id)?;
    let dir = data_dir::log_dir(into, &id);
    let fail = |e| LogError::io("check.salvage", dir.display(), e);
    disk.create_dir_all(&dir).map_err(fail)?;
    let size = raws.iter().map(|r| u32::try_from(r.size).unwrap_or(u32::MAX)).max().unwrap_or(0);
    let number = raws.first().map_or(1, |r| r.ident.number);
    let mut copy = Copy { disk, dir: dir.clone(), id: id.clone(), size, number, open: None };
    let mut out = Salvaged { id, batches: 0, messages: 0, skipped: Vec::new() };
    let mut order = (0, 0);
    for raw in &raws {
        let mut broken: Option<u32> = None;
        walk(raw, |step| {
            match step {
                Step::Break(at, _) => broken = Some(at),
                Step::Batch(at, header, meta, body) => {
                    if let Some(from) = broken.take() {
                        out.skipped.push((raw.path.clone(), from, at));
                    }
                    // What goes backwards was cut off once and must not come back.
                    let stale = (header.epoch, header.first_seq) < order;
                    if stale || matches!(header.kind, Kind::Seal | Kind::Close) {
                        return Ok(());
                    }
                    order = (header.epoch, header.end_seq());
                    copy.put(header, meta, body).map_err(fail)?;
                    out.batches += 1;
                    out.messages += u64::from(header.seqs());
                }
            }
            Ok(())
        })?;
    }
    copy.finish().map_err(fail)?;
    Ok(out)
}

/// Writes batches into new segments.
struct Copy<'a> {
    disk: &'a dyn Disk,
    dir: PathBuf,
    id: PartitionId,
    size: u32,
    number: u32,
    open: Option<(Arc<dyn DiskFile>, Ident, u32)>,
}

impl Copy<'_> {
    fn put(&mut self, header: &Header, meta: &[u8], body: &[u8]) -> io::Result<()> {
        let full =
            |at: u32| at + header.len() + HEADER as u32 > self.size.max(BODY_START + header.len() + HEADER as u32);
        if let Some((_, _, at)) = &self.open
            && full(*at)
        {
            let seal = Header { kind: Kind::Seal, count: 0, body_len: 0, meta_len: 0, ..*header };
            self.write(&seal, &[], &[])?;
            self.close()?;
        }
        if self.open.is_none() {
            let ident = Ident { number: self.number, generation: 1, salt: self.disk.entropy() as u32 };
            self.number += 1;
            let size = self.size.max(BODY_START + header.len() + HEADER as u32);
            let file = self.disk.open(&self.dir.join(ident.file_name()), OpenMode::Create)?;
            file.fallocate(u64::from(size))?;
            file.pwrite(&SegmentHeader::new(ident, size, &self.id).encode(), 0)?;
            self.open = Some((file, ident, BODY_START));
        }
        self.write(header, meta, body)
    }

    fn write(&mut self, header: &Header, meta: &[u8], body: &[u8]) -> io::Result<()> {
        let Some((file, ident, at)) = &mut self.open else { return Ok(()) };
        // Nothing is known to be synced in the copy: its first opening says so anew.
        let header = Header { generation: ident.generation, synced: Pos::default(), ..*header };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(meta);
        batch::seal(&mut bytes, [body], ident.salt);
        bytes.extend_from_slice(body);
        file.pwrite(&bytes, u64::from(*at))?;
        *at += bytes.len() as u32;
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some((file, _, _)) => file.fdatasync(),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> io::Result<()> {
        self.close()?;
        for dir in self.dir.ancestors().take(4) {
            self.disk.sync_dir(dir)?;
        }
        Ok(())
    }
}
