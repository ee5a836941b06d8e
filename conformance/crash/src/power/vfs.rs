//! SQLite over the simulated disk: a VFS (<https://sqlite.org/vfs.html>) of version 2, with the shared memory that its
//! write-ahead log needs.
//!
//! Bytes, names and syncs go to the disk, as SQLite's own VFS for Unix gives them to the system: a journal's or a log's first
//! sync syncs its folder too, a removal only when SQLite asks for it. Locks and shared memory are this life's: they are as
//! gone after a power cut as a machine's memory is.

#![allow(unsafe_code, reason = "SQLite calls in C, and hands us the memory of its files")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{CStr, CString, c_char, c_int, c_void},
    io,
    path::{Path, PathBuf},
    ptr, slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering, fence},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use acb_log::{Disk as _, DiskFile, disk::OpenMode};
use parking_lot::Mutex;
use rusqlite::ffi;

use super::Alive;

/// Longest path, its closing zero included.
const PATH_MAX: usize = 512;
/// What the simulated disk keeps or loses as a whole.
const SECTOR_BYTES: c_int = 512;
/// Locks of a database's shared memory.
const SLOTS: usize = ffi::SQLITE_SHM_NLOCK as usize;
/// Milliseconds from the beginning of the Julian days, which SQLite counts from, to 1970.
const JULIAN_1970_MS: i64 = 210_866_760_000_000;
const DAY_MS: f64 = 86_400_000.0;

/// Either, or the code that SQLite is told.
type Coded<T> = Result<T, c_int>;

/// One life's files, as SQLite sees them.
struct Vfs {
    disk: Arc<Alive>,
    /// What the connections to a database share, by its path.
    shared: Mutex<HashMap<PathBuf, Arc<Mutex<Shared>>>>,
    methods: ffi::sqlite3_io_methods,
}

/// What the connections to one database share.
#[derive(Default)]
struct Shared {
    /// Level of each connection that has a lock.
    locks: BTreeMap<u64, c_int>,
    /// Shared memory. Its parts never move: SQLite keeps pointers into them.
    regions: Vec<Box<[u64]>>,
    /// Who looks into it.
    mapped: BTreeSet<u64>,
    slots: [Slot; SLOTS],
}

/// A lock of the shared memory.
#[derive(Default)]
struct Slot {
    shared: BTreeSet<u64>,
    exclusive: Option<u64>,
}

/// An open file.
struct Body {
    vfs: &'static Vfs,
    id: u64,
    backing: Backing,
    shared: Arc<Mutex<Shared>>,
}

enum Backing {
    Disk {
        file: Arc<dyn DiskFile>,
        path: PathBuf,
        /// Whether its name is to be made durable with its first sync.
        sync_name: bool,
        delete_on_close: bool,
    },
    /// Without a name: nobody finds it again.
    Memory(Vec<u8>),
}

/// The memory that SQLite has for an open file.
#[repr(C)]
struct OpenFile {
    base: ffi::sqlite3_file,
    body: *mut Body,
}

/// Registers a VFS for a life, and gives its name. It stays registered: SQLite may look at it for as long as a connection of
/// that life closes, and a test has few lives.
pub(super) fn register(disk: Arc<Alive>) -> String {
    static LIVES: AtomicU64 = AtomicU64::new(0);
    let name = format!("acb-power-{}", LIVES.fetch_add(1, Ordering::Relaxed));
    let z_name = CString::new(name.clone()).expect("no zero in it");
    let vfs: &'static Vfs = Box::leak(Box::new(Vfs { disk, shared: Mutex::default(), methods: methods() }));
    let entry = Box::new(ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: size_of::<OpenFile>() as c_int,
        mxPathname: PATH_MAX as c_int,
        pNext: ptr::null_mut(),
        zName: z_name.into_raw(),
        pAppData: ptr::from_ref(vfs).cast_mut().cast(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: None,
        xCurrentTimeInt64: Some(current_time_ms),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    });
    // SAFETY: everything that the entry points to lives for ever, and its functions keep SQLite's contract.
    let code = unsafe { ffi::sqlite3_vfs_register(Box::leak(entry), 0) };
    assert_eq!(code, ffi::SQLITE_OK, "the VFS was not registered");
    name
}

fn methods() -> ffi::sqlite3_io_methods {
    ffi::sqlite3_io_methods {
        iVersion: 2,
        xClose: Some(close),
        xRead: Some(read),
        xWrite: Some(write),
        xTruncate: Some(truncate),
        xSync: Some(sync),
        xFileSize: Some(file_size),
        xLock: Some(lock),
        xUnlock: Some(unlock),
        xCheckReservedLock: Some(check_reserved_lock),
        xFileControl: Some(file_control),
        xSectorSize: Some(sector_size),
        xDeviceCharacteristics: Some(device_characteristics),
        xShmMap: Some(shm_map),
        xShmLock: Some(shm_lock),
        xShmBarrier: Some(shm_barrier),
        xShmUnmap: Some(shm_unmap),
        xFetch: None,
        xUnfetch: None,
    }
}

fn told(outcome: Coded<()>) -> c_int {
    outcome.err().unwrap_or(ffi::SQLITE_OK)
}

/// The code of a failure: a full disk has one of its own.
fn failed(code: c_int) -> impl Fn(io::Error) -> c_int {
    move |e| if e.kind() == io::ErrorKind::StorageFull { ffi::SQLITE_FULL } else { code }
}

impl Vfs {
    fn open(&'static self, path: Option<PathBuf>, flags: c_int) -> Coded<Body> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = LAST.fetch_add(1, Ordering::Relaxed);
        let Some(path) = path else {
            return Ok(Body { vfs: self, id, backing: Backing::Memory(Vec::new()), shared: Arc::default() });
        };
        let has = |flag| flags & flag != 0;
        let create = || self.disk.open(&path, OpenMode::Create);
        let opened = match self.disk.open(&path, OpenMode::Write) {
            Ok(_) if has(ffi::SQLITE_OPEN_EXCLUSIVE) => return Err(ffi::SQLITE_CANTOPEN),
            Err(e) if e.kind() == io::ErrorKind::NotFound && has(ffi::SQLITE_OPEN_CREATE) => create(),
            opened => opened,
        };
        let file = opened.map_err(|_| ffi::SQLITE_CANTOPEN)?;
        let journal = ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_WAL;
        let shared = Arc::clone(self.shared.lock().entry(path.clone()).or_default());
        let backing = Backing::Disk {
            file,
            sync_name: has(ffi::SQLITE_OPEN_CREATE) && has(journal),
            delete_on_close: has(ffi::SQLITE_OPEN_DELETEONCLOSE),
            path,
        };
        Ok(Body { vfs: self, id, backing, shared })
    }

    fn delete(&self, path: &Path, sync_dir: bool) -> Coded<()> {
        match self.disk.open(path, OpenMode::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ffi::SQLITE_IOERR_DELETE_NOENT),
            opened => opened.map_err(|_| ffi::SQLITE_IOERR_DELETE)?,
        };
        self.disk.remove(path).map_err(|_| ffi::SQLITE_IOERR_DELETE)?;
        if sync_dir {
            self.sync_folder(path).map_err(|_| ffi::SQLITE_IOERR_DIR_FSYNC)?;
        }
        Ok(())
    }

    /// Whether there is a file with anything in it: that is what SQLite's own VFS says.
    fn exists(&self, path: &Path) -> Coded<bool> {
        match self.disk.open(path, OpenMode::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            opened => {
                let len = opened.and_then(|file| file.len()).map_err(|_| ffi::SQLITE_IOERR_ACCESS)?;
                Ok(len > 0)
            }
        }
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |folder| self.disk.sync_dir(folder))
    }
}

impl Body {
    /// Fills as much as there is; answers how much that was.
    fn read(&self, into: &mut [u8], offset: u64) -> Coded<usize> {
        let mut bytes = Vec::new();
        match &self.backing {
            Backing::Disk { file, .. } => {
                file.pread(&mut bytes, into.len(), offset).map_err(|_| ffi::SQLITE_IOERR_READ)?;
            }
            Backing::Memory(all) => bytes.extend(all.iter().skip(offset as usize).take(into.len())),
        }
        into[..bytes.len()].copy_from_slice(&bytes);
        into[bytes.len()..].fill(0);
        Ok(bytes.len())
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Coded<()> {
        match &mut self.backing {
            Backing::Disk { file, .. } => file.pwrite(bytes, offset).map_err(failed(ffi::SQLITE_IOERR_WRITE)),
            Backing::Memory(all) => {
                let (from, to) = (offset as usize, offset as usize + bytes.len());
                all.resize(all.len().max(to), 0);
                all[from..to].copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn truncate(&mut self, len: u64) -> Coded<()> {
        match &mut self.backing {
            Backing::Disk { path, .. } => self.vfs.disk.truncate(path, len).map_err(failed(ffi::SQLITE_IOERR_TRUNCATE)),
            Backing::Memory(all) => {
                all.resize(len as usize, 0);
                Ok(())
            }
        }
    }

    fn sync(&mut self) -> Coded<()> {
        let Backing::Disk { file, path, sync_name, .. } = &mut self.backing else { return Ok(()) };
        file.fdatasync().map_err(|_| ffi::SQLITE_IOERR_FSYNC)?;
        if std::mem::take(sync_name) {
            self.vfs.sync_folder(path).map_err(|_| ffi::SQLITE_IOERR_DIR_FSYNC)?;
        }
        Ok(())
    }

    fn len(&self) -> Coded<u64> {
        match &self.backing {
            Backing::Disk { file, .. } => file.len().map_err(|_| ffi::SQLITE_IOERR_FSTAT),
            Backing::Memory(all) => Ok(all.len() as u64),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut shared = self.shared.lock();
        shared.locks.remove(&self.id);
        shared.unmap(self.id);
        drop(shared);
        if let Backing::Disk { path, delete_on_close: true, .. } = &self.backing {
            // It is nobody's; a disk that is gone has no use for it either.
            let _ = self.vfs.disk.remove(path);
        }
    }
}

impl Shared {
    /// Takes the file's lock at a level, or a higher one than before (<https://sqlite.org/lockingv3.html>).
    fn lock(&mut self, id: u64, level: c_int) -> Coded<()> {
        let others = self.locks.iter().filter(|(other, _)| **other != id).map(|(_, level)| *level).max();
        let others = others.unwrap_or(ffi::SQLITE_LOCK_NONE);
        let allowed = match level {
            ffi::SQLITE_LOCK_SHARED => others < ffi::SQLITE_LOCK_PENDING,
            ffi::SQLITE_LOCK_RESERVED => others < ffi::SQLITE_LOCK_RESERVED,
            _ => others == ffi::SQLITE_LOCK_NONE,
        };
        let mine = self.locks.entry(id).or_insert(ffi::SQLITE_LOCK_NONE);
        if !allowed {
            // Readers go, and no new ones come, while somebody waits for all of it.
            if level == ffi::SQLITE_LOCK_EXCLUSIVE && others == ffi::SQLITE_LOCK_SHARED {
                *mine = (*mine).max(ffi::SQLITE_LOCK_PENDING);
            }
            return Err(ffi::SQLITE_BUSY);
        }
        *mine = (*mine).max(level);
        Ok(())
    }

    fn region(&mut self, id: u64, index: usize, bytes: usize, extend: bool) -> *mut c_void {
        self.mapped.insert(id);
        if index >= self.regions.len() && !extend {
            return ptr::null_mut();
        }
        while self.regions.len() <= index {
            self.regions.push(vec![0; bytes / size_of::<u64>()].into());
        }
        self.regions[index].as_mut_ptr().cast()
    }

    fn lock_slots(&mut self, id: u64, slots: std::ops::Range<usize>, flags: c_int) -> Coded<()> {
        let slots = &mut self.slots[slots];
        let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
        if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            for slot in slots {
                slot.shared.remove(&id);
                slot.exclusive.take_if(|holder| *holder == id);
            }
            return Ok(());
        }
        let taken = |slot: &Slot| {
            let others_read = slot.shared.iter().any(|other| *other != id);
            slot.exclusive.is_some_and(|holder| holder != id) || exclusive && others_read
        };
        if slots.iter().any(taken) {
            return Err(ffi::SQLITE_BUSY);
        }
        for slot in slots {
            if exclusive {
                slot.exclusive = Some(id);
            } else {
                slot.shared.insert(id);
            }
        }
        Ok(())
    }

    /// Nobody looks into what the last one has left.
    fn unmap(&mut self, id: u64) {
        for slot in &mut self.slots {
            slot.shared.remove(&id);
            slot.exclusive.take_if(|holder| *holder == id);
        }
        self.mapped.remove(&id);
        if self.mapped.is_empty() {
            self.regions.clear();
        }
    }
}

/// # Safety
/// `vfs` is one that [`register`] made.
unsafe fn vfs_of(vfs: *mut ffi::sqlite3_vfs) -> &'static Vfs {
    // SAFETY: it points to a leaked `Vfs`.
    unsafe { &*(*vfs).pAppData.cast::<Vfs>() }
}

/// # Safety
/// `file` was opened by [`open`] and is used by one thread at a time, as SQLite does.
unsafe fn body<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Body {
    // SAFETY: see above; the body lives until `close`.
    unsafe { &mut *(*file.cast::<OpenFile>()).body }
}

/// # Safety
/// `name` is null or ends with a zero.
unsafe fn path_of(name: *const c_char) -> Option<PathBuf> {
    // SAFETY: see above.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned().into())
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives memory of `szOsFile` bytes, and pointers that are good or null.
    unsafe {
        let file = file.cast::<OpenFile>();
        // Without methods SQLite does not close what was not opened.
        (*file).base.pMethods = ptr::null();
        let vfs = vfs_of(vfs);
        match vfs.open(path_of(name), flags) {
            Ok(body) => {
                (*file).body = Box::into_raw(Box::new(body));
                (*file).base.pMethods = &raw const vfs.methods;
                if !out_flags.is_null() {
                    *out_flags = flags;
                }
                ffi::SQLITE_OK
            }
            Err(code) => code,
        }
    }
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    // SAFETY: SQLite's pointers.
    let (vfs, path) = unsafe { (vfs_of(vfs), path_of(name)) };
    told(path.map_or(Err(ffi::SQLITE_IOERR_DELETE), |path| vfs.delete(&path, sync_dir != 0)))
}

unsafe extern "C" fn access(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, _flags: c_int, out: *mut c_int) -> c_int {
    // SAFETY: SQLite's pointers.
    unsafe {
        let exists = path_of(name).map_or(Ok(false), |path| vfs_of(vfs).exists(&path));
        told(exists.map(|exists| *out = c_int::from(exists)))
    }
}

unsafe extern "C" fn full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite's pointers; `out` has room for so many bytes.
    unsafe {
        let path = CStr::from_ptr(name).to_bytes_with_nul();
        if path.len() > room as usize {
            return ffi::SQLITE_CANTOPEN;
        }
        ptr::copy_nonoverlapping(path.as_ptr().cast(), out, path.len());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(vfs: *mut ffi::sqlite3_vfs, len: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite's pointers; `out` has room for so many bytes.
    let (vfs, out) = unsafe { (vfs_of(vfs), slice::from_raw_parts_mut(out.cast::<u8>(), len as usize)) };
    for part in out.chunks_mut(size_of::<u64>()) {
        part.copy_from_slice(&vfs.disk.entropy().to_le_bytes()[..part.len()]);
    }
    len
}

unsafe extern "C" fn sleep(_vfs: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    std::thread::sleep(Duration::from_micros(micros as u64));
    micros
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    JULIAN_1970_MS + since.as_millis() as i64
}

unsafe extern "C" fn current_time(_vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite's pointer.
    unsafe { *out = now_ms() as f64 / DAY_MS };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_ms(_vfs: *mut ffi::sqlite3_vfs, out: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite's pointer.
    unsafe { *out = now_ms() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: `open` made it, and SQLite uses it no more.
    unsafe {
        drop(Box::from_raw((*file.cast::<OpenFile>()).body));
        (*file).pMethods = ptr::null();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    len: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: an open file, and room for so many bytes.
    let (body, into) = unsafe { (body(file), slice::from_raw_parts_mut(into.cast::<u8>(), len as usize)) };
    match body.read(into, offset as u64) {
        Ok(read) if read < into.len() => ffi::SQLITE_IOERR_SHORT_READ,
        outcome => told(outcome.map(drop)),
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    len: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: an open file, and so many bytes.
    let (body, bytes) = unsafe { (body(file), slice::from_raw_parts(bytes.cast::<u8>(), len as usize)) };
    told(body.write(bytes, offset as u64))
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: ffi::sqlite3_int64) -> c_int {
    // SAFETY: an open file.
    told(unsafe { body(file) }.truncate(len as u64))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: an open file.
    told(unsafe { body(file) }.sync())
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: an open file, and SQLite's pointer.
    unsafe { told(body(file).len().map(|len| *out = len as i64)) }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    let body = unsafe { body(file) };
    told(body.shared.lock().lock(body.id, level))
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    let body = unsafe { body(file) };
    let mut shared = body.shared.lock();
    if level == ffi::SQLITE_LOCK_NONE {
        shared.locks.remove(&body.id);
    } else {
        shared.locks.insert(body.id, level);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: an open file, and SQLite's pointer.
    unsafe {
        let reserved = body(file).shared.lock().locks.values().any(|level| *level >= ffi::SQLITE_LOCK_RESERVED);
        *out = c_int::from(reserved);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_file: *mut ffi::sqlite3_file, _op: c_int, _arg: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_BYTES
}

unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    // As on Unix, and as the simulated disk does: bytes beside those that were written stay.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    index: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: an open file, and SQLite's pointer.
    unsafe {
        let body = body(file);
        *out = body.shared.lock().region(body.id, index as usize, bytes as usize, extend != 0);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, first: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: an open file.
    let body = unsafe { body(file) };
    let slots = first as usize..(first + count) as usize;
    told(body.shared.lock().lock_slots(body.id, slots, flags))
}

unsafe extern "C" fn shm_barrier(_file: *mut ffi::sqlite3_file) {
    fence(Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: an open file.
    let body = unsafe { body(file) };
    body.shared.lock().unmap(body.id);
    ffi::SQLITE_OK
}
