//! Open files: a connection is one, and many systems allow a process 1,024 unless it asks for more.

/// Raises the soft limit of open files to the hard one. Answers with what holds then, when it can be told.
#[expect(unsafe_code, reason = "the standard library has no call for resource limits")]
pub fn raise() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a whole `rlimit` that lives through the call, and getrlimit writes nothing else.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return None;
    }
    if limit.rlim_cur < limit.rlim_max {
        let wanted = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
        // SAFETY: `wanted` is a whole `rlimit` that lives through the call, which only reads it.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) } == 0 {
            limit.rlim_cur = limit.rlim_max;
        }
    }
    Some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_limit_is_known_and_stays_raised() {
        let raised = super::raise();
        assert!(raised.is_some_and(|n| n >= 256), "{raised:?}");
        assert_eq!(super::raise(), raised);
    }
}
