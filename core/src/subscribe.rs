//! tmp
/// Seqs that were trimmed before a subscription read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first that is missing.
    pub from_seq: u64,
    /// The first that is there again.
    pub to_seq: u64,
    /// `retention` or `damage`.
    pub reason: String,
}
