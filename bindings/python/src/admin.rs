//! Tenants, keys and secrets, and the client's own tokens.

use acb_sdk::{EnrolmentKey, Identity, KeySpec, Tenant, Tokens};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    call::{Call, limited, nothing, timeout, within},
    client::NativeClient,
    convert::{Options, list, make, time},
};

fn give_tenant(py: Python<'_>, tenant: Tenant) -> PyResult<Py<PyAny>> {
    make(py, "Tenant", |f| {
        f.set_item("id", tenant.id)?;
        f.set_item("name", tenant.name)?;
        f.set_item("created_at", time(py, tenant.created_at)?)
    })
}

fn give_key(py: Python<'_>, key: EnrolmentKey) -> PyResult<Py<PyAny>> {
    make(py, "EnrolmentKey", |f| {
        f.set_item("id", key.id)?;
        f.set_item("label", key.label)?;
        f.set_item("agent_pattern", key.agent_pattern)?;
        f.set_item("roles", key.roles)?;
        f.set_item("created_at", time(py, key.created_at)?)?;
        f.set_item("expires_at", time(py, key.expires_at)?)?;
        f.set_item("revoked", key.revoked)
    })
}

pub(crate) fn give_identity(py: Python<'_>, who: Identity) -> PyResult<Py<PyAny>> {
    make(py, "Identity", |f| {
        f.set_item("agent_id", who.agent_id)?;
        f.set_item("tenant_id", who.tenant_id)?;
        f.set_item("roles", who.roles)?;
        f.set_item("access_expires_at", time(py, who.access_expires_at)?)?;
        f.set_item("refresh_expires_at", time(py, who.refresh_expires_at)?)
    })
}

fn give_tokens(py: Python<'_>, tokens: Tokens) -> PyResult<Py<PyAny>> {
    let identity = give_identity(py, tokens.identity)?;
    make(py, "Tokens", |f| {
        f.set_item("access_token", tokens.access_token)?;
        f.set_item("refresh_token", tokens.refresh_token)?;
        f.set_item("identity", identity)
    })
}

fn give_text(py: Python<'_>, text: String) -> PyResult<Py<PyAny>> {
    Ok(text.into_pyobject(py)?.into_any().unbind())
}

#[pymethods]
impl NativeClient {
    fn auth_tokens(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let tokens = self.core(py, "auth.tokens")?.auth().tokens();
        tokens.map(|t| give_tokens(py, t)).transpose()
    }

    fn identity(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let identity = self.core(py, "client.identity")?.identity();
        identity.map(|who| give_identity(py, who)).transpose()
    }

    fn auth_refresh(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "auth.refresh";
        let auth = self.core(py, operation)?.auth();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { limited(operation, timeout, auth.refresh()).await }, give_identity))
    }

    fn auth_logout(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "auth.logout";
        let auth = self.core(py, operation)?.auth();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { within(timeout, auth.logout()).await }, nothing))
    }

    fn auth_jwks(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "auth.jwks";
        let auth = self.core(py, operation)?.auth();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { within(timeout, auth.jwks()).await }, give_text))
    }

    fn admin_create_tenant(&self, py: Python<'_>, id: String, name: String, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "admin.create_tenant";
        let admin = self.core(py, operation)?.admin();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { within(timeout, admin.create_tenant(id, name)).await }, give_tenant))
    }

    fn admin_tenants(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "admin.tenants";
        let admin = self.core(py, operation)?.admin();
        let timeout = timeout(py, operation, seconds)?;
        let work = async move { within(timeout, admin.tenants().all()).await };
        Ok(Call::new(operation, work, |py, all| list(py, all, give_tenant)))
    }

    fn admin_create_enrolment_key(
        &self,
        py: Python<'_>,
        label: String,
        given: &Bound<'_, PyDict>,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "admin.create_enrolment_key";
        let admin = self.core(py, operation)?.admin();
        let timeout = timeout(py, operation, seconds)?;
        let o = Options::new(py, operation, Some(given));
        let mut spec = KeySpec::new(label);
        if let Some(tenant) = o.text("tenant")? {
            spec = spec.tenant(tenant);
        }
        if let Some(pattern) = o.text("agent_pattern")? {
            spec = spec.agent_pattern(pattern);
        }
        for role in o.texts("roles")?.unwrap_or_default() {
            spec = spec.role(role);
        }
        if let Some(ttl) = o.span("ttl")? {
            spec = spec.ttl(ttl);
        }
        let work = async move { within(timeout, admin.create_enrolment_key(spec)).await };
        Ok(Call::new(operation, work, |py, made| {
            let key = give_key(py, made.key)?;
            make(py, "CreatedKey", |f| {
                f.set_item("secret", made.secret)?;
                f.set_item("key", key)
            })
        }))
    }

    fn admin_enrolment_keys(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "admin.enrolment_keys";
        let admin = self.core(py, operation)?.admin();
        let timeout = timeout(py, operation, seconds)?;
        let work = async move { within(timeout, admin.enrolment_keys().all()).await };
        Ok(Call::new(operation, work, |py, all| list(py, all, give_key)))
    }

    fn admin_revoke_enrolment_key(&self, py: Python<'_>, id: String, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "admin.revoke_enrolment_key";
        let admin = self.core(py, operation)?.admin();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { within(timeout, admin.revoke_enrolment_key(id)).await }, nothing))
    }

    fn admin_set_agent_secret(
        &self,
        py: Python<'_>,
        agent: String,
        roles: Vec<String>,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "admin.set_agent_secret";
        let admin = self.core(py, operation)?.admin();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { within(timeout, admin.set_agent_secret(agent, roles)).await }, give_text))
    }

    fn admin_rotate_signing_key(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "admin.rotate_signing_key";
        let admin = self.core(py, operation)?.admin();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { within(timeout, admin.rotate_signing_key()).await }, give_text))
    }
}
