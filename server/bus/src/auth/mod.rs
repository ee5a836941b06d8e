//! Who calls, and may they: [`authenticator`] makes a [`Principal`] of a request, [`policy`] decides by its roles.
//!
//! Everything that a serving thread asks of this room is synchronous and answers from memory: no argon2, no database.
//! What is slow (logins, refreshes) lives in `app::session` and uses [`credential`] on a blocking thread.

pub mod authenticator;
pub mod credential;
pub mod keyring;
pub mod policy;
pub mod principal;
pub mod rate;
pub mod revocation;

pub use authenticator::{Authenticator, Mode};
pub use policy::Verb;
pub use principal::{AuthSession, FamilyId, Principal, Role, Roles};
