//! Where a subscription begins, as it is typed.

use std::str::FromStr;

use acb_sdk::StartAt;
use acb_types::Timestamp;

/// `new`, `all`, `seq:NUMBER` or `time:RFC3339`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartArg(StartAt);

impl From<StartArg> for StartAt {
    fn from(arg: StartArg) -> Self {
        arg.0
    }
}

impl FromStr for StartArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "new" => Ok(Self(StartAt::New)),
            None if text == "all" => Ok(Self(StartAt::All)),
            Some(("seq", number)) => match number.parse() {
                Ok(seq) => Ok(Self(StartAt::Sequence(seq))),
                Err(_) => Err(format!("{number} is no seq")),
            },
            Some(("time", time)) => match time.parse::<jiff::Timestamp>() {
                Ok(at) => Ok(Self(StartAt::Time(Timestamp(u64::try_from(at.as_millisecond()).unwrap_or_default())))),
                Err(_) => Err(format!("{time} is no time such as 2026-01-31T12:00:00Z")),
            },
            _ => Err("it must be new, all, seq:NUMBER or time:RFC3339".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_read_as_they_are_typed() {
        let read = |text: &str| text.parse::<StartArg>().map(|s| s.0);
        assert_eq!(read("new"), Ok(StartAt::New));
        assert_eq!(read("all"), Ok(StartAt::All));
        assert_eq!(read("seq:7"), Ok(StartAt::Sequence(7)));
        assert_eq!(read("time:1970-01-01T00:00:01Z"), Ok(StartAt::Time(Timestamp(1000))));
        for bad in ["", "old", "seq:", "seq:x", "time:yesterday", "all:1"] {
            assert!(read(bad).is_err(), "{bad:?} was taken");
        }
    }
}
