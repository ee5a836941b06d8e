//! Contexts in SQLite: a head per context with what is looked for, and a row per kept revision with everything.

mod list;
mod read;
mod row;
mod write;

pub(super) use self::{
    list::list,
    read::{blobs_named, find, get, get_at, history, next_expiry, revision_at, revision_before},
    write::{create, expire, forget_markers, forget_repeats, remove, renew, update},
};
