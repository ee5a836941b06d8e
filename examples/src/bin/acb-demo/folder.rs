//! Which files are surveyed: chosen the same way by everybody who looks, so that the planner and the local survey speak
//! of the same files.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use acb_types::limits::PAYLOAD_BYTES_MAX;
use anyhow::{Context as _, Result, ensure};
use ignore::WalkBuilder;
use serde::Serialize;

/// Files that are surveyed unless `--files` says otherwise.
pub(crate) const FILES: usize = 4000;
/// So much of a file is looked at to tell text from the rest.
const HEAD_BYTES: u64 = 4096;
/// Longest name that is sent along; there is room for it among a message's attributes.
const NAME_BYTES_MAX: usize = 1024;

/// A file to survey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Work {
    /// Path below the folder, with `/` between its parts.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// What was chosen, and what was not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice {
    /// Files to survey, by name.
    pub(crate) works: Vec<Work>,
    /// Their bytes, together.
    pub(crate) bytes: u64,
    /// Text files that would have done too.
    pub(crate) spare: usize,
    /// Files that hold no text, or more of it than fits a message.
    pub(crate) unfit: usize,
}

/// All files of a survey: those of the folder, and among the first of them the extra ones, under `extra/`.
///
/// # Errors
/// As [`choose`].
pub(crate) fn works(dir: &Path, files: usize, extra: &Path) -> Result<Vec<Work>> {
    let mut works = choose(dir, files)?.works;
    let more = choose(extra, usize::MAX)?.works;
    let among = works.len() / 4;
    works.splice(among..among, more.into_iter().map(|work| Work { name: format!("extra/{}", work.name), ..work }));
    Ok(works)
}

/// Chooses at most `files_max` text files below a folder, spread evenly over all there are. Hidden files are left out, and
/// in a git repository what it ignores.
///
/// # Errors
/// When the folder cannot be read or holds no text file.
pub(crate) fn choose(dir: &Path, files_max: usize) -> Result<Choice> {
    ensure!(dir.is_dir(), "{} is no folder", dir.display());
    let mut choice = Choice::default();
    let mut fit = Vec::new();
    for entry in WalkBuilder::new(dir).sort_by_file_path(Path::cmp).build() {
        let entry = entry.with_context(|| format!("cannot read {}", dir.display()))?;
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue;
        }
        match name_below(dir, entry.path()).zip(text_size(entry.path())) {
            Some((name, size)) => fit.push((Work { name, path: entry.into_path() }, size)),
            None => choice.unfit += 1,
        }
    }
    ensure!(!fit.is_empty(), "there is no text file in {}", dir.display());
    let (all, wanted) = (fit.len(), fit.len().min(files_max));
    choice.spare = all - wanted;
    // Evenly: the n-th of the wanted is the file at n/wanted of the way.
    let mut taken = 0;
    for (index, (work, size)) in fit.into_iter().enumerate() {
        if taken < wanted && index == taken * all / wanted {
            taken += 1;
            choice.bytes += size;
            choice.works.push(work);
        }
    }
    Ok(choice)
}

fn name_below(dir: &Path, path: &Path) -> Option<String> {
    let name = path.strip_prefix(dir).ok()?.to_str()?;
    (name.len() <= NAME_BYTES_MAX).then(|| name.replace('\\', "/"))
}

/// Size of a text file that fits a message; `None` for what is neither, or cannot be read.
fn text_size(path: &Path) -> Option<u64> {
    let size = path.metadata().ok()?.len();
    let fits = usize::try_from(size).is_ok_and(|size| size <= PAYLOAD_BYTES_MAX);
    (fits && is_text(path).unwrap_or(false)).then_some(size)
}

/// Text is what has no zero byte in its head, or says that it is UTF-16.
fn is_text(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) || !head.contains(&0))
}

/// The folder of unpacked crates that cargo keeps: real files that every machine has that built this.
///
/// # Errors
/// When there is none.
pub(crate) fn dependency_sources() -> Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let sources = home.context("neither CARGO_HOME nor a home folder is known")?.join("registry/src");
    let registry = std::fs::read_dir(&sources)
        .with_context(|| format!("cannot read {}; name another folder with --dir", sources.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .min();
    registry.with_context(|| format!("{} is empty; name another folder with --dir", sources.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    fn names(choice: &Choice) -> Vec<&str> {
        choice.works.iter().map(|w| w.name.as_str()).collect()
    }

    #[test]
    fn text_of_all_folders_is_chosen_by_name() {
        let dir = folder(&[("b/z.txt", b"z"), ("a.rs", b"fn"), ("b/empty", b""), ("image", b"\x89\0\0")]);
        let choice = choose(dir.path(), 10).unwrap();
        assert_eq!(names(&choice), ["a.rs", "b/empty", "b/z.txt"]);
        assert_eq!((choice.bytes, choice.spare, choice.unfit), (3, 0, 1));
    }

    #[test]
    fn a_bounded_choice_is_spread_over_the_folder() {
        let files: Vec<(String, &[u8])> = (0..10).map(|n| (format!("{n}.txt"), &b"x"[..])).collect();
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (name.as_str(), *content)).collect();
        let dir = folder(&files);
        let choice = choose(dir.path(), 4).unwrap();
        assert_eq!(names(&choice), ["0.txt", "2.txt", "5.txt", "7.txt"]);
        assert_eq!(choice.spare, 6);
    }

    #[test]
    fn a_file_that_does_not_fit_a_message_is_left_out() {
        let large = vec![b'x'; PAYLOAD_BYTES_MAX + 1];
        let dir = folder(&[("large.txt", &large), ("largest.txt", &large[1..])]);
        let choice = choose(dir.path(), 10).unwrap();
        assert_eq!(names(&choice), ["largest.txt"]);
    }

    #[test]
    fn a_folder_without_text_is_refused_by_name() {
        let dir = folder(&[("image", b"\0")]);
        let refused = choose(dir.path(), 10).unwrap_err().to_string();
        assert!(refused.contains(&dir.path().display().to_string()), "{refused}");
        assert!(choose(&dir.path().join("absent"), 10).is_err());
    }
}
