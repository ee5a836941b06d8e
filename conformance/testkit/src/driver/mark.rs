//! The mark of a world in every payload: what was sent in one tenant and comes in another is found wherever it comes.

use bytes::Bytes;
use serde_json::{Value, json};

use super::args::{Args, BAD_SCENARIO};
use crate::raw::Failure;

/// Between a payload and its mark.
const SIGN: u8 = 0x1f;
/// Payloads up to this size are shown as they are; of others, the size.
const SHOWN_BYTES: usize = 256;

/// Names a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// The mark of a world.
    pub fn new(world: impl Into<String>) -> Self {
        Self(world.into())
    }

    /// What the world is called.
    pub fn name(&self) -> &str {
        &self.0
    }

    fn seal(&self, body: &[u8]) -> Bytes {
        let mut out = body.to_vec();
        out.push(SIGN);
        out.extend_from_slice(self.0.as_bytes());
        out.into()
    }

    /// The payload that a step gives: a text, or `{bytes: n}` for one of that size, mark included.
    ///
    /// # Errors
    /// When it is neither.
    pub fn payload(&self, args: &Args, number: u64) -> Result<Bytes, Failure> {
        let bad = |v: &Value| Failure::own(BAD_SCENARIO, format!("payload takes a text or {{bytes: n}}, not {v}"));
        match args.get("payload") {
            None => Ok(self.seal(b"")),
            Some(Value::String(text)) => Ok(self.seal(text.replace("{i}", &number.to_string()).as_bytes())),
            Some(value) => {
                let size = value.get("bytes").and_then(Value::as_u64).ok_or_else(|| bad(value))? as usize;
                let body = size.checked_sub(self.0.len() + 1).ok_or_else(|| bad(value))?;
                Ok(self.seal(&vec![b'x'; body]))
            }
        }
    }

    /// A payload as results show it.
    ///
    /// # Errors
    /// When it bears the mark of another world, or none.
    pub fn open(&self, payload: &[u8]) -> Result<Value, Failure> {
        let stranger = |what: String| Err(Failure::own("foreign_payload", what));
        let Some(at) = payload.iter().rposition(|b| *b == SIGN) else {
            return stranger(format!("a payload of {} bytes without a mark", payload.len()));
        };
        if &payload[at + 1..] != self.0.as_bytes() {
            let mark = String::from_utf8_lossy(&payload[at + 1..]).into_owned();
            return stranger(format!("a payload of world {mark:?} in world {:?}", self.0));
        }
        if at > SHOWN_BYTES {
            return Ok(json!({ "bytes": payload.len() }));
        }
        Ok(Value::String(String::from_utf8_lossy(&payload[..at]).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(payload: Value) -> Args {
        Args::from(json!({ "payload": payload }).as_object().unwrap().clone())
    }

    #[test]
    fn a_payload_goes_round_inside_its_world() {
        let left = Mark::new("left");
        let sent = left.payload(&args(json!("n{i}")), 3).unwrap();
        assert_eq!(left.open(&sent).unwrap(), json!("n3"));
    }

    #[test]
    fn a_payload_of_another_world_is_found() {
        let sent = Mark::new("left").payload(&args(json!("x")), 0).unwrap();
        assert_eq!(Mark::new("right").open(&sent).unwrap_err().code, "foreign_payload");
        assert_eq!(Mark::new("right").open(b"bare").unwrap_err().code, "foreign_payload");
    }

    #[test]
    fn a_payload_of_a_size_has_that_size() {
        let mark = Mark::new("left");
        let sent = mark.payload(&args(json!({"bytes": 1000})), 0).unwrap();
        assert_eq!(sent.len(), 1000);
        assert_eq!(mark.open(&sent).unwrap(), json!({"bytes": 1000}));
    }
}
