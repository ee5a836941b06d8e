//! The work itself: what one file is. Pure, so that a worker far away and one local process must come to the same result.

use std::{collections::HashMap, fmt, path::Path, sync::LazyLock};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What a survey finds out about a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// Language, by the file's name alone.
    pub(crate) language: String,
    /// Lines; a last line without an end counts.
    pub(crate) lines: u64,
    /// Characters of the longest line, its end not counted.
    pub(crate) longest_line: u64,
    /// SHA-256 of the bytes, in hex.
    pub(crate) sha256: String,
}

/// Why a file cannot be surveyed, today or tomorrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// UTF-16 with an odd number of bytes.
    HalfCharacter {
        /// Bytes of the file.
        bytes: usize,
    },
    /// UTF-16 with one half of a surrogate pair.
    LoneSurrogate,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HalfCharacter { bytes } => {
                write!(f, "says it is UTF-16 and ends in the middle of a character, at byte {bytes}")
            }
            Self::LoneSurrogate => f.write_str("says it is UTF-16 and holds half of a surrogate pair"),
        }
    }
}

/// Surveys one file.
///
/// # Errors
/// When the file says that it is UTF-16 and is not. Anything else is taken as UTF-8, where a byte that is none counts as
/// one character.
pub(crate) fn survey(name: &str, content: &[u8]) -> Result<Finding, Unreadable> {
    let (lines, longest_line) = match content {
        [0xff, 0xfe, rest @ ..] => measure(&utf16(rest, u16::from_le_bytes)?),
        [0xfe, 0xff, rest @ ..] => measure(&utf16(rest, u16::from_be_bytes)?),
        _ => measure(&String::from_utf8_lossy(content)),
    };
    Ok(Finding {
        language: language(name).to_owned(),
        lines,
        longest_line,
        sha256: hex::encode(Sha256::digest(content)),
    })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, Unreadable> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        // The mark's two bytes are part of the file.
        return Err(Unreadable::HalfCharacter { bytes: bytes.len() + 2 });
    }
    let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
    String::from_utf16(&units).map_err(|_| Unreadable::LoneSurrogate)
}

fn measure(text: &str) -> (u64, u64) {
    text.lines().fold((0, 0), |(lines, longest), line| (lines + 1, longest.max(line.chars().count() as u64)))
}

/// What names say, for both languages that surveys are written in.
#[derive(Debug, Deserialize)]
struct Languages {
    /// By names that say more than their endings do.
    names: HashMap<String, String>,
    /// By the ending of a name.
    endings: HashMap<String, String>,
    /// How names of licences begin.
    licences: Vec<String>,
}

static LANGUAGES: LazyLock<Languages> = LazyLock::new(|| {
    let mut all: Languages =
        serde_json::from_str(include_str!("../../../python/demo/languages.json")).expect("a test reads it");
    for table in [&mut all.names, &mut all.endings] {
        *table = table.drain().map(|(word, language)| (word.to_ascii_lowercase(), language)).collect();
    }
    all
});

/// The language of a file of that name; `Other` when the name says nothing. Names and endings count in any case.
pub(crate) fn language(name: &str) -> &'static str {
    let languages = &*LANGUAGES;
    let name = name.rsplit('/').next().unwrap_or(name);
    let ending = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default();
    let by_name = languages.names.get(&name.to_ascii_lowercase());
    let found = by_name.or_else(|| languages.endings.get(&ending.to_ascii_lowercase()));
    let is_licence = || languages.licences.iter().any(|word| name.starts_with(word.as_str()));
    found.map_or_else(|| if is_licence() { "Licence" } else { "Other" }, String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files that are odd in one way or another: their names, their bytes.
    fn odd_files() -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        let texts: &[&[u8]] = &[
            b"",
            b"\n",
            b"\r",
            b"\r\n",
            b"a\r",
            b"a\r\r\n",
            b"\n\r",
            b"a\rb\nc",
            b"one\nthree",
            b"\n\n\n",
            b"a\x0bb\x0cc\x1cd\x1de\x1ef",
            "a\u{85}b\u{2028}c\u{2029}d".as_bytes(),
            "äöü\n😀".as_bytes(),
            b"\xef\xbb\xbfmark",
            b"caf\xe9\n",
            b"\xed\xa0\x80",
            b"\xf0\x9f\x98",
            b"\xc0\x80",
            b"\xf4\x90\x80\x80",
            b"\xe2\x82",
            b"\xf8\x88\x80\x80\x80",
            b"\xff\xfe",
            b"\xfe\xff",
            b"\xff\xfeh",
            b"\xfe\xffh",
            b"\xff\xfeh\0\n\0",
            b"\xfe\xff\0h\0\n",
            b"\xff\xfe\0\xd8",
            b"\xff\xfe\0\xdc",
            b"\xff\xfe=\xd8\0\xde",
            b"\xff\xfe\xff\xfea\0",
            b"\xfe\xff\xff\xfe",
            b"\0\0",
        ];
        files.extend(texts.iter().map(|text| ("a.rs".to_owned(), text.to_vec())));
        let names = [
            "",
            ".",
            "..",
            "...",
            "a.",
            ".rs",
            "a.rs",
            "A.RS",
            "a/b.c/d",
            "x/Makefile",
            "MAKEFILE",
            "cargo.LOCK",
            "x.S",
            ".gitignore",
            "LICENSE-MIT",
            "license",
            "NOTICES.md",
            "a.tar.gz",
            "K.\u{212a}t",
            "ä.ü",
            "a.rs/",
            "COPYING.unknown",
        ];
        files.extend(names.iter().map(|name| ((*name).to_owned(), Vec::new())));
        let languages = &*LANGUAGES;
        files.extend(languages.names.keys().map(|name| (format!("dir/{name}"), Vec::new())));
        files.extend(languages.endings.keys().map(|ending| (format!("dir/x.{ending}"), Vec::new())));
        // And whatever chance brings: the same chance every time.
        let mut chance = 1_u64;
        for _ in 0..2000 {
            let bytes = std::iter::repeat_with(|| {
                chance ^= chance << 13;
                chance ^= chance >> 7;
                chance ^= chance << 17;
                // Bytes that matter: of marks, of line ends, leading and following ones of UTF-8.
                b"\xff\xfe\r\n\n\0ab\x80\x90\xa0\xbf\xc3\xe0\xed\xef\xf0\xf4\xd8\xdc"[(chance >> 20) as usize % 20]
            });
            let bytes: Vec<u8> = bytes.take(1 + files.len() % 23).collect();
            files.push(("chance.txt".into(), bytes));
        }
        files
    }

    #[test]
    fn python_surveys_odd_files_in_the_same_way() {
        use std::{io::Write as _, process::Stdio};
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/python/demo/survey.py");
        let files = odd_files();
        let lines: String = files.iter().fold(String::new(), |lines, (name, content)| {
            lines + &serde_json::json!({ "name": name, "content": hex::encode(content) }).to_string() + "\n"
        });
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(lines.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut input).unwrap();
        let mut python = std::process::Command::new("python3");
        let output = python.arg(program).stdin(input).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{}", output.status);
        let theirs: Vec<crate::report::Outcome> =
            String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(theirs.len(), files.len());
        for ((name, content), theirs) in files.iter().zip(theirs) {
            let ours = survey(name, content)
                .map_or_else(|why| crate::report::Outcome::Unreadable(why.to_string()), crate::report::Outcome::Found);
            assert_eq!(theirs, ours, "{name:?} {content:02x?}");
        }
    }

    #[test]
    fn lines_are_counted_with_and_without_a_last_end() {
        let count = |text: &str| survey("a.rs", text.as_bytes()).map(|f| (f.lines, f.longest_line));
        assert_eq!(count(""), Ok((0, 0)));
        assert_eq!(count("\n"), Ok((1, 0)));
        assert_eq!(count("one\nthree"), Ok((2, 5)));
        assert_eq!(count("one\r\nthree\r\n"), Ok((2, 5)));
    }

    #[test]
    fn the_longest_line_is_measured_in_characters_not_bytes() {
        let finding = survey("a.md", "äöü\nab".as_bytes()).unwrap();
        assert_eq!(finding.longest_line, 3);
    }

    #[test]
    fn the_digest_is_of_the_bytes_as_they_came() {
        let finding = survey("a", b"abc").unwrap();
        assert_eq!(finding.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_ne!(survey("a", b"abc\n").unwrap().sha256, finding.sha256);
    }

    #[test]
    fn bytes_that_are_no_utf8_are_one_character_each() {
        assert_eq!(survey("a.txt", b"caf\xe9\n").unwrap().longest_line, 4);
    }

    #[test]
    fn utf16_is_read_in_both_byte_orders() {
        let little = [0xff, 0xfe, b'h', 0, b'i', 0, b'\n', 0, b'!', 0];
        let big = [0xfe, 0xff, 0, b'h', 0, b'i', 0, b'\n', 0, b'!'];
        for content in [little, big] {
            let finding = survey("a.txt", &content).unwrap();
            assert_eq!((finding.lines, finding.longest_line), (2, 2));
        }
    }

    #[test]
    fn utf16_that_breaks_off_cannot_be_surveyed() {
        assert_eq!(survey("a.txt", &[0xff, 0xfe, b'h']), Err(Unreadable::HalfCharacter { bytes: 3 }));
        assert_eq!(survey("a.txt", &[0xff, 0xfe, 0x00, 0xd8]), Err(Unreadable::LoneSurrogate));
    }

    #[test]
    fn the_language_comes_from_the_name() {
        for (name, expected) in [
            ("serde-1.0/src/lib.rs", "Rust"),
            ("a/Makefile", "Make"),
            ("a/CMakeLists.txt", "CMake"),
            ("a/LICENSE-MIT", "Licence"),
            ("x.S", "Assembly"),
            ("x.unheard-of", "Other"),
            ("dir.rs/plain", "Other"),
        ] {
            assert_eq!(language(name), expected, "{name}");
        }
    }
}
