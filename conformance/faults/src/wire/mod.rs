//! Between the connections and the routes: what a bus is told and tells, changed on its way.
//!
//! A fault is a few [`Edit`]s, each for the messages of one call going one way, given as the types of the contract. So a
//! lie is a line or two, and everything else about the bus stays what it is.

mod body;
mod layer;

use std::{collections::VecDeque, fmt, sync::Arc, task::Waker};

use bytes::Bytes;
use http::HeaderMap;
use prost::Message;

pub use self::layer::around;

/// One call or stream, as far as edits want to know.
#[derive(Debug, Default)]
pub struct Conversation {
    /// Who calls, as the headers of a client without credentials have it.
    pub tenant: String,
    /// The same.
    pub agent: String,
    /// Whether the end of the client's side is to look like a broken connection.
    pub breaks_at_end: bool,
    /// Numbers that an edit counts by.
    pub count: u64,
    /// The first message up.
    request: Bytes,
    /// What the bus did not say and the client is told all the same.
    injected: VecDeque<Bytes>,
    reader: Option<Waker>,
}

impl Conversation {
    /// Tells the client something that the bus did not say.
    pub fn inject(&mut self, message: &impl Message) {
        self.injected.push_back(message.encode_to_vec().into());
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// The first message that the client sent.
    pub fn request<M: Message + Default>(&self) -> M {
        M::decode(self.request.clone()).unwrap_or_default()
    }
}

type Change = Arc<dyn Fn(&mut Conversation, Bytes) -> Bytes + Send + Sync>;
type Instead = Arc<dyn Fn(&mut Conversation, &str) -> Option<Bytes> + Send + Sync>;

enum What {
    /// The head of every request.
    Head(Arc<dyn Fn(&mut HeaderMap) + Send + Sync>),
    /// Each message from the client.
    Up(Change),
    /// Each message from the bus.
    Down(Change),
    /// A unary call that failed, by its error's code: `Some` is told instead.
    Failed(Instead),
    /// A unary call that the bus never hears of when this answers.
    Answered(Instead),
}

/// One change of what goes over the wire.
pub struct Edit {
    /// Path of the call; empty for all.
    path: &'static str,
    what: What,
}

impl fmt::Debug for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edit").field("path", &self.path).finish_non_exhaustive()
    }
}

fn changing<M: Message + Default>(change: impl Fn(&mut Conversation, &mut M) + Send + Sync + 'static) -> Change {
    Arc::new(move |conversation, bytes| {
        // What does not read is none of ours: the bus says so itself.
        let Ok(mut message) = M::decode(bytes.clone()) else { return bytes };
        change(conversation, &mut message);
        message.encode_to_vec().into()
    })
}

/// Changes each message of a call from the client.
pub fn up<M: Message + Default>(path: &'static str, change: impl Fn(&mut M) + Send + Sync + 'static) -> Edit {
    up_in(path, move |_, message: &mut M| change(message))
}

/// As [`up`], knowing the conversation.
pub fn up_in<M: Message + Default>(
    path: &'static str,
    change: impl Fn(&mut Conversation, &mut M) + Send + Sync + 'static,
) -> Edit {
    Edit { path, what: What::Up(changing(change)) }
}

/// Changes each message of a call from the bus.
pub fn down<M: Message + Default>(path: &'static str, change: impl Fn(&mut M) + Send + Sync + 'static) -> Edit {
    down_in(path, move |_, message: &mut M| change(message))
}

/// As [`down`], knowing the conversation.
pub fn down_in<M: Message + Default>(
    path: &'static str,
    change: impl Fn(&mut Conversation, &mut M) + Send + Sync + 'static,
) -> Edit {
    Edit { path, what: What::Down(changing(change)) }
}

/// Turns a refusal of a unary call, known by its code, into an answer.
pub fn instead_of<M: Message>(
    path: &'static str,
    code: &'static str,
    answer: impl Fn(&mut Conversation) -> M + Send + Sync + 'static,
) -> Edit {
    let what = What::Failed(Arc::new(move |conversation, given| {
        (given == code).then(|| answer(conversation).encode_to_vec().into())
    }));
    Edit { path, what }
}

/// Answers a unary call without asking the bus, where it has an answer.
pub fn answered<M: Message>(
    path: &'static str,
    answer: impl Fn(&mut Conversation) -> Option<M> + Send + Sync + 'static,
) -> Edit {
    let what = What::Answered(Arc::new(move |conversation, _| Some(answer(conversation)?.encode_to_vec().into())));
    Edit { path, what }
}

/// Changes the head of every request.
pub fn heads(change: impl Fn(&mut HeaderMap) + Send + Sync + 'static) -> Edit {
    Edit { path: "", what: What::Head(Arc::new(change)) }
}
