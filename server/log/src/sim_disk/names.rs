//! Names of files and folders, which are durable after a sync of every folder that they touch.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::State;

#[derive(Clone, Debug)]
pub(super) enum NameOp {
    Create(PathBuf, u64),
    Mkdir(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) op: NameOp,
    pub(super) waits_for: BTreeSet<PathBuf>,
}

impl State {
    pub(super) fn submit(&mut self, op: NameOp, dirs: &[&Path]) {
        let waits_for = dirs.iter().filter_map(|p| p.parent()).map(Path::to_path_buf).collect();
        self.pending.push(Pending { op, waits_for });
    }

    /// Carries an operation over to the durable names.
    pub(super) fn apply(&mut self, op: &NameOp) {
        match op {
            NameOp::Create(path, id) => {
                self.durable_names.insert(path.clone(), *id);
            }
            NameOp::Mkdir(path) => {
                self.durable_dirs.insert(path.clone());
            }
            NameOp::Rename(from, to) => {
                if let Some(id) = self.durable_names.remove(from) {
                    self.durable_names.insert(to.clone(), id);
                }
            }
            NameOp::Remove(path) => {
                self.durable_names.remove(path);
            }
        }
    }
}
