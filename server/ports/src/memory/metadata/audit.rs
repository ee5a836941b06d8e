//! The audit log in memory.

use super::tenant::Tenant;
use crate::metadata::{AuditEntry, AuditRow};

impl Tenant {
    pub(super) fn audit_append(&mut self, entry: AuditEntry) -> AuditRow {
        let row = AuditRow::chained(self.audit.last().map(|last| (last.id, last.digest)), entry);
        self.audit.push(row.clone());
        row
    }

    pub(super) fn audit_list(&self, after: Option<u64>, limit: usize) -> Vec<AuditRow> {
        let later = self.audit.iter().filter(|row| after.is_none_or(|after| row.id > after));
        later.take(limit).cloned().collect()
    }
}
