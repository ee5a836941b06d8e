//! Groups: which agents contexts of a group are shared with.

use acb_sdk::{Group, GroupMember};
use pyo3::prelude::*;

use crate::{
    call::{Call, nothing, timeout, within},
    client::NativeClient,
    convert::{list, make, time},
};

fn give(py: Python<'_>, group: Group) -> PyResult<Py<PyAny>> {
    make(py, "Group", |f| {
        f.set_item("name", group.name)?;
        f.set_item("description", group.description)?;
        f.set_item("members", group.members)?;
        f.set_item("created_at", time(py, group.created_at)?)?;
        f.set_item("created_by", group.created_by)?;
        f.set_item("revision", group.revision)
    })
}

fn give_member(py: Python<'_>, member: GroupMember) -> PyResult<Py<PyAny>> {
    make(py, "GroupMember", |f| {
        f.set_item("agent_id", member.agent_id)?;
        f.set_item("since", time(py, member.since)?)
    })
}

#[pymethods]
impl NativeClient {
    fn admin_create_group(
        &self,
        py: Python<'_>,
        name: String,
        description: String,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "admin.create_group";
        let admin = self.core(py, operation)?.admin();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { within(timeout, admin.create_group(name, description)).await }, give))
    }

    fn admin_delete_group(&self, py: Python<'_>, name: String, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "admin.delete_group";
        let admin = self.core(py, operation)?.admin();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { within(timeout, admin.delete_group(name)).await }, nothing))
    }

    fn admin_groups(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "admin.groups";
        let groups = self.core(py, operation)?.admin().groups();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, within(timeout, groups.all()), |py, all| list(py, all, give)))
    }

    fn admin_add_group_members(
        &self,
        py: Python<'_>,
        name: String,
        agents: Vec<String>,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "admin.add_group_members";
        let admin = self.core(py, operation)?.admin();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { within(timeout, admin.add_group_members(name, agents)).await }, give))
    }

    fn admin_remove_group_members(
        &self,
        py: Python<'_>,
        name: String,
        agents: Vec<String>,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "admin.remove_group_members";
        let admin = self.core(py, operation)?.admin();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { within(timeout, admin.remove_group_members(name, agents)).await }, give))
    }

    fn admin_group_members(&self, py: Python<'_>, name: String, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "admin.group_members";
        let members = self.core(py, operation)?.admin().group_members(name);
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, within(timeout, members.all()), |py, all| list(py, all, give_member)))
    }
}
