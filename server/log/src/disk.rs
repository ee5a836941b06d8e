//! The disk as the log sees it. Every byte that this crate reads or writes goes through [`Disk`] and [`DiskFile`], so
//! that the simulation can cut the power between any two of these calls.

use std::{
    fmt, fs,
    fs::File,
    hash::{BuildHasher, Hasher},
    io,
    io::{IoSlice, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// Its name inside the folder.
    pub name: String,
    /// Whether it is a folder itself.
    pub is_dir: bool,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must be there.
    Read,
    /// For reading and writing; it must be there.
    Write,
    /// For reading and writing; it must not be there yet.
    Create,
}

/// A file system. What was made, renamed or removed survives a power cut only after [`Disk::sync_dir`] of its folder;
/// what was written, only after [`DiskFile::fdatasync`].
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Makes a folder and those above it. Succeeds when it is there.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file, over one of that name if there is one. Atomic.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Removing what is absent succeeds.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all that is in it. Removing what is absent succeeds.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Lists a folder, in order of names. An absent folder is an empty one.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Makes the entries of a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes a lock file, making it when it is absent, and writes `content` into it. The lock ends with the process or
    /// with the guard. When another holds it: `WouldBlock`, and the holder's content as the error's text.
    fn lock(&self, path: &Path, content: &str) -> io::Result<Box<dyn DiskLock>>;
    /// A number nobody can guess.
    fn entropy(&self) -> u64;
}

/// A lock that ends when it is dropped.
pub trait DiskLock: Send + Sync + fmt::Debug {}

/// An open file. Offsets and lengths are in bytes.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Writes all of `bytes` at an offset. When it fails, any part may have been written.
    fn pwrite(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at an offset, and asks the system not to keep them in memory once they are on the disk: for
    /// contents that are larger than what memory should be spent on. Where the system cannot do that: as [`Self::pwrite`].
    fn pwrite_uncached(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.pwrite(bytes, offset)
    }
    /// Writes all slices one after the other at an offset, in one call where the system can. May consume `slices`.
    fn pwritev(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Appends at most `len` bytes from an offset to `into`; fewer at the end of the file. Answers how many.
    fn pread(&self, into: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<usize>;
    /// Gives the file a size with blocks behind it, where the file system can. A large size (256 MiB for [`OsDisk`]) is
    /// compared with what is free before anything is taken: else others would find the file system full until it fails.
    fn fallocate(&self, len: u64) -> io::Result<()>;
    /// Makes everything written durable. After a failure nobody knows what is: do not try again.
    fn fdatasync(&self) -> io::Result<()>;
    /// Lets the system begin to bring some bytes to the disk, so that a later [`Self::fdatasync`] finds less to do. Promises
    /// nothing and reports nothing: an error of the disk is told by that sync. Where the system cannot do that: nothing.
    fn start_writeback(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
    /// Drops what the system holds of some bytes in memory, so that the next read shows what is on the disk. For a file
    /// whose writes are all synced: after a failed sync the system may go on showing bytes that never reached the disk.
    fn forget_cached(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Its size.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Reads a whole file.
pub(crate) fn read_all(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut out = Vec::new();
    while out.len() < len {
        let at = out.len();
        if file.pread(&mut out, len - at, at as u64)? == 0 {
            break;
        }
    }
    Ok(out)
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl OsDisk {
    /// A shared one.
    pub fn shared() -> Arc<dyn Disk> {
        Arc::new(Self)
    }
}

impl Disk for OsDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = match mode {
            OpenMode::Read => File::open(path)?,
            OpenMode::Write => File::options().read(true).write(true).open(path)?,
            OpenMode::Create => File::options().read(true).write(true).create_new(true).open(path)?,
        };
        Ok(Arc::new(OsFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        absent_is_fine(fs::remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        absent_is_fine(fs::remove_dir_all(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let entries = match fs::read_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut out = Vec::new();
        for entry in entries {
            let entry = entry?;
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry.file_name().into_string() {
                out.push(DirEntry { name, is_dir: entry.file_type()?.is_dir() });
            }
        }
        out.sort();
        Ok(out)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path, content: &str) -> io::Result<Box<dyn DiskLock>> {
        let writable = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let (mut file, writable) = match writable {
            // A folder that was used before can still be read when its file system has become read-only.
            Err(e) if e.raw_os_error() == Some(libc::EROFS) => (File::open(path)?, false),
            other => (other?, true),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(path).unwrap_or_default();
                return Err(io::Error::new(io::ErrorKind::WouldBlock, holder.trim().to_owned()));
            }
            Err(fs::TryLockError::Error(e)) => return Err(e),
        }
        if writable {
            file.set_len(0)?;
            file.write_all(content.as_bytes())?;
        }
        Ok(Box::new(OsLock(file)))
    }

    fn entropy(&self) -> u64 {
        // The standard library's hash keys come from the system's random source.
        std::collections::hash_map::RandomState::new().build_hasher().finish()
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[derive(Debug)]
struct OsLock(#[expect(dead_code, reason = "the lock lives as long as the open file")] File);

impl DiskLock for OsLock {}

#[derive(Debug)]
struct OsFile(File);

impl DiskFile for OsFile {
    fn pwrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    #[cfg(target_os = "linux")]
    fn pwrite_uncached(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let written = uncached::pwrite(&self.0, bytes, offset)?;
        self.0.write_all_at(&bytes[written..], offset + written as u64)
    }

    fn pwritev(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        sys::pwritev_all(&self.0, slices, offset)
    }

    fn pread(&self, into: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<usize> {
        sys::pread_append(&self.0, into, len, offset)
    }

    fn fallocate(&self, len: u64) -> io::Result<()> {
        match sys::fallocate(&self.0, len) {
            // Some file systems cannot reserve; then a write can meet a full disk, and says so itself.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)) => {
                self.0.set_len(len)
            }
            other => other,
        }
    }

    fn fdatasync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    #[cfg(target_os = "linux")]
    fn start_writeback(&self, offset: u64, len: u64) {
        sys::start_writeback(&self.0, offset, len);
    }

    fn forget_cached(&self, offset: u64, len: u64) -> io::Result<()> {
        sys::drop_cached(&self.0, offset, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// Buffered writes that leave nothing behind in the page cache.
#[cfg(target_os = "linux")]
mod uncached {
    use std::{fs::File, io, io::IoSlice};

    use rustix::io::{Errno, ReadWriteFlags, pwritev2};

    /// `RWF_DONTCACHE`, since Linux 6.14 (`include/uapi/linux/fs.h`).
    const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

    /// Writes as much as the kernel and the file system do in this way: all or, on most older ones, nothing.
    pub(super) fn pwrite(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match pwritev2(file, &[IoSlice::new(&bytes[written..])], offset + written as u64, DONTCACHE) {
                Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => break,
                Ok(n) => written += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(written)
    }
}

/// The system calls that the standard library does not have in this form.
#[allow(
    unsafe_code,
    reason = "pwritev, pread into spare capacity, fallocate, fadvise and sync_file_range have no safe form in std"
)]
mod sys {
    use std::{fs::File, io, io::IoSlice, os::fd::AsRawFd};

    /// Most slices that one call takes.
    const SLICES_MAX: usize = 1024;

    pub(super) fn pwritev_all(file: &File, mut slices: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let count = slices.len().min(SLICES_MAX);
            let at = libc::off_t::try_from(offset).map_err(io::Error::other)?;
            // SAFETY: `IoSlice` has the layout of `iovec` on Unix; the slices live over the call; the count is theirs,
            // and at most 1024, so it fits.
            let n = unsafe { libc::pwritev(file.as_raw_fd(), slices.as_ptr().cast(), count as libc::c_int, at) };
            match usize::try_from(n) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    IoSlice::advance_slices(&mut slices, n);
                    offset += n as u64;
                }
                Err(_) => retry_interrupted()?,
            }
        }
        Ok(())
    }

    pub(super) fn pread_append(file: &File, into: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<usize> {
        into.reserve(len);
        let before = into.len();
        let mut got = 0;
        while got < len {
            let at = libc::off_t::try_from(offset + got as u64).map_err(io::Error::other)?;
            let spare = &mut into.spare_capacity_mut()[..len - got];
            // SAFETY: the pointer and length are of spare capacity that the vector owns and that nobody else sees.
            let n = unsafe { libc::pread(file.as_raw_fd(), spare.as_mut_ptr().cast(), spare.len(), at) };
            match usize::try_from(n) {
                Ok(0) => break,
                Ok(n) => {
                    got += n;
                    // SAFETY: the system call has just initialised `n` bytes after the previous length, and `n` is at
                    // most the spare capacity that it was given.
                    unsafe { into.set_len(before + got) };
                }
                Err(_) => retry_interrupted()?,
            }
        }
        Ok(got)
    }

    /// Reservations above this are compared with what is free first. A smaller one that fails hurts nobody for long, and
    /// the question costs a call.
    #[cfg(target_os = "linux")]
    const ASKED_FIRST_BYTES: u64 = 256 * 1024 * 1024;

    /// Bytes that an ordinary user may still take of a file's file system.
    #[cfg(target_os = "linux")]
    fn free(file: &File) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(file)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Bytes that the file has taken already.
    #[cfg(target_os = "linux")]
    fn taken(file: &File) -> io::Result<u64> {
        Ok(std::os::unix::fs::MetadataExt::blocks(&file.metadata()?) * 512)
    }

    #[cfg(target_os = "linux")]
    pub(super) fn fallocate(file: &File, len: u64) -> io::Result<()> {
        // A system call takes blocks until there are none, and gives them back only then.
        if len > ASKED_FIRST_BYTES && free(file)? < len.saturating_sub(taken(file)?) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let len = libc::off_t::try_from(len).map_err(io::Error::other)?;
        loop {
            // SAFETY: takes numbers only; the descriptor is open as long as `file` is borrowed.
            if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) } == 0 {
                return Ok(());
            }
            retry_interrupted()?;
        }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn start_writeback(file: &File, offset: u64, len: u64) {
        let (Ok(offset), Ok(len)) = (libc::off64_t::try_from(offset), libc::off64_t::try_from(len)) else { return };
        // Only this flag: those that wait would also take the error that the next sync has to report.
        // SAFETY: takes numbers only; the descriptor is open as long as `file` is borrowed.
        unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    }

    #[cfg(target_os = "linux")]
    pub(super) fn drop_cached(file: &File, offset: u64, len: u64) -> io::Result<()> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let len = libc::off_t::try_from(len).map_err(io::Error::other)?;
        // SAFETY: takes numbers only; the descriptor is open as long as `file` is borrowed.
        match unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) } {
            0 => Ok(()),
            // It answers the code instead of setting it.
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn drop_cached(_: &File, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn fallocate(file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn retry_interrupted() -> io::Result<()> {
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectored_writes_of_more_slices_than_one_call_takes_arrive_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsDisk.open(&dir.path().join("f"), OpenMode::Create).unwrap();
        let parts: Vec<Vec<u8>> = (0..3000u32).map(|i| i.to_le_bytes().to_vec()).collect();
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
        file.pwritev(&mut slices, 5).unwrap();
        let mut read = vec![7];
        assert_eq!(file.pread(&mut read, 20_000, 5).unwrap(), 12_000);
        assert_eq!(read[0], 7, "what was there stays");
        assert_eq!(read[1..], parts.concat()[..]);
    }

    #[test]
    fn uncached_writes_arrive_also_where_the_system_cannot_do_without_its_cache() {
        // A tmpfs refuses such writes: it is nothing but cache.
        let places = [tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap()];
        for dir in places {
            let file = OsDisk.open(&dir.path().join("f"), OpenMode::Create).unwrap();
            let bytes: Vec<u8> = (0..3_000_001u32).map(|n| n as u8).collect();
            file.pwrite(b"-----x", 0).unwrap();
            file.pwrite_uncached(&bytes, 5).unwrap();
            let read = read_all(&*file).unwrap();
            assert!(read[..5] == *b"-----" && read[5..] == bytes, "in {}", dir.path().display());
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_reservation_of_more_than_there_is_takes_nothing() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = OsDisk.open(&path, OpenMode::Create).unwrap();
        let stat = rustix::fs::statvfs(dir.path()).unwrap();
        // More than an ordinary user may take, and for root perhaps not: the reserve of the file system is not ours.
        let refused = file.fallocate((stat.f_bavail + stat.f_bavail / 8) * stat.f_frsize).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::metadata(&path).unwrap().blocks(), 0);
    }

    #[test]
    fn a_second_lock_is_refused_with_the_holders_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let first = OsDisk.lock(&path, "pid 7").unwrap();
        let refused = OsDisk.lock(&path, "pid 8").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(refused.to_string(), "pid 7");
        drop(first);
        OsDisk.lock(&path, "pid 8").unwrap();
    }

    #[test]
    fn preallocated_files_have_their_size_and_read_as_zeroes() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsDisk.open(&dir.path().join("f"), OpenMode::Create).unwrap();
        file.fallocate(8192).unwrap();
        assert_eq!(file.len().unwrap(), 8192);
        assert_eq!(read_all(&*file).unwrap(), vec![0; 8192]);
    }
}
