//! Messages whose time has passed. Looked for only where the frame's flags say that some message has an expiry, or
//! where the class gives messages a time to live.

use std::{ops::Range, time::Duration};

use acb_types::{
    Timestamp,
    batch::Facts,
    frame::{self, flag},
};
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

/// Whether messages have to be looked at one by one. Seam: order keys, delays and attribute conditions join here.
pub(crate) fn may_expire(facts: &Facts) -> bool {
    facts.flags & flag::EXPIRY != 0
}

/// Consecutive messages of one fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The first, as an index into the body.
    pub(crate) index: u32,
    pub(crate) count: u32,
    pub(crate) bytes: Range<usize>,
    pub(crate) expired: bool,
}

/// Parts of a body, in order; nearly always one.
pub(crate) type Parts = SmallVec<[Part; 1]>;

/// Whether everything stored at a time is past its time to live.
pub(crate) fn outlived(facts: &Facts, ttl: Option<Duration>, wall: Timestamp) -> bool {
    ttl.is_some_and(|ttl| facts.stored_at.after(ttl) <= wall)
}

/// Splits a body into messages whose time has passed and others. An unreadable message is let through: nobody here can
/// say that its time has passed.
pub(crate) fn split(body: &Bytes, count: u32, ttl: Option<Duration>, facts: &Facts, wall: Timestamp) -> Parts {
    let whole = |expired| smallvec![Part { index: 0, count, bytes: 0..body.len(), expired }];
    if outlived(facts, ttl, wall) {
        return whole(true);
    }
    if !may_expire(facts) {
        return whole(false);
    }
    let mut out = Parts::new();
    let mut messages = frame::messages(body);
    let (mut index, mut at) = (0, 0);
    while let Some(message) = messages.next() {
        let expires_at = frame::decode(&message).map_or(Timestamp::NONE, |m| m.expires_at);
        let expired = expires_at.is_set() && expires_at <= wall;
        let end = messages.consumed();
        match out.last_mut() {
            Some(part) if part.expired == expired => {
                part.count += 1;
                part.bytes.end = end;
            }
            _ => out.push(Part { index, count: 1, bytes: at..end, expired }),
        }
        index += 1;
        at = end;
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use acb_types::{AgentId, Envelope, Incarnation, batch::Sender};
    use bytes::BytesMut;

    use super::*;

    fn facts(flags: u16) -> Facts {
        let agent: AgentId = "a".parse().unwrap();
        let sender = Arc::new(Sender { agent, incarnation: Incarnation(1) });
        Facts { epoch: 1, stored_at: Timestamp(1000), sender, flags }
    }

    #[test]
    fn a_body_is_split_by_what_has_expired() {
        let mut body = BytesMut::new();
        let mut ends = vec![0];
        for expires_at in [0, 50, 60, 61, 0, 10] {
            let message = Envelope { topic: "t".into(), expires_at: Timestamp(expires_at), ..Envelope::default() };
            frame::encode(&mut body, &message);
            ends.push(body.len());
        }
        let body = body.freeze();
        let part = |from: usize, to: usize, expired| Part {
            index: from as u32,
            count: (to - from) as u32,
            bytes: ends[from]..ends[to],
            expired,
        };
        let now = Timestamp(60);
        assert_eq!(
            split(&body, 6, None, &facts(flag::EXPIRY), now)[..],
            [part(0, 1, false), part(1, 3, true), part(3, 5, false), part(5, 6, true)]
        );
        assert_eq!(split(&body, 6, None, &facts(0), now)[..], [part(0, 6, false)], "the flag says that nobody looks");
        let ttl = Some(Duration::from_millis(60));
        assert_eq!(split(&body, 6, ttl, &facts(0), Timestamp(1059))[..], [part(0, 6, false)]);
        assert_eq!(split(&body, 6, ttl, &facts(0), Timestamp(1060))[..], [part(0, 6, true)]);
    }
}
