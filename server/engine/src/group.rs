//! Which of a subscription's sessions gets what comes next.
//!
//! Sessions share a subscription by credit: the one with most room takes the next run, so that a slow consumer is given
//! less without anybody measuring it. What one session gets, it gets in order.
//!
//! Seam: other policies (exclusive with a standby, overflow, anycast to the least loaded agent that has a capability)
//! are other ways to choose here; a fencing generation for an exclusive holder belongs into [`Session`].

use crate::session::{Session, Sessions};

/// The session with most room, if any has room and passes.
pub(crate) fn pick(members: &[u32], sessions: &Sessions, pass: impl Fn(&Session) -> bool) -> Option<u32> {
    if let [only] = members {
        let fits = sessions.at(*only).is_some_and(|s| s.connected && s.window.room() > 0 && pass(s));
        return fits.then_some(*only);
    }
    let mut best = None;
    for &index in members {
        let Some(session) = sessions.at(index) else { continue };
        let room = session.window.room();
        if session.connected && room > 0 && best.is_none_or(|(_, most)| room > most) && pass(session) {
            best = Some((index, room));
        }
    }
    best.map(|(index, _)| index)
}
