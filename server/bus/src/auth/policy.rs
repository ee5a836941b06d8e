//! May they: one table of roles and calls, and nothing else decides by role.
//!
//! What goes beyond roles (whose agent, whose tenant, whose subscription) is a rule of the use case. Tests compare this
//! table with the contract's descriptor, so that no call is without a row, and with `tests/golden/rbac.txt`, which
//! people write by hand.

use super::principal::{Principal, Role, Roles};
use crate::error::AppError;
use acb_types::ErrorCode;

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without a token.
    Public,
    /// Anybody with a good token.
    Authenticated,
    /// Who has one of these roles.
    Roles(Roles),
}

const ADMIN: Access = Access::Roles(Roles::of(&[Role::Admin]));
const AGENTS: Access =
    Access::Roles(Roles::of(&[Role::Admin, Role::AgentProducer, Role::AgentConsumer, Role::AgentFull]));
const PRODUCERS: Access = Access::Roles(Roles::of(&[Role::Admin, Role::AgentProducer, Role::AgentFull]));
const CONSUMERS: Access = Access::Roles(Roles::of(&[Role::Admin, Role::AgentConsumer, Role::AgentFull]));
/// Who may look at what consumers left behind, payloads not included.
const WATCHERS: Access = Access::Roles(Roles::of(&[Role::Admin, Role::AgentConsumer, Role::AgentFull, Role::Observer]));
const EVERYBODY: Access = Access::Roles(Roles::ALL);

macro_rules! verbs {
    ($($verb:ident $path:literal $access:expr;)*) => {
        /// A call of the bus.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each is the call whose path stands beside it")]
        pub enum Verb {
            $($verb),*
        }

        impl Verb {
            /// All calls, by service.
            pub const ALL: &[Self] = &[$(Self::$verb),*];

            /// Its path, as gRPC writes it.
            pub const fn path(self) -> &'static str {
                match self {
                    $(Self::$verb => $path),*
                }
            }

            /// Who may make it.
            pub const fn access(self) -> Access {
                match self {
                    $(Self::$verb => $access),*
                }
            }
        }
    };
}

verbs! {
    RegisterAgent "/acb.v1.AgentRegistry/RegisterAgent" AGENTS;
    GetAgent "/acb.v1.AgentRegistry/GetAgent" EVERYBODY;
    UpdateAgent "/acb.v1.AgentRegistry/UpdateAgent" AGENTS;
    UnregisterAgent "/acb.v1.AgentRegistry/UnregisterAgent" AGENTS;
    Heartbeat "/acb.v1.AgentRegistry/Heartbeat" AGENTS;
    DiscoverAgents "/acb.v1.AgentRegistry/DiscoverAgents" EVERYBODY;
    WatchAgents "/acb.v1.AgentRegistry/WatchAgents" EVERYBODY;

    Send "/acb.v1.MessageService/Send" PRODUCERS;
    PublishStream "/acb.v1.MessageService/PublishStream" PRODUCERS;
    GetMessageStatus "/acb.v1.MessageService/GetMessageStatus" EVERYBODY;

    CreateSubscription "/acb.v1.SubscriptionService/CreateSubscription" CONSUMERS;
    GetSubscription "/acb.v1.SubscriptionService/GetSubscription" EVERYBODY;
    ListSubscriptions "/acb.v1.SubscriptionService/ListSubscriptions" EVERYBODY;
    DeleteSubscription "/acb.v1.SubscriptionService/DeleteSubscription" CONSUMERS;
    Consume "/acb.v1.SubscriptionService/Consume" CONSUMERS;

    ListDeadLetters "/acb.v1.DeadLetterService/ListDeadLetters" WATCHERS;
    GetDeadLetter "/acb.v1.DeadLetterService/GetDeadLetter" CONSUMERS;
    RedriveDeadLetter "/acb.v1.DeadLetterService/RedriveDeadLetter" CONSUMERS;
    DiscardDeadLetter "/acb.v1.DeadLetterService/DiscardDeadLetter" CONSUMERS;

    // Scopes decide what is seen; roles only who may write at all.
    CreateContext "/acb.v1.ContextService/CreateContext" PRODUCERS;
    GetContext "/acb.v1.ContextService/GetContext" EVERYBODY;
    UpdateContext "/acb.v1.ContextService/UpdateContext" PRODUCERS;
    DeleteContext "/acb.v1.ContextService/DeleteContext" AGENTS;
    ListContexts "/acb.v1.ContextService/ListContexts" EVERYBODY;
    ListContextHistory "/acb.v1.ContextService/ListContextHistory" EVERYBODY;
    RenewContextTtl "/acb.v1.ContextService/RenewContextTtl" PRODUCERS;
    WatchContexts "/acb.v1.ContextService/Watch" EVERYBODY;

    StreamContext "/acb.v1.StreamService/StreamContext" PRODUCERS;
    ReceiveContext "/acb.v1.StreamService/ReceiveContext" EVERYBODY;
    GetStreamProgress "/acb.v1.StreamService/GetStreamProgress" AGENTS;
    AbortStream "/acb.v1.StreamService/AbortStream" PRODUCERS;

    Login "/acb.v1.AuthService/Login" Access::Public;
    Refresh "/acb.v1.AuthService/Refresh" Access::Public;
    Logout "/acb.v1.AuthService/Logout" Access::Authenticated;
    GetJwks "/acb.v1.AuthService/GetJwks" Access::Public;

    CreateTenant "/acb.v1.AdminService/CreateTenant" ADMIN;
    ListTenants "/acb.v1.AdminService/ListTenants" ADMIN;
    CreateEnrolmentKey "/acb.v1.AdminService/CreateEnrolmentKey" ADMIN;
    ListEnrolmentKeys "/acb.v1.AdminService/ListEnrolmentKeys" ADMIN;
    RevokeEnrolmentKey "/acb.v1.AdminService/RevokeEnrolmentKey" ADMIN;
    SetAgentSecret "/acb.v1.AdminService/SetAgentSecret" ADMIN;
    RotateSigningKey "/acb.v1.AdminService/RotateSigningKey" ADMIN;
    CreateGroup "/acb.v1.AdminService/CreateGroup" ADMIN;
    DeleteGroup "/acb.v1.AdminService/DeleteGroup" ADMIN;
    ListGroups "/acb.v1.AdminService/ListGroups" ADMIN;
    AddGroupMembers "/acb.v1.AdminService/AddGroupMembers" ADMIN;
    RemoveGroupMembers "/acb.v1.AdminService/RemoveGroupMembers" ADMIN;
    ListGroupMembers "/acb.v1.AdminService/ListGroupMembers" ADMIN;

    // Standard services. The contract that reflection shows is public, as the OpenAPI page is.
    HealthCheck "/grpc.health.v1.Health/Check" Access::Public;
    HealthWatch "/grpc.health.v1.Health/Watch" Access::Public;
    Reflection "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo" Access::Public;
    ReflectionAlpha "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" Access::Public;
}

impl Verb {
    /// The call of a path.
    pub fn from_path(path: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|v| v.path() == path)
    }

    /// Whether it writes to the metadata store and tells delivery or presence of it: such a call is carried through also
    /// when its caller hangs up.
    pub const fn changes_two_places(self) -> bool {
        matches!(
            self,
            Self::RegisterAgent
                | Self::UnregisterAgent
                | Self::CreateSubscription
                | Self::DeleteSubscription
                | Self::RedriveDeadLetter
                | Self::Logout
                | Self::CreateTenant
                | Self::RevokeEnrolmentKey
                | Self::SetAgentSecret
                | Self::RotateSigningKey
        )
    }

    /// Its name without the service, for logs and metrics.
    pub fn name(self) -> &'static str {
        self.path().rsplit('/').next().unwrap_or_default()
    }
}

/// Whether a caller's roles allow a call.
///
/// # Errors
/// `permission_denied`, naming the roles that would do.
pub fn allows(principal: &Principal, verb: Verb) -> Result<(), AppError> {
    match verb.access() {
        Access::Public | Access::Authenticated => Ok(()),
        Access::Roles(wanted) if wanted.meets(principal.roles) => Ok(()),
        Access::Roles(wanted) => {
            let names = wanted.names().join(", ");
            Err(AppError::new(ErrorCode::PermissionDenied, format!("{} needs one of the roles {names}", verb.name()))
                .detail("roles", names))
        }
    }
}
