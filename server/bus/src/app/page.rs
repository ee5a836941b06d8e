//! Pages: every list is cut into them, and what leads to the next one is a token that callers cannot read, change or
//! use with another query.

use std::fmt;

use acb_types::{ErrorCode, TenantId, limits};
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::error::AppError;

/// Bytes of the token's signature that are kept: 128 bits.
const TAG_BYTES: usize = 16;

/// Signs page tokens. The same for all nodes and runs over one store, so that paging survives a restart.
#[derive(Clone)]
pub struct PageKey(hmac::Key);

impl fmt::Debug for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageKey")
    }
}

impl PageKey {
    /// A key of random bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }
}

/// What a page token belongs to: a list, its tenant and its filters. Page size is not part of it.
#[derive(Clone)]
pub struct Query(hmac::Context);

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Query")
    }
}

impl Query {
    /// A query of a list in a tenant.
    pub fn new(key: &PageKey, list: &'static str, tenant: &TenantId) -> Self {
        Self(hmac::Context::with_key(&key.0)).with(list).with(tenant.as_str())
    }

    /// Adds a filter. Each goes in with its length, so that no two queries look alike.
    #[must_use]
    pub fn with(mut self, filter: impl AsRef<[u8]>) -> Self {
        let filter = filter.as_ref();
        self.0.update(&(filter.len() as u64).to_be_bytes());
        self.0.update(filter);
        self
    }

    /// Adds filters of one kind.
    #[must_use]
    pub fn with_all<T: AsRef<[u8]>>(self, filters: impl ExactSizeIterator<Item = T>) -> Self {
        let counted = self.with((filters.len() as u64).to_be_bytes());
        filters.fold(counted, Self::with)
    }

    fn tag(&self, last: &str) -> [u8; TAG_BYTES] {
        let mut context = self.0.clone();
        context.update(last.as_bytes());
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&context.sign().as_ref()[..TAG_BYTES]);
        tag
    }

    /// The token of the page after this key.
    pub fn token(&self, last: &str) -> String {
        let mut bytes = self.tag(last).to_vec();
        bytes.extend_from_slice(last.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The key that a token goes on after; `None` for the first page.
    ///
    /// # Errors
    /// `invalid_page_token`.
    pub fn after<T: std::str::FromStr>(&self, token: &str) -> Result<Option<T>, AppError> {
        if token.is_empty() {
            return Ok(None);
        }
        let bad = || AppError::of(ErrorCode::InvalidPageToken);
        if token.len() > limits::PAGE_TOKEN_BYTES_MAX {
            return Err(bad());
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
        let (tag, last) = bytes.split_at_checked(TAG_BYTES).ok_or_else(bad)?;
        let last = std::str::from_utf8(last).map_err(|_| bad())?;
        let good: bool = subtle::ConstantTimeEq::ct_eq(tag, &self.tag(last)[..]).into();
        if !good {
            return Err(bad());
        }
        last.parse().map(Some).map_err(|_| bad())
    }
}

/// How many items a page has.
///
/// # Errors
/// `invalid_argument` above the limit.
pub fn size(asked: u32) -> Result<u32, AppError> {
    match asked {
        0 => Ok(limits::PAGE_SIZE),
        n if n <= limits::PAGE_SIZE_MAX => Ok(n),
        n => Err(AppError::invalid("page_size", format!("of {n} exceeds limit of {}", limits::PAGE_SIZE_MAX))
            .detail("limit", limits::PAGE_SIZE_MAX.to_string())),
    }
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// Its items.
    pub items: Vec<T>,
    /// Leads to the next; empty on the last.
    pub next: String,
}

impl<T> Page<T> {
    /// The same page of other items.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next: self.next }
    }

    /// A page of rows that were read one more than it holds: the one more tells that there is a next.
    pub fn of(mut rows: Vec<T>, size: u32, query: &Query, key: impl Fn(&T) -> String) -> Self {
        let more = rows.len() > size as usize;
        rows.truncate(size as usize);
        let next =
            if more { rows.last().map(|last| query.token(&key(last))).unwrap_or_default() } else { String::new() };
        Self { items: rows, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(tenant: &str, filter: &str) -> Query {
        Query::new(&PageKey::new(&[7; 32]), "agents", &tenant.parse().unwrap()).with(filter)
    }

    #[test]
    fn a_token_goes_on_where_it_was_made() {
        let token = query("a", "x").token("planner");
        assert_eq!(query("a", "x").after::<String>(&token).unwrap().as_deref(), Some("planner"));
        assert_eq!(query("a", "x").after::<String>("").unwrap(), None);
    }

    #[test]
    fn a_token_of_another_query_tenant_or_hand_is_refused() {
        let token = query("a", "x").token("planner");
        let mut changed = URL_SAFE_NO_PAD.decode(&token).unwrap();
        *changed.last_mut().unwrap() ^= 1;
        let long = "A".repeat(limits::PAGE_TOKEN_BYTES_MAX + 1);
        let cases = [
            ("another tenant", query("b", "x"), token.clone()),
            ("another filter", query("a", "y"), token.clone()),
            ("a filter more", query("a", "x").with(""), token),
            ("a changed key", query("a", "x"), URL_SAFE_NO_PAD.encode(changed)),
            ("too short", query("a", "x"), URL_SAFE_NO_PAD.encode([1; 3])),
            ("too long", query("a", "x"), long),
            ("no base64", query("a", "x"), "%%%".to_owned()),
        ];
        for (what, query, token) in cases {
            let error = query.after::<String>(&token).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidPageToken, "{what}");
        }
    }

    #[test]
    fn filters_do_not_run_into_each_other() {
        let q = |parts: &[&str]| parts.iter().fold(query("a", ""), Query::with).token("k");
        assert_ne!(q(&["ab", "c"]), q(&["a", "bc"]));
        assert_ne!(query("a", "").with_all(["x"].iter()).token("k"), query("a", "").with("x").token("k"));
    }

    #[test]
    fn a_page_size_is_a_default_or_within_the_limit() {
        assert_eq!(size(0).unwrap(), limits::PAGE_SIZE);
        assert_eq!(size(500).unwrap(), 500);
        assert_eq!(size(501).unwrap_err().code(), ErrorCode::InvalidArgument);
    }

    #[test]
    fn a_full_page_has_a_next_only_when_there_is_more() {
        let q = query("a", "");
        let of = |n: usize| Page::of((0..n).collect(), 3, &q, ToString::to_string);
        assert_eq!((of(3).items.len(), of(3).next.is_empty()), (3, true));
        let more = of(4);
        assert_eq!(more.items, [0, 1, 2]);
        assert_eq!(q.after::<usize>(&more.next).unwrap(), Some(2));
    }
}
