//! Reads a segment's batches one after the other, and finds batches behind a break.

use std::io;

use crate::{
    batch::{self, Fault, HEADER, Header, MAGIC},
    disk::DiskFile,
    segment::Ident,
};

const BLOCK: usize = 1024 * 1024;

/// A batch that was found good.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// Where it starts in the file.
    pub(crate) offset: u32,
    /// Its header.
    pub(crate) header: Header,
    /// Its meta.
    pub(crate) meta: &'a [u8],
    /// Its body.
    pub(crate) body: &'a [u8],
}

/// Walks a segment from an offset to an end, holding about one mebibyte.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    file: &'a dyn DiskFile,
    ident: Ident,
    end: u32,
    at: u32,
    block: Vec<u8>,
    block_at: u32,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, ident: Ident, from: u32, end: u32) -> Self {
        Self { file, ident, end, at: from, block: Vec::new(), block_at: from }
    }

    /// Where the next batch would start.
    pub(crate) fn offset(&self) -> u32 {
        self.at
    }

    /// The next batch. Stays where it is at a fault.
    pub(crate) fn next(&mut self) -> io::Result<Result<Found<'_>, Fault>> {
        let offset = self.at;
        let header = match self.check_at(offset)? {
            Ok(header) => header,
            Err(fault) => return Ok(Err(fault)),
        };
        self.at = offset + header.len();
        let from = (offset - self.block_at) as usize;
        let whole = &self.block[from..from + header.len() as usize];
        let (meta, body) = whole[HEADER..].split_at(header.meta_len as usize);
        Ok(Ok(Found { offset, header, meta, body }))
    }

    /// The next good batch at or after `from`, wherever it starts. Used behind a break, where lengths cannot be trusted.
    pub(crate) fn find(&mut self, from: u32) -> io::Result<Option<(u32, Header)>> {
        let mut at = from;
        while at.saturating_add(HEADER as u32) <= self.end {
            let have = self.fill(at, BLOCK / 2)?;
            if have < HEADER {
                return Ok(None);
            }
            let window = &self.block[(at - self.block_at) as usize..];
            match find_magic(window) {
                Some(skip) => {
                    at += skip as u32;
                    if let Ok(header) = self.check_at(at)? {
                        self.at = at + header.len();
                        return Ok(Some((at, header)));
                    }
                    at += 1;
                }
                // The magic may begin in the last three bytes.
                None => at += (window.len() - (MAGIC.len() - 1)) as u32,
            }
        }
        Ok(None)
    }

    fn check_at(&mut self, at: u32) -> io::Result<Result<Header, Fault>> {
        self.fill(at, HEADER)?;
        let header = match batch::peek(self.window(at), self.ident) {
            Ok(header) => header,
            Err(fault) => return Ok(Err(fault)),
        };
        self.fill(at, header.len() as usize)?;
        Ok(batch::check(self.window(at), self.ident))
    }

    fn window(&self, at: u32) -> &[u8] {
        self.block.get((at - self.block_at) as usize..).unwrap_or_default()
    }

    /// Has at least `need` bytes from `at` in the block, unless the segment ends before. Answers how many there are.
    fn fill(&mut self, at: u32, need: usize) -> io::Result<usize> {
        let have = self.window(at).len();
        if at < self.block_at || have < need.min((self.end.saturating_sub(at)) as usize) {
            let keep = if at >= self.block_at { self.window(at).len() } else { 0 };
            let drop = self.block.len() - keep;
            self.block.drain(..drop);
            self.block_at = at;
            let want = BLOCK.max(need).min((self.end.saturating_sub(at)) as usize) - keep;
            let from = u64::from(at) + keep as u64;
            self.file.pread(&mut self.block, want, from)?;
        }
        Ok(self.window(at).len())
    }
}

/// First place of the magic in some bytes.
fn find_magic(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at + MAGIC.len() <= bytes.len() {
        // Mostly zeroes: eight at a time.
        if bytes.len() - at >= 8 && bytes[at..at + 8] == [0; 8] {
            at += 8;
            continue;
        }
        match bytes[at..].iter().take(8).position(|b| *b == MAGIC[0]) {
            Some(skip) if bytes[at + skip..].starts_with(&MAGIC) => return Some(at + skip),
            Some(skip) => at += skip + 1,
            None => at += 8,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_magic_is_found_wherever_it_starts() {
        for lead in 0..40 {
            for filler in [0, MAGIC[0], 9] {
                let mut bytes = vec![filler; lead];
                bytes.extend_from_slice(&MAGIC);
                bytes.extend_from_slice(&[filler; 9]);
                assert_eq!(find_magic(&bytes), Some(lead), "lead {lead} filler {filler}");
            }
        }
        assert_eq!(find_magic(&[0; 100]), None);
        assert_eq!(find_magic(&MAGIC[..3]), None);
    }
}
