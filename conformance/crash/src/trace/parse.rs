//! Lines of `strace -f -ttt -y -xx` as calls.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};

/// A system call. Lines count from 0; one that began on a line and ended on it was not interrupted by any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// What its descriptor is: a path, or `socket:[…]`.
    pub of: String,
    /// The bytes that it was given; for one that wrote less, those that it wrote.
    pub bytes: Vec<u8>,
    /// Line on which it was entered.
    pub begin: usize,
    /// Line on which it returned without an error; none when it failed or never returned.
    pub end: Option<usize>,
}

/// Reads a trace.
///
/// # Errors
/// When a line cannot be read: a proof must not pass over what it does not understand.
pub fn parse(text: &str) -> Result<Vec<Call>> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: HashMap<&str, usize> = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        read(at, line, &mut calls, &mut open).with_context(|| {
            let shown: String = line.chars().take(200).collect();
            format!("line {} of the trace: {shown}", at + 1)
        })?;
    }
    Ok(calls)
}

fn read<'a>(at: usize, line: &'a str, calls: &mut Vec<Call>, open: &mut HashMap<&'a str, usize>) -> Result<()> {
    let (pid, rest) = line.split_once(' ').context("no process id")?;
    let (_time, rest) = rest.trim_start().split_once(' ').context("no time")?;
    if rest.starts_with("+++ ") || rest.starts_with("--- ") {
        return Ok(());
    }
    if rest.starts_with("<... ") {
        let call = open.remove(pid).context("the end of a call that did not begin")?;
        let result = rest.rsplit_once(" = ").map(|(_, r)| r);
        end(&mut calls[call], at, result)?;
        return Ok(());
    }
    let (name, arguments) = rest.split_once('(').context("no call")?;
    let of = arguments.split_once('<').and_then(|(_, r)| r.split_once('>')).map(|(hex, _)| hex);
    let of = String::from_utf8_lossy(&unhex(of.unwrap_or_default())?).into_owned();
    let mut bytes = Vec::new();
    for quoted in arguments.split('"').skip(1).step_by(2) {
        bytes.extend(unhex(quoted)?);
    }
    if arguments.contains("\"...") {
        bail!("a buffer is cut");
    }
    calls.push(Call { name: name.to_owned(), of, bytes, begin: at, end: None });
    let call = calls.len() - 1;
    if rest.ends_with("<unfinished ...>") {
        open.insert(pid, call);
        return Ok(());
    }
    let result = rest.rsplit_once(" = ").map(|(_, r)| r);
    end(&mut calls[call], at, result)
}

/// Notes how a call ended. `?` is a thread that was killed inside.
fn end(call: &mut Call, at: usize, result: Option<&str>) -> Result<()> {
    let result = result.context("a call without a result")?.split(' ').next().unwrap_or_default();
    if result == "?" {
        return Ok(());
    }
    let result: i64 = result.parse().with_context(|| format!("result {result:?}"))?;
    if result < 0 {
        call.bytes.clear();
        return Ok(());
    }
    if !call.bytes.is_empty() {
        call.bytes.truncate(result as usize);
    }
    call.end = Some(at);
    Ok(())
}

/// Bytes written as `\x61\x62`.
fn unhex(text: &str) -> Result<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len() / 4);
    for piece in bytes.chunks(4) {
        match piece {
            [b'\\', b'x', high, low] => {
                out.push(digit(*high).context("no hex")? << 4 | digit(*low).context("no hex")?);
            }
            _ => bail!("{text:?} is not hex"),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_with_their_files_bytes_and_order() {
        let text = r#"7 1.5 pwrite64(3<\x2f\x61>, "\x68\x69", 2, 0) = 2
8 1.6 fdatasync(3<\x2f\x61> <unfinished ...>
7 1.7 writev(4<\x73>, [{iov_base="\x61", iov_len=1}, {iov_base="\x62\x63", iov_len=2}], 2) = 2
8 1.8 <... fdatasync resumed>) = 0
7 1.9 sendto(4<\x73>, "\x61", 1, MSG_NOSIGNAL, NULL, 0) = -1 EPIPE (Broken pipe)
8 2.0 fsync(3<\x2f\x61> <unfinished ...>
8 2.0 <... fsync resumed>)              = ?
7 2.1 +++ exited with 0 +++
"#;
        let calls = parse(text).unwrap();
        let of = |c: &Call| (c.name.clone(), c.of.clone(), c.bytes.clone(), c.begin, c.end);
        assert_eq!(of(&calls[0]), ("pwrite64".into(), "/a".into(), b"hi".to_vec(), 0, Some(0)));
        assert_eq!(of(&calls[1]), ("fdatasync".into(), "/a".into(), vec![], 1, Some(3)));
        assert_eq!(of(&calls[2]), ("writev".into(), "s".into(), b"ab".to_vec(), 2, Some(2)));
        assert_eq!(of(&calls[3]), ("sendto".into(), "s".into(), vec![], 4, None));
        assert_eq!(calls[4].end, None);
        assert_eq!(calls.len(), 5);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for line in
            ["7 1.5 pwrite64(3<\\x2f>, \"hi\", 2) = 2", "7 1.5 fsync(3<\\x2f>)", "7 1.5 <... fsync resumed>) = 0"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse(r#"7 1.5 write(3<\x2f>, "\x68"..., 2) = 2"#).is_err());
    }
}
