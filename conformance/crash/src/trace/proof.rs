//! From calls to the proof: each acknowledgement is found in the bytes that went to the socket, and the message that it
//! names in the bytes that went to the log's file.

use std::collections::{BTreeMap, HashMap};

use acb_proto::v1;
use anyhow::{Context as _, Result, bail};
use prost::Message as _;

use super::parse::Call;

/// Head of an HTTP/2 frame.
const FRAME_HEAD: usize = 9;
/// Type of a frame that carries a stream's bytes.
const DATA: u8 = 0;
/// Says that a data frame is padded.
const PADDED: u8 = 8;
/// Head of a gRPC message.
const MESSAGE_HEAD: usize = 5;

/// What a trace shows.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// Messages that were acknowledged as synced, each after its sync.
    pub synced: usize,
    /// Messages that were acknowledged as written, each after its write.
    pub written: usize,
    /// Of those, how many were not synced by then: their level is another one.
    pub written_unsynced: usize,
    /// What was acknowledged too early.
    pub wrong: Vec<String>,
}

/// Reads the acknowledgements of one publisher, whose message of each number holds `marker(number)`.
///
/// # Errors
/// When an acknowledgement or a message cannot be found: then nothing is proven.
pub fn prove(calls: &[Call], marker: impl Fn(u64) -> String) -> Result<Proof> {
    let writes: Vec<&Call> = calls.iter().filter(|c| is_segment(&c.of) && c.name.starts_with("pwrite")).collect();
    let syncs: Vec<&Call> = calls.iter().filter(|c| matches!(c.name.as_str(), "fdatasync" | "fsync")).collect();
    let mut proof = Proof::default();
    for (left_at, ack) in acks(calls)? {
        for number in ack.counter..ack.counter + u64::from(ack.count) {
            let name = marker(number);
            let holds = |c: &&&Call| c.bytes.windows(name.len()).any(|w| w == name.as_bytes());
            let write =
                writes.iter().find(holds).with_context(|| format!("{name} was acknowledged and never written"))?;
            let written = write.end.filter(|end| *end < left_at);
            let synced = written.and_then(|end| {
                let after = |s: &&&Call| s.of == write.of && s.begin > end && s.end.is_some_and(|e| e < left_at);
                syncs.iter().find(after)
            });
            let shown = |what: &str| {
                format!("{name}: acknowledged on line {}, {what} (written on line {})", left_at + 1, write.begin + 1)
            };
            match ack.durability() {
                v1::Durability::Written if written.is_none() => proof.wrong.push(shown("before its write returned")),
                v1::Durability::Written => {
                    proof.written += 1;
                    proof.written_unsynced += usize::from(synced.is_none());
                }
                v1::Durability::Synced if synced.is_none() => proof.wrong.push(shown("before a sync of it returned")),
                v1::Durability::Synced => proof.synced += 1,
                other => bail!("{name} was acknowledged as {other:?}"),
            }
        }
    }
    Ok(proof)
}

/// Whether a path names a file of the log.
fn is_segment(path: &str) -> bool {
    std::path::Path::new(path).extension().is_some_and(|e| e == "seg")
}

/// Acknowledgements, and the line on which their first byte left.
fn acks(calls: &[Call]) -> Result<Vec<(usize, v1::PublishAck)>> {
    let mut sockets: BTreeMap<&str, Vec<(u8, usize)>> = BTreeMap::new();
    for call in calls.iter().filter(|c| c.of.starts_with("socket:")) {
        sockets.entry(&call.of).or_default().extend(call.bytes.iter().map(|b| (*b, call.begin)));
    }
    let mut out = Vec::new();
    for (socket, bytes) in sockets {
        // The admin listener speaks HTTP/1.
        if bytes.starts_with_bytes(b"HTTP/") {
            continue;
        }
        for message in messages(&bytes).with_context(|| socket.to_owned())? {
            let body: Vec<u8> = message[MESSAGE_HEAD..].iter().map(|(b, _)| *b).collect();
            let response = v1::PublishStreamResponse::decode(&body[..]).context("no PublishStreamResponse")?;
            if let Some(reject) = response.rejects.first() {
                bail!("a publish was refused: {reject:?}");
            }
            out.extend(response.acks.into_iter().map(|ack| (message[0].1, ack)));
        }
    }
    Ok(out)
}

trait Begins {
    fn starts_with_bytes(&self, prefix: &[u8]) -> bool;
}

impl Begins for [(u8, usize)] {
    fn starts_with_bytes(&self, prefix: &[u8]) -> bool {
        self.len() >= prefix.len() && self.iter().zip(prefix).all(|((b, _), p)| b == p)
    }
}

type Traced = Vec<(u8, usize)>;

/// gRPC messages of all streams of a connection, each byte with the line on which it left.
fn messages(mut bytes: &[(u8, usize)]) -> Result<Vec<Traced>> {
    let number = |bytes: &[(u8, usize)]| bytes.iter().fold(0usize, |n, (b, _)| n << 8 | usize::from(*b));
    let mut streams: HashMap<usize, Traced> = HashMap::new();
    let mut order = Vec::new();
    while bytes.len() >= FRAME_HEAD {
        let (len, kind, flags, stream) = (number(&bytes[..3]), bytes[3].0, bytes[4].0, number(&bytes[5..9]));
        let Some(frame) = bytes.get(FRAME_HEAD..FRAME_HEAD + len) else { break };
        if kind == DATA {
            if flags & PADDED != 0 {
                bail!("a padded frame");
            }
            streams.entry(stream).or_insert_with(|| {
                order.push(stream);
                Traced::new()
            });
            streams.entry(stream).or_default().extend_from_slice(frame);
        }
        bytes = &bytes[FRAME_HEAD + len..];
    }
    let mut out = Vec::new();
    for stream in order {
        let mut rest = &streams[&stream][..];
        while rest.len() >= MESSAGE_HEAD {
            let end = MESSAGE_HEAD + number(&rest[1..MESSAGE_HEAD]);
            let Some(message) = rest.get(..end) else { break };
            out.push(message.to_vec());
            rest = &rest[end..];
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "/data/1.seg";

    fn call(name: &str, of: &str, bytes: &[u8], begin: usize, end: usize) -> Call {
        Call { name: name.into(), of: of.into(), bytes: bytes.to_vec(), begin, end: Some(end) }
    }

    fn marker(number: u64) -> String {
        format!("<{number}>")
    }

    /// A frame that acknowledges messages 1 and 2, cut into two calls that begin on the given lines.
    fn answer(level: v1::Durability, first: usize, second: usize) -> Vec<Call> {
        let ack = v1::PublishAck { counter: 1, count: 2, first_seq: 1, durability: level as i32, ..Default::default() };
        let body = v1::PublishStreamResponse { acks: vec![ack], ..Default::default() }.encode_to_vec();
        let message = [&[0, 0, 0, 0, body.len() as u8][..], &body].concat();
        let frame = [&[0, 0, message.len() as u8, DATA, 0, 0, 0, 0, 1][..], &message].concat();
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let all = [&settings[..], &frame].concat();
        let cut = all.len() - 3;
        vec![
            call("writev", "socket:[1]", &all[..cut], first, first),
            call("sendto", "socket:[1]", &all[cut..], second, second),
        ]
    }

    fn told(log: &[Call], answer: &[Call]) -> Proof {
        prove(&[log, answer].concat(), marker).unwrap()
    }

    #[test]
    fn an_acknowledgement_after_write_and_sync_is_proven() {
        let log = [call("pwrite64", LOG, b"..<1>..<2>..", 1, 2), call("fdatasync", LOG, b"", 3, 5)];
        let synced = told(&log, &answer(v1::Durability::Synced, 6, 7));
        assert_eq!((synced.synced, synced.written, synced.wrong.len()), (2, 0, 0));
        let written = told(&log, &answer(v1::Durability::Written, 4, 7));
        assert_eq!((written.written, written.written_unsynced, written.wrong.len()), (2, 2, 0));
    }

    #[test]
    fn an_acknowledgement_that_left_before_its_sync_is_named() {
        let write = call("pwritev", LOG, b"<1><2>", 1, 2);
        for (what, sync) in [
            ("returned after the first byte left", call("fdatasync", LOG, b"", 3, 6)),
            ("was entered before the write returned", call("fdatasync", LOG, b"", 1, 4)),
            ("was of another file", call("fdatasync", "/data/2.seg", b"", 3, 4)),
            ("failed", Call { end: None, ..call("fdatasync", LOG, b"", 3, 4) }),
        ] {
            let proof = told(&[write.clone(), sync], &answer(v1::Durability::Synced, 5, 9));
            assert_eq!((proof.synced, proof.wrong.len()), (0, 2), "a sync that {what} proves nothing");
        }
    }

    #[test]
    fn an_acknowledgement_that_left_before_its_write_is_named() {
        let log = [call("pwrite64", LOG, b"<1>", 1, 2), call("pwrite64", LOG, b"<2>", 4, 6)];
        let proof = told(&log, &answer(v1::Durability::Written, 5, 7));
        assert_eq!((proof.written, proof.wrong.len()), (1, 1), "{:?}", proof.wrong);
        assert!(prove(&answer(v1::Durability::Written, 5, 7), marker).is_err(), "never written at all");
    }
}
