//! Attributes: small named values on a message, as one flat block.
//!
//! The block is for each pair, sorted by name: a varint length and the name, a varint length and the value. It is read
//! only where a subscription filters on it, and passed on as it came everywhere else.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    frame::{put_varint, read_varint, varint_len},
    limits::{ATTRIBUTES_BYTES_MAX, ATTRIBUTES_MAX, SHORT_TEXT_BYTES_MAX},
};

/// Why bytes or pairs are no attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAttributes {
    /// More pairs than the limit.
    #[error("more than {limit} attributes")]
    TooMany {
        /// How many there may be.
        limit: usize,
    },
    /// More bytes than the limit.
    #[error("attributes of {bytes} bytes exceed limit of {limit}")]
    TooLarge {
        /// How many bytes they take as a block.
        bytes: usize,
        /// How many they may take.
        limit: usize,
    },
    /// The block ends inside a pair, or a length is no varint in its shortest form.
    #[error("attribute block is truncated or malformed at byte {at}")]
    Malformed {
        /// Where the pair starts.
        at: usize,
    },
    /// A name or value that is not UTF-8.
    #[error("attribute {index} is not UTF-8")]
    Utf8 {
        /// Which pair, from 0.
        index: usize,
    },
    /// A name of no bytes or of more than 128.
    #[error("name of attribute {index} has {bytes} bytes, allowed are 1 to {limit}")]
    NameLength {
        /// Which pair, from 0.
        index: usize,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// A name that does not come after the one before it.
    #[error("attribute {index} is not in ascending order of names")]
    Order {
        /// Which pair, from 0.
        index: usize,
    },
    /// A name given twice.
    #[error("attribute {index} repeats the name before it")]
    Double {
        /// Which pair in sorted order, from 0.
        index: usize,
    },
}

/// Named values, sorted by name, each name once. Shares the memory of the frame it came in.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Attributes(Bytes);

impl Attributes {
    /// None.
    pub const EMPTY: Self = Self(Bytes::new());

    /// Takes a block as it came.
    ///
    /// # Errors
    /// As [`check`].
    pub fn from_block(block: Bytes) -> Result<Self, InvalidAttributes> {
        check(&block)?;
        Ok(Self(block))
    }

    /// Makes a block of pairs in any order.
    ///
    /// # Errors
    /// More than 64 pairs, more than 16 KiB, a name given twice, a name of no bytes or of more than 128.
    pub fn from_pairs<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, InvalidAttributes> {
        let mut kept = Vec::new();
        for pair in pairs {
            if kept.len() == ATTRIBUTES_MAX {
                return Err(InvalidAttributes::TooMany { limit: ATTRIBUTES_MAX });
            }
            kept.push(pair);
        }
        kept.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        let mut bytes = 0;
        for (index, (name, value)) in kept.iter().enumerate() {
            let (name, value) = (name.as_ref(), value.as_ref());
            check_name_length(index, name.len())?;
            if index > 0 && kept[index - 1].0.as_ref() == name {
                return Err(InvalidAttributes::Double { index });
            }
            bytes += text_len(name) + text_len(value);
        }
        if bytes > ATTRIBUTES_BYTES_MAX {
            return Err(InvalidAttributes::TooLarge { bytes, limit: ATTRIBUTES_BYTES_MAX });
        }
        let mut block = BytesMut::with_capacity(bytes);
        for (name, value) in &kept {
            for text in [name.as_ref(), value.as_ref()] {
                put_varint(&mut block, text.len() as u64);
                block.put_slice(text.as_bytes());
            }
        }
        Ok(Self(block.freeze()))
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().take_while(|(n, _)| *n <= name).find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// All pairs, by name.
    pub fn iter(&self) -> Iter<'_> {
        Iter { block: &self.0, at: 0 }
    }

    /// How many pairs.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The block.
    pub fn block(&self) -> &[u8] {
        &self.0
    }

    /// The block as shared bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Attributes {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Iterator of [`Attributes::iter`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let name = take_slice(self.block, &mut self.at)?;
        let value = take_slice(self.block, &mut self.at)?;
        // Both were checked when the block was taken.
        Some((std::str::from_utf8(name).unwrap_or_default(), std::str::from_utf8(value).unwrap_or_default()))
    }
}

/// Checks that bytes are an attribute block. An empty block is none at all, and good.
///
/// # Errors
/// The first thing that is wrong, and where.
pub fn check(block: &[u8]) -> Result<(), InvalidAttributes> {
    if block.len() > ATTRIBUTES_BYTES_MAX {
        return Err(InvalidAttributes::TooLarge { bytes: block.len(), limit: ATTRIBUTES_BYTES_MAX });
    }
    let (mut at, mut index) = (0, 0);
    let mut last: &[u8] = &[];
    while at < block.len() {
        let malformed = InvalidAttributes::Malformed { at };
        if index == ATTRIBUTES_MAX {
            return Err(InvalidAttributes::TooMany { limit: ATTRIBUTES_MAX });
        }
        let name = take_slice(block, &mut at).ok_or(malformed)?;
        let value = take_slice(block, &mut at).ok_or(malformed)?;
        check_name_length(index, name.len())?;
        if std::str::from_utf8(name).is_err() || std::str::from_utf8(value).is_err() {
            return Err(InvalidAttributes::Utf8 { index });
        }
        match name.cmp(last) {
            std::cmp::Ordering::Greater => {}
            std::cmp::Ordering::Equal => return Err(InvalidAttributes::Double { index }),
            std::cmp::Ordering::Less => return Err(InvalidAttributes::Order { index }),
        }
        last = name;
        index += 1;
    }
    Ok(())
}

fn check_name_length(index: usize, bytes: usize) -> Result<(), InvalidAttributes> {
    if bytes == 0 || bytes > SHORT_TEXT_BYTES_MAX {
        return Err(InvalidAttributes::NameLength { index, bytes, limit: SHORT_TEXT_BYTES_MAX });
    }
    Ok(())
}

fn text_len(text: &str) -> usize {
    varint_len(text.len() as u64) + text.len()
}

/// Takes one length-prefixed slice. The length must be in its shortest form: equal attributes are equal bytes.
fn take_slice<'a>(block: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let start = *at;
    let len = read_varint(block, at)?;
    if *at - start != varint_len(len) {
        return None;
    }
    let slice = block.get(*at..at.checked_add(usize::try_from(len).ok()?)?)?;
    *at += slice.len();
    Some(slice)
}
