//! Who calls.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use acb_types::{AgentId, CredentialId, ErrorCode, TenantId, Timestamp};

use crate::error::AppError;

/// What a credential lets its holder do. See [`super::policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// Everything in its tenant; in the tenant `default` also tenants and signing keys.
    Admin = 0,
    /// Registers and sends.
    AgentProducer = 1,
    /// Registers, subscribes and settles.
    AgentConsumer = 2,
    /// Producer and consumer at once.
    AgentFull = 3,
    /// Looks, and changes nothing.
    Observer = 4,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [Self::Admin, Self::AgentProducer, Self::AgentConsumer, Self::AgentFull, Self::Observer];

    /// Its name in tokens, keys and settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::AgentProducer => "agent-producer",
            Self::AgentConsumer => "agent-consumer",
            Self::AgentFull => "agent-full",
            Self::Observer => "observer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = AppError;

    fn from_str(text: &str) -> Result<Self, AppError> {
        Self::ALL.into_iter().find(|r| r.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            AppError::new(ErrorCode::InvalidArgument, format!("no role has this name; roles are {known}"))
                .detail("field", "roles")
        })
    }
}

/// A set of roles.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Roles(u8);

impl Roles {
    /// No role: nothing is allowed.
    pub const NONE: Self = Self(0);
    /// Every role.
    pub const ALL: Self = Self(0b1_1111);

    /// The set of these roles.
    pub const fn of(roles: &[Role]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < roles.len() {
            bits |= 1 << roles[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Whether a role is in it.
    pub const fn has(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }

    /// Whether the two sets have a role in common.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The roles, in their order.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |r| self.has(*r))
    }

    /// The roles' names, as they stand in tokens.
    pub fn names(self) -> Vec<String> {
        self.iter().map(|r| r.name().to_owned()).collect()
    }

    /// Parses names.
    ///
    /// # Errors
    /// `invalid_argument` for a name that is no role's.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, AppError> {
        let roles = names.iter().map(|n| n.as_ref().parse()).collect::<Result<Vec<Role>, _>>()?;
        Ok(Self::of(&roles))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Every token that came of one login; they end together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FamilyId(Arc<str>);

impl FamilyId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for FamilyId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for FamilyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FamilyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "family({})", &self.0)
    }
}

/// Who calls, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Tenant that everything it does happens in.
    pub tenant: TenantId,
    /// Agent that it speaks for.
    pub agent: AgentId,
    /// What it may do.
    pub roles: Roles,
    /// What it proved itself with: whoever registered an id by it may register it again.
    pub credential: CredentialId,
    /// The login that its token came of.
    pub family: FamilyId,
}

impl Principal {
    /// Whether it may act on an agent: its own, or any as an admin.
    pub fn may_act_for(&self, agent: &AgentId) -> bool {
        self.agent == *agent || self.roles.has(Role::Admin)
    }
}

/// A principal and how long its token is good. Shared by everything that came with the token.
#[derive(Debug)]
pub struct AuthSession {
    /// Who calls.
    pub principal: Principal,
    /// When the token ends; the end of time with `--dev`, which knows no tokens.
    pub expires_at: Timestamp,
    revoked: Arc<AtomicBool>,
}

impl AuthSession {
    /// A session whose family's flag is shared with the revocation table.
    pub fn new(principal: Principal, expires_at: Timestamp, revoked: Arc<AtomicBool>) -> Self {
        Self { principal, expires_at, revoked }
    }

    /// Whether it may go on.
    ///
    /// # Errors
    /// `token_revoked`, `token_expired`.
    pub fn check(&self, now: Timestamp) -> Result<(), AppError> {
        if self.is_revoked() {
            Err(AppError::of(ErrorCode::TokenRevoked))
        } else if now >= self.expires_at {
            Err(AppError::of(ErrorCode::TokenExpired))
        } else {
            Ok(())
        }
    }

    /// Whether its token family was taken back. One relaxed load: asked with every batch.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Relaxed)
    }
}
