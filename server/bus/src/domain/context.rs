//! What may be said of a context, and who may do what with it.

use std::collections::BTreeSet;

use acb_ports::metadata::{ContextChange, ContextFilter, ContextRelation, ContextScope, ContextSpec};
use acb_types::{AgentId, ErrorCode, GroupName, Sha256Digest, limits};
use sha2::{Digest as _, Sha256};

use super::agent::{at_most, check_metadata, short};
use crate::{
    auth::{Role, Roles},
    error::AppError,
};

/// What somebody wants of a context that is there, or was at a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContextVerb {
    /// To see it, whole or in a list, a history or a watch.
    Read,
    /// To change its payload or what is said of it.
    Update,
    /// To change who may see it.
    Share,
    /// To start its life anew.
    Renew,
    /// To delete it.
    Delete,
}

impl ContextVerb {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Read, Self::Update, Self::Share, Self::Renew, Self::Delete];
}

/// What becomes of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is granted.
    Allow,
    /// It is refused, and the caller may know why: the context is there for him to see.
    Deny,
    /// It is refused as if the context were absent.
    Hide,
}

const WRITERS: Roles = Roles::of(&[Role::Admin, Role::AgentProducer, Role::AgentFull]);
const AGENTS: Roles = Roles::of(&[Role::Admin, Role::AgentProducer, Role::AgentConsumer, Role::AgentFull]);

/// Who may do what with a context. Nothing else decides it: every read, list, watch, stream and write asks here.
///
/// Admins of the tenant may all. Others see what is theirs, shared with them, for a group that admins put them in, or
/// public; of this they write what is theirs or shared to write, and only owners delete and say who else may see it. A
/// role that only looks never writes, whoever shares with it.
pub fn decide(roles: Roles, relation: ContextRelation, scope: ContextScope, verb: ContextVerb) -> Verdict {
    let admin = roles.has(Role::Admin);
    if !admin && relation == ContextRelation::Stranger && scope != ContextScope::Public {
        return Verdict::Hide;
    }
    let owns = admin || relation == ContextRelation::Owner;
    let writes = owns || relation == ContextRelation::Writer;
    let allowed = match verb {
        ContextVerb::Read => true,
        ContextVerb::Update | ContextVerb::Renew => writes && roles.meets(WRITERS),
        ContextVerb::Share => owns && roles.meets(WRITERS),
        ContextVerb::Delete => owns && roles.meets(AGENTS),
    };
    if allowed { Verdict::Allow } else { Verdict::Deny }
}

/// Checks every field of a spec.
///
/// # Errors
/// `field_too_large`, `missing_field` or `invalid_argument`, naming the first field that is wrong.
pub fn check_spec(spec: &ContextSpec) -> Result<(), AppError> {
    short("type", &spec.context_type)?;
    short("content_type", &spec.content_type)?;
    at_most("description", spec.description.len(), limits::DESCRIPTION_BYTES_MAX)?;
    check_labels(&spec.labels)?;
    check_metadata(&spec.metadata)?;
    if let Some(ttl) = spec.ttl
        && ttl > limits::CONTEXT_TTL_MAX
    {
        let (ms, limit) = (ttl.as_millis(), limits::CONTEXT_TTL_MAX.as_millis());
        return Err(AppError::invalid("ttl_ms", format!("of {ms} exceeds limit of {limit}")));
    }
    check_audience("groups", spec.groups.len(), spec.scope == ContextScope::Group, spec.scope)?;
    check_audience("shares", spec.shares.len(), spec.scope == ContextScope::Shared, spec.scope)
}

fn check_audience(field: &'static str, count: usize, wanted: bool, scope: ContextScope) -> Result<(), AppError> {
    at_most(field, count, limits::CONTEXT_AUDIENCE_MAX)?;
    match (wanted, count) {
        (true, 0) => Err(AppError::missing(field)),
        (false, 1..) => Err(AppError::invalid(field, format!("do not go with the scope {}", scope.name()))),
        _ => Ok(()),
    }
}

fn check_labels(labels: &BTreeSet<String>) -> Result<(), AppError> {
    at_most("labels", labels.len(), limits::LABELS_MAX)?;
    for label in labels {
        if label.is_empty() {
            return Err(AppError::invalid("labels", "must not hold an empty one"));
        }
        short("labels", label)?;
    }
    Ok(())
}

/// Checks the conditions of a list or a watch.
///
/// # Errors
/// `field_too_large`, naming the first field that is wrong.
pub fn check_filter(filter: &ContextFilter) -> Result<(), AppError> {
    short("type", filter.context_type.as_deref().unwrap_or_default())?;
    at_most("key_prefix", filter.key_prefix.len(), limits::CONTEXT_KEY_BYTES_MAX)?;
    short("text", filter.text.as_deref().unwrap_or_default())?;
    check_labels(&filter.labels)
}

/// Checks a group's fields.
///
/// # Errors
/// `field_too_large`.
pub fn check_group(description: &str) -> Result<(), AppError> {
    at_most("description", description.len(), limits::DESCRIPTION_BYTES_MAX)
}

/// Checks the agents of one call that changes a group.
///
/// # Errors
/// `field_too_large`.
pub fn check_members(agents: &[AgentId]) -> Result<(), AppError> {
    at_most("agent_ids", agents.len(), limits::GROUP_MEMBERS_PER_CALL_MAX)
}

/// A digest of what was asked, field by field, each with its length, so that no two wishes look alike.
struct Fingerprint(Sha256);

impl Fingerprint {
    fn new(kind: &str) -> Self {
        Self(Sha256::new()).with(kind)
    }

    fn with(mut self, field: impl AsRef<[u8]>) -> Self {
        let field = field.as_ref();
        self.0.update((field.len() as u64).to_be_bytes());
        self.0.update(field);
        self
    }

    fn number(self, n: u64) -> Self {
        self.with(n.to_be_bytes())
    }

    fn all<T: AsRef<[u8]>>(self, fields: impl ExactSizeIterator<Item = T>) -> Self {
        let counted = self.number(fields.len() as u64);
        fields.fold(counted, Self::with)
    }

    fn maybe<T>(self, field: Option<T>, put: impl FnOnce(Self, T) -> Self) -> Self {
        match field {
            None => self.number(0),
            Some(field) => put(self.number(1), field),
        }
    }

    fn audience<'a>(
        self,
        groups: impl ExactSizeIterator<Item = &'a GroupName>,
        shares: impl ExactSizeIterator<Item = (&'a AgentId, bool)>,
    ) -> Self {
        let counted = self.all(groups.map(GroupName::as_str)).number(shares.len() as u64);
        shares.fold(counted, |f, (agent, write)| f.with(agent.as_str()).number(u64::from(write)))
    }

    fn end(self) -> Sha256Digest {
        Sha256Digest(self.0.finalize().into())
    }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn is_write(access: acb_ports::metadata::ShareAccess) -> bool {
    access == acb_ports::metadata::ShareAccess::Write
}

/// Tells the repeat of a creation.
pub fn fingerprint(spec: &ContextSpec, payload: &Sha256Digest) -> Sha256Digest {
    Fingerprint::new("create")
        .with(spec.key.as_ref().map_or("", |key| key.as_str()))
        .with(&spec.context_type)
        .with(spec.scope.name())
        .audience(spec.groups.iter(), spec.shares.iter().map(|(agent, a)| (agent, is_write(*a))))
        .with(&spec.content_type)
        .with(&spec.description)
        .all(spec.labels.iter())
        .all(spec.metadata.keys())
        .all(spec.metadata.values())
        .maybe(spec.ttl, |f, ttl| f.number(millis(ttl)))
        .with(spec.version.to_string())
        .with(payload.as_bytes())
        .end()
}

/// Tells the repeat of an update; `if_rev` is 0 when it is forced.
pub fn update_fingerprint(change: &ContextChange, payload: Option<&Sha256Digest>, if_rev: u64) -> Sha256Digest {
    let shares = |of: &std::collections::BTreeMap<AgentId, acb_ports::metadata::ShareAccess>| {
        of.iter().map(|(agent, a)| (agent.clone(), is_write(*a))).collect::<Vec<_>>()
    };
    Fingerprint::new("update")
        .number(if_rev)
        .maybe(change.scope, |f, scope| f.with(scope.name()))
        .maybe(change.groups.as_ref(), |f, groups| f.audience(groups.iter(), [].into_iter()))
        .maybe(change.shares.as_ref().map(shares), |f, shares| {
            f.audience([].into_iter(), shares.iter().map(|(agent, write)| (agent, *write)))
        })
        .maybe(change.content_type.as_ref(), Fingerprint::with)
        .maybe(change.description.as_ref(), Fingerprint::with)
        .maybe(change.labels.as_ref(), |f, labels| f.all(labels.iter()))
        .maybe(change.metadata.as_ref(), |f, metadata| f.all(metadata.keys()).all(metadata.values()))
        .maybe(change.ttl, |f, ttl| f.maybe(ttl, |f, ttl| f.number(millis(ttl))))
        .maybe(change.version.as_ref(), |f, version| f.with(version.to_string()))
        .maybe(payload, |f, payload| f.with(payload.as_bytes()))
        .end()
}

/// Refuses a payload that is too large for one call.
///
/// # Errors
/// `context_too_large`, naming the limit and the way around it.
pub fn check_payload(bytes: usize) -> Result<(), AppError> {
    if bytes <= limits::CONTEXT_INLINE_BYTES_MAX {
        return Ok(());
    }
    let limit = limits::CONTEXT_INLINE_BYTES_MAX;
    let message = format!("payload of {bytes} bytes exceeds limit of {limit}: stream it through StreamService");
    Err(AppError::new(ErrorCode::ContextTooLarge, message)
        .detail("actual", bytes.to_string())
        .detail("limit", limit.to_string()))
}

/// Checks the largest payload that a watch takes with its events.
///
/// # Errors
/// `invalid_argument` above the largest that an answer can have.
pub fn check_payload_bytes_max(bytes: usize) -> Result<(), AppError> {
    if bytes <= limits::CONTEXT_INLINE_BYTES_MAX {
        return Ok(());
    }
    let limit = limits::CONTEXT_INLINE_BYTES_MAX;
    Err(AppError::invalid("payload_bytes_max", format!("of {bytes} exceeds limit of {limit}"))
        .detail("limit", limit.to_string()))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;

    #[test]
    fn what_nobody_may_see_is_hidden_whatever_is_wanted() {
        for role in [Role::AgentProducer, Role::AgentConsumer, Role::AgentFull, Role::Observer] {
            for scope in [ContextScope::Private, ContextScope::Shared, ContextScope::Group] {
                for verb in ContextVerb::ALL {
                    let verdict = decide(Roles::of(&[role]), ContextRelation::Stranger, scope, verb);
                    assert_eq!(verdict, Verdict::Hide, "{role} {scope:?} {verb:?}");
                }
            }
        }
    }

    #[test]
    fn admins_may_all_and_observers_only_look() {
        for relation in ContextRelation::ALL {
            for scope in ContextScope::ALL {
                for verb in ContextVerb::ALL {
                    assert_eq!(decide(Roles::of(&[Role::Admin]), relation, scope, verb), Verdict::Allow);
                    let observer = decide(Roles::of(&[Role::Observer]), relation, scope, verb);
                    assert!(verb == ContextVerb::Read || observer != Verdict::Allow, "{relation:?} {scope:?} {verb:?}");
                }
            }
        }
    }

    #[test]
    fn a_scope_and_its_audience_go_together() {
        let spec = |change: &dyn Fn(&mut ContextSpec)| {
            let mut spec = ContextSpec::new("x");
            change(&mut spec);
            check_spec(&spec).map_err(|e| e.code())
        };
        let groups = |n: usize| (0..n).map(|i| format!("g{i}").parse().unwrap()).collect::<BTreeSet<GroupName>>();
        assert_eq!(spec(&|_| ()), Ok(()));
        assert_eq!(spec(&|s| s.scope = ContextScope::Group), Err(ErrorCode::MissingField));
        assert_eq!(spec(&|s| s.scope = ContextScope::Shared), Err(ErrorCode::MissingField));
        assert_eq!(spec(&|s| s.groups = groups(1)), Err(ErrorCode::InvalidArgument));
        let group = |n| move |s: &mut ContextSpec| (s.scope, s.groups) = (ContextScope::Group, groups(n));
        assert_eq!(spec(&group(64)), Ok(()));
        assert_eq!(spec(&group(65)), Err(ErrorCode::FieldTooLarge));
        assert_eq!(spec(&|s| s.labels = [String::new()].into()), Err(ErrorCode::InvalidArgument));
        assert_eq!(spec(&|s| s.labels = (0..33).map(|i| i.to_string()).collect()), Err(ErrorCode::FieldTooLarge));
        assert_eq!(spec(&|s| s.ttl = Some(limits::CONTEXT_TTL_MAX)), Ok(()));
        let too_long = limits::CONTEXT_TTL_MAX + Duration::from_millis(1);
        assert_eq!(spec(&|s| s.ttl = Some(too_long)), Err(ErrorCode::InvalidArgument));
    }

    #[test]
    fn every_field_is_part_of_a_fingerprint() {
        let payload = Sha256Digest([1; 32]);
        let base = ContextSpec::new("t");
        let changes: [&dyn Fn(&mut ContextSpec); 11] = [
            &|_| (),
            &|s| s.key = Some("k".parse().unwrap()),
            &|s| s.context_type = "u".into(),
            &|s| s.scope = ContextScope::Public,
            &|s| s.groups = ["g".parse().unwrap()].into(),
            &|s| s.shares = [("a".parse().unwrap(), acb_ports::metadata::ShareAccess::Read)].into(),
            &|s| s.content_type = "c".into(),
            &|s| s.description = "c".into(),
            &|s| s.labels = ["c".to_owned()].into(),
            &|s| s.metadata = [("c".to_owned(), String::new())].into(),
            &|s| s.ttl = Some(Duration::ZERO),
        ];
        let mut seen = HashSet::new();
        for change in changes {
            let mut spec = base.clone();
            change(&mut spec);
            assert!(seen.insert(fingerprint(&spec, &payload)), "{spec:?}");
        }
        assert!(seen.insert(fingerprint(&base, &Sha256Digest([2; 32]))));
        let none = ContextChange::default();
        let updates = [
            update_fingerprint(&none, None, 1),
            update_fingerprint(&none, None, 2),
            update_fingerprint(&none, Some(&payload), 1),
            update_fingerprint(&ContextChange { ttl: Some(None), ..none.clone() }, None, 1),
            update_fingerprint(&ContextChange { description: Some(String::new()), ..none.clone() }, None, 1),
            update_fingerprint(&ContextChange { content_type: Some(String::new()), ..none }, None, 1),
        ];
        for update in updates {
            assert!(seen.insert(update), "{update}");
        }
    }
}
