//! Which of a subscription's sessions gets what comes next.
//!
//! Of the sessions that have room, the one with fewest messages in hand takes the next run, so that a slow consumer is
//! given less without anybody measuring it; among equals the one that was served least recently, so that a group at
//! rest takes turns. What one session gets, it gets in order.
//!
//! Seam: other policies (exclusive with a standby, overflow, anycast to the least loaded agent that has a capability)
//! are other ways to choose here; a fencing generation for an exclusive holder belongs into [`Session`].

use crate::session::{Session, Sessions};

/// The session with fewest messages in hand, if any has room and passes.
pub(crate) fn pick(members: &[u32], sessions: &Sessions, pass: impl Fn(&Session) -> bool) -> Option<u32> {
    let fits = |s: &&Session| s.connected && s.window.room() > 0 && pass(s);
    if let [only] = members {
        return sessions.at(*only).filter(fits).map(|_| *only);
    }
    let open = members.iter().filter_map(|index| Some((*index, sessions.at(*index).filter(fits)?)));
    open.min_by_key(|(_, session)| (session.window.messages, session.turn)).map(|(index, _)| index)
}
