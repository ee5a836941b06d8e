//! Digests: of idempotency keys and of producer sessions. What a user chose never lies in memory by the million; what
//! one agent chose can never meet what another chose.

use acb_types::{
    AgentId, Envelope, ProducerKey, SubscriptionName,
    batch::Keyed,
    frame::{self, flag},
    position::MessageId,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

fn first_128(hash: Sha256) -> u128 {
    let out = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&out[..16]);
    u128::from_le_bytes(bytes)
}

fn first_64(hash: Sha256) -> u64 {
    first_128(hash) as u64
}

/// The server's key of a producer session.
pub fn producer_key(agent: &AgentId, producer_id: &[u8]) -> ProducerKey {
    let hash = Sha256::new()
        .chain_update(b"producer\0")
        .chain_update(agent.as_str())
        .chain_update([0])
        .chain_update(producer_id);
    // 0 means "no producer".
    ProducerKey(first_64(hash).max(1))
}

/// Keys of a frame's messages; empty when none has one.
pub fn keys_of(agent: &AgentId, body: &Bytes, flags: u16) -> SmallVec<[Keyed; 0]> {
    if flags & flag::IDEMPOTENCY == 0 {
        return SmallVec::new();
    }
    frame::messages(body)
        .zip(0..)
        .filter_map(|(message, index)| {
            let m = frame::decode(&message).ok()?;
            (!m.idempotency_key.is_empty()).then(|| Keyed { index, ..key_of(agent, &m) })
        })
        .collect()
}

/// Key of one message that has one.
pub(super) fn key_of(agent: &AgentId, m: &Envelope) -> Keyed {
    let key = Sha256::new()
        .chain_update(b"user\0")
        .chain_update(agent.as_str())
        .chain_update([0])
        .chain_update(m.idempotency_key.as_bytes());
    let body = Sha256::new().chain_update(m.topic.as_bytes()).chain_update([0]).chain_update(&m.payload);
    Keyed { index: 0, key: first_128(key), body: first_64(body) }
}

/// Key of one of the two records of a dead letter: a crash between writing it and noting it must not double it.
pub(super) fn dead_letter_key(subscription: &SubscriptionName, message: MessageId, index: u32) -> Keyed {
    let text = format!("dead-letter\0{subscription}\0{}/{}/{}\0{index}", message.class, message.partition, message.seq);
    Keyed { index, key: first_128(Sha256::new().chain_update(text)), body: 0 }
}

/// Key of a redrive: twice redriven is once delivered.
pub(super) fn redrive_key(dead_letter: MessageId) -> Keyed {
    let text = format!("redrive\0{}/{}", dead_letter.partition, dead_letter.seq);
    Keyed { index: 0, key: first_128(Sha256::new().chain_update(text)), body: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_agent_can_meet_anothers_key_or_producer() {
        let (a, b) = ("a".parse().unwrap(), "a.b".parse().unwrap());
        let m = |key: &str| Envelope { idempotency_key: key.into(), ..Envelope::default() };
        assert_ne!(key_of(&a, &m("k")).key, key_of(&b, &m("k")).key);
        assert_ne!(producer_key(&a, b"x"), producer_key(&b, b"x"));
        assert_eq!(key_of(&a, &m("k")), key_of(&a, &m("k")));
    }
}
