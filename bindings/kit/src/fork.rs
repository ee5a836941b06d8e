//! What a fork leaves behind. The child has the memory of its parent's client and none of its threads: a call would wait
//! for ever, and a lock that another thread held stays locked. So everything of a client knows the process it was made
//! in, says so with both numbers when it is asked in another, and is leaked there and not dropped.

use std::{
    mem::ManuallyDrop,
    ops::Deref,
    sync::Once,
    sync::atomic::{AtomicU32, Ordering},
};

use acb_sdk::{Error, ErrorCode};

/// Raised in each child, before anything else runs there.
static GENERATION: AtomicU32 = AtomicU32::new(0);

extern "C" fn forked() {
    GENERATION.fetch_add(1, Ordering::SeqCst);
}

#[expect(unsafe_code, reason = "pthread_atfork is not in std")]
fn watch_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is a function of the right type that does one atomic addition, which a child may do.
        unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    });
}

/// The process that something was made in. Asking costs one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    generation: u32,
    pid: u32,
}

impl Home {
    /// This process.
    pub fn here() -> Self {
        watch_forks();
        Self { generation: GENERATION.load(Ordering::Acquire), pid: std::process::id() }
    }

    /// Whether this is still the same process.
    #[inline]
    pub fn is_here(self) -> bool {
        GENERATION.load(Ordering::Acquire) == self.generation
    }

    /// Lets only the process pass that it was made in.
    ///
    /// # Errors
    /// `client_forked`, naming both processes.
    #[inline]
    pub fn check(self, operation: &'static str) -> Result<(), Error> {
        if self.is_here() { Ok(()) } else { Err(self.error(operation)) }
    }

    #[cold]
    fn error(self, operation: &'static str) -> Error {
        let (parent, child) = (self.pid, std::process::id());
        let text =
            format!("the client was made in process {parent} and is used in process {child}, which was forked from it");
        Error::new(ErrorCode::ClientForked, operation, text)
            .with("parent", parent.to_string())
            .with("child", child.to_string())
    }
}

/// Something that is dropped only in the process that it was made in; a child leaks its copy.
#[derive(Debug)]
pub struct Inherited<T> {
    value: ManuallyDrop<T>,
    home: Home,
}

impl<T> Inherited<T> {
    /// Made here.
    pub fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(value), home: Home::here() }
    }

    /// Where it was made.
    pub fn home(&self) -> Home {
        self.home
    }

    /// The thing, in its own process.
    ///
    /// # Errors
    /// `client_forked`, naming both processes.
    #[inline]
    pub fn get(&self, operation: &'static str) -> Result<&T, Error> {
        self.home.check(operation)?;
        Ok(&self.value)
    }
}

/// For reading what no fork harms.
impl<T> Deref for Inherited<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for Inherited<T> {
    #[expect(unsafe_code, reason = "the one place where the value ends")]
    fn drop(&mut self) {
        if self.home.is_here() {
            // SAFETY: dropped here only, and `self` is gone after this.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Noisy<'a>(&'a AtomicU32);

    impl Drop for Noisy<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    #[expect(unsafe_code, reason = "only a fork shows what a fork does")]
    fn a_child_is_told_and_drops_nothing() {
        let drops = AtomicU32::new(0);
        let thing = Inherited::new(Noisy(&drops));
        assert!(thing.get("test").is_ok());
        // SAFETY: the child only does arithmetic and leaves by _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let told = thing.get("test").is_err_and(|e| e.code() == ErrorCode::ClientForked);
            drop(thing);
            let leaked = drops.load(Ordering::SeqCst) == 0;
            // SAFETY: ends the child at once, with nothing of the parent's run down.
            unsafe { libc::_exit(if told && leaked { 7 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child that was just made; the status lives through the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(libc::WEXITSTATUS(status), 7);
        assert!(thing.get("test").is_ok(), "the parent goes on");
        drop(thing);
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    }
}
