//! Ways to wake a guest: a descriptor that becomes readable (Python, and whoever polls), or a function (Node, Go).

use std::{
    fmt, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    sync::Arc,
};

use crate::queue::Wake;

/// A descriptor that is readable while the guest was told and has not cleared it: an eventfd on Linux, a pipe elsewhere.
///
/// Cheap to clone; the descriptor lives as long as the last clone.
#[derive(Clone, Debug)]
pub struct WakeFd(Arc<Ends>);

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    /// The same as `read` for an eventfd.
    write: Option<OwnedFd>,
}

impl WakeFd {
    /// A descriptor of its own, non-blocking and closed on exec.
    ///
    /// # Errors
    /// When the process has no more descriptors.
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "eventfd is not in std")]
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed; the result is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made and nobody else has it.
        let read = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(Arc::new(Ends { read, write: None })))
    }

    /// A pipe of its own, non-blocking and closed on exec.
    ///
    /// # Errors
    /// When the process has no more descriptors.
    #[cfg(not(target_os = "linux"))]
    #[expect(unsafe_code, reason = "flags of a pipe are not in std")]
    pub fn new() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for the two descriptors that are written.
        if unsafe { libc::pipe(ends.as_mut_ptr()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both were just made and nobody else has them.
        let (read, write) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
        for end in [&read, &write] {
            // SAFETY: the descriptor is open; these commands take no pointers.
            let set = unsafe {
                libc::fcntl(end.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) >= 0
                    && libc::fcntl(end.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) >= 0
            };
            if !set {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self(Arc::new(Ends { read, write: Some(write) })))
    }

    /// What the guest watches. Closed with the last clone.
    pub fn fd(&self) -> RawFd {
        self.0.read.as_raw_fd()
    }

    /// Makes it unreadable again. Clear it *before* draining: a wake that comes between the two is then not lost.
    #[expect(unsafe_code, reason = "reads into a buffer on the stack")]
    pub fn clear(&self) {
        let mut buffer = [0_u8; 8];
        // A pipe may hold several wakes of older rounds, an eventfd gives them as one number.
        // SAFETY: the buffer has the length that is given and lives through the call.
        while unsafe { libc::read(self.fd(), buffer.as_mut_ptr().cast(), buffer.len()) } > 0 {
            if self.0.write.is_none() {
                break;
            }
        }
    }
}

impl Wake for WakeFd {
    #[expect(unsafe_code, reason = "writes from a buffer on the stack")]
    fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        let fd = self.0.write.as_ref().unwrap_or(&self.0.read).as_raw_fd();
        // A full pipe or counter is readable already, which is all that is wanted.
        // SAFETY: the buffer has the length that is given and lives through the call.
        let _ = unsafe { libc::write(fd, one.as_ptr().cast(), one.len()) };
    }
}

/// A function that tells the guest: napi's thread-safe function, or a C callback that fills a channel of one slot.
pub struct Callback<F>(pub F);

impl<F: Fn() + Send + Sync> Wake for Callback<F> {
    fn wake(&self) {
        (self.0)();
    }
}

impl<F> fmt::Debug for Callback<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "poll(2) tells whether a descriptor is readable")]
mod tests {
    use super::*;

    fn readable(fd: RawFd) -> bool {
        let mut one = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry is given and lives through the call.
        unsafe { libc::poll(&raw mut one, 1, 0) == 1 }
    }

    #[test]
    fn a_descriptor_is_readable_from_a_wake_until_it_is_cleared() {
        let wake = WakeFd::new().unwrap();
        assert!(!readable(wake.fd()));
        wake.wake();
        wake.wake();
        assert!(readable(wake.fd()));
        wake.clear();
        assert!(!readable(wake.fd()), "two wakes are cleared together");
        wake.clear();
        wake.wake();
        assert!(readable(wake.fd()));
    }
}
