//! Between columns and types. What comes out of a column was checked on its way in, so a text that does not parse is
//! damage.

use std::str::FromStr;

use acb_types::Timestamp;
use rusqlite::Row;
use serde::{Serialize, de::DeserializeOwned};

use super::error::{Failure, Result};

/// A text column as a type.
pub(super) fn parse<T: FromStr<Err: std::fmt::Display>>(row: &Row<'_>, column: &str) -> Result<T> {
    let text = row.get_ref(column)?.as_str().map_err(|e| Failure::Damaged(format!("{column}: {e}")))?;
    text.parse().map_err(|e| Failure::Damaged(format!("{column}: {e}")))
}

/// A JSON column as a type.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T> {
    let text = row.get_ref(column)?.as_str().map_err(|e| Failure::Damaged(format!("{column}: {e}")))?;
    serde_json::from_str(text).map_err(|e| Failure::Damaged(format!("{column}: {e}")))
}

/// A value as a JSON column.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    Ok(serde_json::to_string(value)?)
}

/// Numbers above 2^63 wrap on their way in and back on their way out; nothing is ordered by those that can be so large.
pub(super) fn number(row: &Row<'_>, column: &str) -> Result<u64> {
    Ok(row.get::<_, i64>(column)? as u64)
}

/// A time column.
pub(super) fn time(row: &Row<'_>, column: &str) -> Result<Timestamp> {
    Ok(Timestamp(number(row, column)?))
}

/// A digest column.
pub(super) fn digest(row: &Row<'_>, column: &str) -> Result<[u8; 32]> {
    let bytes = row.get_ref(column)?.as_blob().map_err(|e| Failure::Damaged(format!("{column}: {e}")))?;
    bytes.try_into().map_err(|_| Failure::Damaged(format!("{column}: {} bytes instead of 32", bytes.len())))
}

/// A time or number on its way in.
pub(super) fn put(number: u64) -> i64 {
    number as i64
}

/// All rows of a query.
pub(super) fn collect<T>(mut rows: rusqlite::Rows<'_>, each: impl Fn(&Row<'_>) -> Result<T>) -> Result<Vec<T>> {
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        out.push(each(row)?);
    }
    Ok(out)
}

/// The first row of a query.
pub(super) fn first<T>(mut rows: rusqlite::Rows<'_>, each: impl Fn(&Row<'_>) -> Result<T>) -> Result<Option<T>> {
    rows.next()?.map(each).transpose()
}
