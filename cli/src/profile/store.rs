//! The file of profiles: `$XDG_CONFIG_HOME/acb/profiles.toml`, mode 0600.
//!
//! Whoever changes it holds a lock meanwhile and puts a whole new file in its place, so that commands that run side by
//! side neither lose each other's changes nor read half a file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::PathBuf,
};

use super::Profiles;
use crate::{
    exit::Exit,
    failure::{Failure, Result},
};

const OWNER_ONLY: u32 = 0o600;
const FOLDER_OWNER_ONLY: u32 = 0o700;

/// Where profiles are kept.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    file: PathBuf,
}

impl Store {
    /// The user's own.
    pub(crate) fn of_user() -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let config = set("XDG_CONFIG_HOME").or_else(|| std::env::home_dir().map(|home| home.join(".config")));
        let Some(config) = config else {
            return Err(Failure::own(
                Exit::Failed,
                "there is no home folder to keep profiles in",
                "set XDG_CONFIG_HOME",
            ));
        };
        Ok(Self::at(config.join("acb").join("profiles.toml")))
    }

    /// In a file of that name.
    pub(crate) fn at(file: PathBuf) -> Self {
        Self { file }
    }

    /// All profiles; none when there is no file yet.
    pub(crate) fn load(&self) -> Result<Profiles> {
        let text = match fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Profiles::default()),
            Err(e) => return Err(Failure::file(&self.file, &e)),
        };
        toml::from_str(&text).map_err(|e| {
            // Not the whole error: it quotes the line, and the line may hold a key.
            let sentence = format!("{}: {}", self.file.display(), e.message());
            Failure::own(Exit::Failed, sentence, "mend the file, or remove it and log in again")
        })
    }

    /// Changes profiles while nobody else does.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Profiles) -> Result<T>) -> Result<T> {
        let _lock = self.lock().map_err(|e| Failure::file(&self.file, &e))?;
        let mut profiles = self.load()?;
        let result = change(&mut profiles)?;
        self.save(&profiles).map_err(|e| Failure::file(&self.file, &e))?;
        Ok(result)
    }

    /// Held until the file is dropped.
    fn lock(&self) -> io::Result<File> {
        if let Some(folder) = self.file.parent()
            && !folder.is_dir()
        {
            fs::create_dir_all(folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(FOLDER_OWNER_ONLY))?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(OWNER_ONLY)
            .open(self.file.with_extension("lock"))?;
        lock.lock()?;
        Ok(lock)
    }

    fn save(&self, profiles: &Profiles) -> io::Result<()> {
        let text = toml::to_string_pretty(profiles).map_err(io::Error::other)?;
        let fresh = self.file.with_extension("new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(OWNER_ONLY).open(&fresh)?;
        // One that was left behind may have had another mode.
        file.set_permissions(fs::Permissions::from_mode(OWNER_ONLY))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().join("acb").join("profiles.toml"));
        (dir, store)
    }

    #[test]
    fn what_is_changed_is_read_back_and_nobody_else_may_read_it() {
        let (_dir, store) = store();
        assert_eq!(store.load().unwrap(), Profiles::default());
        let profile = Profile { agent: "planner".into(), key: Some("acb_x".into()), ..Profile::default() };
        store
            .change(|all| {
                all.put("a", profile.clone());
                Ok(())
            })
            .unwrap();
        assert_eq!(store.load().unwrap().pick(None), Some(("a", &profile)));
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.file), 0o600);
        assert_eq!(mode(store.file.parent().unwrap()), 0o700);
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let (_dir, store) = store();
        let refused = store.change(|all| {
            all.put("a", Profile::default());
            Err::<(), _>(Failure::usage("no"))
        });
        assert!(refused.is_err());
        assert_eq!(store.load().unwrap(), Profiles::default());
    }

    #[test]
    fn a_broken_file_is_named_without_its_secrets() {
        let (_dir, store) = store();
        fs::create_dir_all(store.file.parent().unwrap()).unwrap();
        fs::write(&store.file, "[profiles.a]\nkey = \"acb_hush\" oops\n").unwrap();
        let said = store.load().unwrap_err().to_string();
        assert!(said.starts_with(&store.file.display().to_string()), "{said}");
        assert!(!said.contains("hush"), "{said}");
    }

    #[test]
    fn changes_side_by_side_are_all_kept() {
        let (_dir, store) = store();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let store = &store;
                scope.spawn(move || {
                    store
                        .change(|all| {
                            all.put(&format!("p{n}"), Profile::default());
                            Ok(())
                        })
                        .unwrap();
                });
            }
        });
        assert_eq!(store.load().unwrap().profiles.len(), 8);
    }
}
