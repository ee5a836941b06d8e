//! Contexts: what is written, who sees it, what is looked back at, what watchers are told; and groups.

use acb_proto::v1;

use super::{fault, wire};
use crate::{
    Fault,
    wire::{answered, down, up},
};

const CREATE: &str = "/acb.v1.ContextService/CreateContext";
const GET: &str = "/acb.v1.ContextService/GetContext";
const UPDATE: &str = "/acb.v1.ContextService/UpdateContext";
const DELETE: &str = "/acb.v1.ContextService/DeleteContext";
const LIST: &str = "/acb.v1.ContextService/ListContexts";
const HISTORY: &str = "/acb.v1.ContextService/ListContextHistory";
const RENEW: &str = "/acb.v1.ContextService/RenewContextTtl";
const WATCH: &str = "/acb.v1.ContextService/Watch";
const REMOVE_MEMBERS: &str = "/acb.v1.AdminService/RemoveGroupMembers";

pub(super) const FAULTS: &[Fault] = &[
    fault(
        "revisions-are-not-compared",
        "a write for an older revision overwrites what was written meanwhile",
        &["update-needs-the-revision-it-was-made-for"],
        || {
            wire([up(UPDATE, |request: &mut v1::UpdateContextRequest| {
                (request.force, request.if_rev) = (request.force || request.if_rev != 0, 0);
            })])
        },
    ),
    fault(
        "writes-need-no-condition",
        "a write that names neither a revision nor force is done",
        &["update-without-a-condition-is-refused"],
        || {
            wire([
                up(UPDATE, |request: &mut v1::UpdateContextRequest| request.force |= request.if_rev == 0),
                up(DELETE, |request: &mut v1::DeleteContextRequest| request.force |= request.if_rev == 0),
            ])
        },
    ),
    fault(
        "keys-of-updates-are-ignored",
        "an update that is said again is taken for another one",
        &["update-repeats-safely"],
        || wire([up(UPDATE, |request: &mut v1::UpdateContextRequest| request.idempotency_key.clear())]),
    ),
    fault(
        "updates-clear-what-they-do-not-name",
        "a field that an update does not name is emptied",
        &["update-changes-what-is-given"],
        || {
            wire([up(UPDATE, |request: &mut v1::UpdateContextRequest| {
                request.fields.push("content_type".to_owned());
            })])
        },
    ),
    fault("versions-stand-still", "an update leaves the version as it was", &["versions-only-rise"], || {
        wire([down(UPDATE, |response: &mut v1::UpdateContextResponse| {
            let spec = response.context.as_mut().and_then(|context| context.spec.as_mut());
            spec.into_iter().for_each(|spec| spec.version = "0.1.0".to_owned());
        })])
    }),
    fault(
        "creations-are-not-recognised",
        "a context that is shared again is not told to be there already",
        &["creation-repeats-safely"],
        || wire([down(CREATE, |response: &mut v1::CreateContextResponse| response.existed = false)]),
    ),
    fault(
        "looking-back-shows-the-present",
        "a revision that is asked for is not looked at",
        &["history-is-kept-and-read-back", "delete-leaves-a-marker"],
        || wire([up(GET, |request: &mut v1::GetContextRequest| request.at_rev = 0)]),
    ),
    fault("history-is-the-newest-revision", "older revisions are not told", &["history-is-kept-and-read-back"], || {
        wire([down(HISTORY, |response: &mut v1::ListContextHistoryResponse| response.revisions.truncate(1))])
    }),
    fault("deletes-are-not-done", "a delete is answered and not done", &["delete-leaves-a-marker"], || {
        wire([answered(DELETE, |_| Some(v1::DeleteContextResponse { rev: 1 }))])
    }),
    fault(
        "private-contexts-are-shown",
        "what is for its owner alone is for everybody",
        &["private-is-hidden-from-strangers"],
        || {
            wire([up(CREATE, |request: &mut v1::CreateContextRequest| {
                let spec = request.spec.iter_mut().filter(|spec| spec.groups.is_empty() && spec.shares.is_empty());
                spec.for_each(|spec| spec.set_scope(v1::ContextScope::Public));
            })])
        },
    ),
    fault("readers-may-write", "who was let in to read may write", &["shares-let-in-to-read-or-to-write"], || {
        wire([up(CREATE, |request: &mut v1::CreateContextRequest| {
            let shares = request.spec.iter_mut().flat_map(|spec| &mut spec.shares);
            shares.for_each(|share| share.set_access(v1::ContextAccess::Write));
        })])
    }),
    fault("labels-of-a-list-are-ignored", "a list shows what lacks its labels", &["lists-are-filtered"], || {
        wire([up(LIST, |request: &mut v1::ListContextsRequest| request.labels.clear())])
    }),
    fault("lists-end-after-a-page", "a list does not say that there is more", &["lists-are-paged"], || {
        wire([down(LIST, |response: &mut v1::ListContextsResponse| response.next_page_token.clear())])
    }),
    fault(
        "contexts-live-for-ever",
        "the life of a context is not looked at",
        &["life-ends-by-itself-and-is-renewed", "expiry-is-an-event"],
        || {
            wire([
                up(CREATE, |request: &mut v1::CreateContextRequest| {
                    request.spec.iter_mut().for_each(|spec| spec.ttl_ms = 0);
                }),
                up(RENEW, |request: &mut v1::RenewContextTtlRequest| request.ttl_ms = 0),
            ])
        },
    ),
    fault(
        "renewals-are-not-done",
        "a renewal is answered and the context ends all the same",
        &["life-ends-by-itself-and-is-renewed"],
        || wire([answered(RENEW, |_| Some(v1::RenewContextTtlResponse { expires_at_ms: 1 }))]),
    ),
    fault(
        "watches-leave-out-the-state",
        "a watch does not tell what is there when it begins",
        &["watch-brings-the-state-then-changes"],
        || {
            wire([down(WATCH, |response: &mut v1::WatchResponse| {
                response.events.retain(|event| event.kind() != v1::ContextEventKind::State);
            })])
        },
    ),
    fault(
        "watches-tell-no-ends",
        "a watch is not told of deletes",
        &["watch-brings-the-state-then-changes", "watch-shows-only-what-may-be-seen"],
        || {
            wire([down(WATCH, |response: &mut v1::WatchResponse| {
                response.events.retain(|event| event.kind() != v1::ContextEventKind::Deleted);
            })])
        },
    ),
    fault("watches-hear-of-everything", "what narrows a watch is not looked at", &["watch-is-narrowed"], || {
        wire([up(WATCH, |request: &mut v1::WatchRequest| {
            request.key_prefix.clear();
            request.r#type.clear();
            request.owner.clear();
            request.labels.clear();
        })])
    }),
    fault(
        "watches-begin-anew",
        "a watch after a revision begins with the state",
        &["watch-resumes-from-a-revision"],
        || wire([up(WATCH, |request: &mut v1::WatchRequest| request.after_rev = 0)]),
    ),
    fault(
        "watches-tell-twice",
        "a watch is told each change twice",
        &["watch-brings-the-state-then-changes", "watch-resumes-from-a-revision"],
        || {
            wire([down(WATCH, |response: &mut v1::WatchResponse| {
                let events = std::mem::take(&mut response.events);
                response.events = events.into_iter().flat_map(|event| [event.clone(), event]).collect();
            })])
        },
    ),
    fault(
        "members-stay-in-their-groups",
        "an agent that was taken out of a group reads on what is the group's",
        &["group-opens-its-contexts-to-its-members"],
        || {
            wire([answered(REMOVE_MEMBERS, |_| {
                let group = v1::Group { name: "blue".to_owned(), ..Default::default() };
                Some(v1::RemoveGroupMembersResponse { group: Some(group) })
            })])
        },
    ),
];
