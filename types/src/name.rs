//! Names that people choose: topics, topic filters, subscription names, capabilities.

use std::{fmt, str::FromStr, sync::Arc};

use crate::id::AgentId;

/// Longest topic, in bytes.
pub const TOPIC_BYTES_MAX: usize = 512;
/// Most tokens in a topic.
pub const TOPIC_TOKENS_MAX: usize = 32;
/// Most tokens of an agent id or a capability: the bus puts up to three tokens of its own before them and the whole must
/// be a topic.
pub const ID_TOKENS_MAX: usize = 16;
/// Longest subscription name, in bytes.
pub const SUBSCRIPTION_NAME_BYTES_MAX: usize = 128;
/// First token of the bus's own topics. Users can neither publish there nor subscribe, except through the verbs that
/// stand for it (send, broadcast, reply).
pub const RESERVED_TOKEN: &str = "$acb";

const INBOX: &str = "$acb.inbox.";
const REPLY: &str = "$acb.reply.";
const DEAD_LETTERS: &str = "$acb.dlq.";
const REDRIVE: &str = "$acb.redrive.";
const CAPABILITY: &str = "$acb.cap.";
const ALL: &str = "$acb.all";

/// Why a text is not the name it was meant to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing was given.
    #[error("{what} is empty")]
    Empty {
        /// Which name.
        what: &'static str,
    },
    /// More bytes than the limit.
    #[error("{what} of {bytes} bytes exceeds limit of {limit}")]
    TooLong {
        /// Which name.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// A character that the grammar does not allow.
    #[error("{what} has a character that is not allowed at byte {at}")]
    Character {
        /// Which name.
        what: &'static str,
        /// The byte where it stands.
        at: usize,
    },
    /// Two dots in a row, or a dot at an end.
    #[error("{what} has an empty token at byte {at}")]
    EmptyToken {
        /// Which name.
        what: &'static str,
        /// The byte where it stands.
        at: usize,
    },
    /// More tokens than the limit.
    #[error("{what} of {tokens} tokens exceeds limit of {limit}")]
    TooManyTokens {
        /// Which name.
        what: &'static str,
        /// How many there are.
        tokens: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A wildcard where only a concrete topic can stand.
    #[error("{what} has a wildcard at byte {at}: wildcards belong to subscriptions, a publish names one topic")]
    Wildcard {
        /// Which name.
        what: &'static str,
        /// The byte where it stands.
        at: usize,
    },
    /// `>` before the end.
    #[error("{what} has '>' at byte {at}, before its end")]
    TailWildcard {
        /// Which name.
        what: &'static str,
        /// The byte where it stands.
        at: usize,
    },
    /// The bus's own tree.
    #[error("{what} is in the reserved tree $acb.")]
    Reserved {
        /// Which name.
        what: &'static str,
    },
    /// Not of the form that it must have.
    #[error("{what} must have the form {shape}")]
    Shape {
        /// Which name.
        what: &'static str,
        /// The form.
        shape: &'static str,
    },
}

impl InvalidName {
    /// Which name it is about, such as `topic`.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Empty { what }
            | Self::TooLong { what, .. }
            | Self::Character { what, .. }
            | Self::EmptyToken { what, .. }
            | Self::TooManyTokens { what, .. }
            | Self::Wildcard { what, .. }
            | Self::TailWildcard { what, .. }
            | Self::Reserved { what }
            | Self::Shape { what, .. } => what,
        }
    }
}

/// Walks dot tokens; `wild` says whether `*` and a last `>` may stand as tokens.
fn check_tokens(what: &'static str, text: &str, wild: bool) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty { what });
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(InvalidName::TooLong { what, bytes: text.len(), limit: TOPIC_BYTES_MAX });
    }
    let (mut start, mut tokens) = (0, 0);
    for token in text.split('.') {
        tokens += 1;
        if tokens > TOPIC_TOKENS_MAX {
            return Err(InvalidName::TooManyTokens { what, tokens: text.split('.').count(), limit: TOPIC_TOKENS_MAX });
        }
        if token.is_empty() {
            return Err(InvalidName::EmptyToken { what, at: start });
        }
        if token == "*" || token == ">" {
            if !wild {
                return Err(InvalidName::Wildcard { what, at: start });
            }
            if token == ">" && start + 1 != text.len() {
                return Err(InvalidName::TailWildcard { what, at: start });
            }
        } else if let Some((at, _)) =
            token.char_indices().find(|(_, c)| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>'))
        {
            return Err(InvalidName::Character { what, at: start + at });
        }
        start += token.len() + 1;
    }
    Ok(())
}

/// Checks that an id of dot tokens can stand inside a topic of the bus's own.
pub(crate) fn check_id_tokens(what: &'static str, text: &str) -> Result<(), InvalidName> {
    let mut at = 0;
    for (tokens, token) in text.split('.').enumerate() {
        if tokens == ID_TOKENS_MAX {
            let tokens = text.split('.').count();
            return Err(InvalidName::TooManyTokens { what, tokens, limit: ID_TOKENS_MAX });
        }
        if token.is_empty() {
            return Err(InvalidName::EmptyToken { what, at });
        }
        at += token.len() + 1;
    }
    Ok(())
}

/// Where a message goes: dot tokens, 1 to 32, at most 512 bytes, case-sensitive, no wildcards. Tokens are any UTF-8
/// without white space, control characters, dots, `*` and `>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses a topic of a user, who may not name the bus's own tree.
    ///
    /// # Errors
    /// Says what is wrong and at which byte.
    pub fn user(text: &str) -> Result<Self, InvalidName> {
        let topic: Self = text.parse()?;
        if is_reserved(text) { Err(InvalidName::Reserved { what: "topic" }) } else { Ok(topic) }
    }

    /// Whether a text is a topic, without keeping it: the hot path checks slices of frames.
    ///
    /// # Errors
    /// Says what is wrong and at which byte.
    pub fn check(text: &str) -> Result<(), InvalidName> {
        Self::check_as("topic", text)
    }

    /// As [`Topic::check`], with the name that the error gives it.
    pub(crate) fn check_as(what: &'static str, text: &str) -> Result<(), InvalidName> {
        check_tokens(what, text, false)
    }

    /// The topic of an agent's inbox.
    pub fn inbox(agent: &AgentId) -> Self {
        Self(format!("{INBOX}{agent}").into())
    }

    /// The topic that carries replies to an agent's requests.
    pub fn reply(agent: &AgentId) -> Self {
        Self(format!("{REPLY}{agent}").into())
    }

    /// The topic of broadcasts, which every inbox hears.
    pub fn all() -> Self {
        Self(ALL.into())
    }

    /// The topic of a capability's anycast.
    pub fn capability(capability: &Capability) -> Self {
        Self(format!("{CAPABILITY}{capability}").into())
    }

    /// The dead-letter queue of a subscription.
    pub fn dead_letters(subscription: &SubscriptionName) -> Self {
        Self(format!("{DEAD_LETTERS}{subscription}").into())
    }

    /// Where a redriven dead letter reaches its one subscription and no other.
    pub fn redrive(subscription: &SubscriptionName) -> Self {
        Self(format!("{REDRIVE}{subscription}").into())
    }

    /// What kind of address this is.
    pub fn address(&self) -> Address<'_> {
        Address::of(&self.0)
    }
}

/// A topic seen as an address. Borrowed: the hot path asks this of raw bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address<'a> {
    /// One agent's inbox.
    Inbox(&'a str),
    /// Replies to one agent's requests.
    Reply(&'a str),
    /// Every agent of the tenant.
    All,
    /// One live agent that has the capability.
    Capability(&'a str),
    /// A subscription's dead letters.
    DeadLetters(&'a str),
    /// One subscription, after a redrive.
    Redrive(&'a str),
    /// A topic of users.
    Topic(&'a str),
    /// In the reserved tree, but nothing the bus knows.
    Unknown(&'a str),
}

impl<'a> Address<'a> {
    /// Checks that a reply can be sent there: a request must not make its answerer speak to the bus's own places. Does not
    /// check the grammar.
    pub(crate) fn check_reply_to(topic: &str) -> Result<(), InvalidName> {
        match Address::of(topic) {
            Address::Unknown(_) | Address::DeadLetters(_) | Address::Redrive(_) => {
                Err(InvalidName::Reserved { what: "reply_to" })
            }
            _ => Ok(()),
        }
    }

    /// Sorts a topic's text. Does not check the grammar.
    pub fn of(topic: &'a str) -> Self {
        if !is_reserved(topic) {
            return Self::Topic(topic);
        }
        if topic == ALL {
            return Self::All;
        }
        if let Some(a) = topic.strip_prefix(INBOX) {
            return Self::Inbox(a);
        }
        if let Some(a) = topic.strip_prefix(REPLY) {
            return Self::Reply(a);
        }
        if let Some(c) = topic.strip_prefix(CAPABILITY) {
            return Self::Capability(c);
        }
        if let Some(s) = topic.strip_prefix(DEAD_LETTERS) {
            return Self::DeadLetters(s);
        }
        if let Some(s) = topic.strip_prefix(REDRIVE) {
            return Self::Redrive(s);
        }
        Self::Unknown(topic)
    }
}

/// Whether a topic or filter is in the bus's own tree.
pub fn is_reserved(topic: &str) -> bool {
    topic.strip_prefix(RESERVED_TOKEN).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl FromStr for Topic {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        check_tokens("topic", text, false)?;
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic({})", &self.0)
    }
}

impl AsRef<str> for Topic {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// What a subscription hears: a topic in which `*` stands for one token and a last `>` for one or more.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter(Arc<str>);

impl TopicFilter {
    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses a filter of a user, who may not listen to the bus's own tree.
    ///
    /// # Errors
    /// Says what is wrong and at which byte.
    pub fn user(text: &str) -> Result<Self, InvalidName> {
        let filter: Self = text.parse()?;
        if is_reserved(text) { Err(InvalidName::Reserved { what: "topic filter" }) } else { Ok(filter) }
    }

    /// Whether the filter hears a topic. A filter whose first token is a wildcard does not hear the reserved tree.
    pub fn matches(&self, topic: &str) -> bool {
        let mut wanted = self.0.split('.');
        let mut given = topic.split('.');
        if is_reserved(topic) && !is_reserved(&self.0) {
            return false;
        }
        loop {
            match (wanted.next(), given.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some("*"), Some(_)) => {}
                (Some(w), Some(g)) if w == g => {}
                _ => return false,
            }
        }
    }

    /// Whether it has no wildcard, so that it hears one topic only.
    pub fn is_literal(&self) -> bool {
        !self.0.split('.').any(|t| t == "*" || t == ">")
    }
}

impl From<Topic> for TopicFilter {
    fn from(topic: Topic) -> Self {
        Self(topic.0)
    }
}

impl FromStr for TopicFilter {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        check_tokens("topic filter", text, true)?;
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "filter({})", &self.0)
    }
}

/// One token of 1 to 128 bytes (no dots), or a reserved `$…` name that the bus made.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionName(Arc<str>);

impl SubscriptionName {
    /// The implicit subscription on an agent's inbox and on broadcasts.
    pub fn inbox(agent: &AgentId) -> Self {
        Self(format!("$inbox.{agent}").into())
    }

    /// The implicit subscription on replies to an agent's requests.
    pub fn reply(agent: &AgentId) -> Self {
        Self(format!("$reply.{agent}").into())
    }

    /// Parses a name that a user chose: `[A-Za-z0-9][A-Za-z0-9_-]{0,127}`.
    ///
    /// # Errors
    /// Says what is wrong and at which byte.
    pub fn user(text: &str) -> Result<Self, InvalidName> {
        const WHAT: &str = "subscription name";
        if text.is_empty() {
            return Err(InvalidName::Empty { what: WHAT });
        }
        if text.len() > SUBSCRIPTION_NAME_BYTES_MAX {
            return Err(InvalidName::TooLong { what: WHAT, bytes: text.len(), limit: SUBSCRIPTION_NAME_BYTES_MAX });
        }
        for (at, b) in text.bytes().enumerate() {
            if !(b.is_ascii_alphanumeric() || at > 0 && matches!(b, b'_' | b'-')) {
                return Err(InvalidName::Character { what: WHAT, at });
            }
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the bus made it.
    pub fn is_implicit(&self) -> bool {
        self.0.starts_with('$')
    }
}

impl FromStr for SubscriptionName {
    type Err = InvalidName;

    /// Takes users' names and the bus's own `$inbox.<agent>` and `$reply.<agent>`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        for prefix in ["$inbox.", "$reply."] {
            if let Some(agent) = text.strip_prefix(prefix) {
                agent.parse::<AgentId>()?;
                return Ok(Self(text.into()));
            }
        }
        Self::user(text)
    }
}

impl fmt::Display for SubscriptionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SubscriptionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subscription({})", &self.0)
    }
}

/// Something an agent can do: 1 to 16 dot tokens of `[a-z0-9_-]`, at most 128 bytes, such as `code.review`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(Arc<str>);

impl Capability {
    /// The capability as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Capability {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        const WHAT: &str = "capability";
        check_tokens(WHAT, text, false)?;
        if text.len() > 128 {
            return Err(InvalidName::TooLong { what: WHAT, bytes: text.len(), limit: 128 });
        }
        check_id_tokens(WHAT, text)?;
        match text
            .bytes()
            .position(|b| !(b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')))
        {
            Some(at) => Err(InvalidName::Character { what: WHAT, at }),
            None => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
