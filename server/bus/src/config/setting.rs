//! Values as people write them: each is read from text and shown as text, so that file, environment and flags are one.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use acb_types::Durability;

use crate::telemetry::logs::LogFormat;

/// A value of a setting.
pub trait Setting: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// Says what it must be, as the end of a sentence that begins with the value.
    fn read(text: &str) -> Result<Self, String>;

    /// Shows it so that [`Self::read`] takes it back.
    fn show(&self) -> String;
}

/// A number of bytes: `64 MiB`, `1 GB`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(pub u64);

const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in BYTE_UNITS {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{} {unit}", self.0 / size);
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl Setting for ByteCount {
    fn read(text: &str) -> Result<Self, String> {
        let bad = || "is no number of bytes such as \"64 MiB\"".to_owned();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let unit = unit.trim();
        let known = |(name, _): &&(&str, u64)| name.eq_ignore_ascii_case(unit);
        let size = if unit.is_empty() { 1 } else { BYTE_UNITS.iter().find(known).ok_or_else(bad)?.1 };
        number.checked_mul(size).map(Self).ok_or_else(|| "is more bytes than there can be".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A bound that can be taken away: a number, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<u32>);

impl Setting for Limit {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            _ => match text.parse() {
                Ok(n) if n > 0 => Ok(Self(Some(n))),
                _ => Err("is neither a number from 1 nor \"none\"".to_owned()),
            },
        }
    }

    fn show(&self) -> String {
        self.0.map_or_else(|| "none".to_owned(), |n| n.to_string())
    }
}

impl Setting for bool {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "is neither true nor false".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn read(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("is no number of 0 to {}", Self::MAX))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

number!(u32, usize);

impl Setting for Duration {
    fn read(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map_err(|_| "is no time such as \"30s\" or \"2h\"".to_owned())
    }

    fn show(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

impl Setting for SocketAddr {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "is no address such as 127.0.0.1:7400".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for PathBuf {
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("is no path".to_owned()) } else { Ok(Self::from(text)) }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Setting for Option<PathBuf> {
    fn read(text: &str) -> Result<Self, String> {
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn show(&self) -> String {
        self.as_ref().map(Setting::show).unwrap_or_default()
    }
}

impl Setting for String {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Setting for Durability {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "is none of memory, written, synced and replicated".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for LogFormat {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("is none of auto, text and json".to_owned()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
        .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_in_the_units_of_people_and_shown_in_the_largest_that_fits() {
        for (text, bytes, shown) in [
            ("4096", 4096, "4 KiB"),
            ("64 MiB", 64 << 20, "64 MiB"),
            ("64mib", 64 << 20, "64 MiB"),
            ("1 GB", 1_000_000_000, "1 GB"),
            ("1500 B", 1500, "1500 B"),
            ("0", 0, "0 B"),
        ] {
            let count = ByteCount::read(text).unwrap();
            assert_eq!(count, ByteCount(bytes), "{text}");
            assert_eq!(count.show(), shown);
            assert_eq!(ByteCount::read(shown).unwrap(), count);
        }
        for bad in ["", "MiB", "-1", "1.5 GiB", "1 XB", "99999999999 GiB"] {
            assert!(ByteCount::read(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        fn round<T: Setting + PartialEq + fmt::Debug>(text: &str) {
            let value = T::read(text).unwrap();
            assert_eq!(T::read(&value.show()).unwrap(), value, "{text}");
        }
        round::<Duration>("7days");
        round::<Duration>("1h 30m");
        round::<SocketAddr>("[::1]:7400");
        round::<Limit>("none");
        round::<Limit>("12");
        round::<Durability>("written");
        round::<LogFormat>("json");
        round::<Option<PathBuf>>("");
        round::<Option<PathBuf>>("a/b");
        round::<bool>("true");
    }
}
