//! What every use case is told of the call that it serves.

use std::{net::IpAddr, sync::Arc};

use crate::{
    auth::{AuthSession, Principal},
    request_id::RequestId,
};

/// A caller who proved nothing: of login, refresh and the key set.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Names the request.
    pub request_id: RequestId,
    /// Where it comes from, as far as the edge can tell.
    pub address: Option<IpAddr>,
}

/// A call whose caller is known and may make it.
#[derive(Clone, Debug)]
pub struct OpContext {
    /// The call.
    pub caller: Caller,
    /// The session of its token.
    pub session: Arc<AuthSession>,
}

impl OpContext {
    /// Who calls.
    pub fn principal(&self) -> &Principal {
        &self.session.principal
    }

    /// Names the request.
    pub fn request_id(&self) -> RequestId {
        self.caller.request_id
    }
}
