//! The findings that the team shares: one context that all workers write to, each change on the revision that it was made
//! for. Merging is pure and can be repeated: a finding that is in there already changes nothing.

use std::collections::BTreeMap;

use acb_sdk::{Client, Context};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::survey::Finding;

/// Key of the context.
pub(crate) const KEY: &str = "survey/findings";

/// What it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// Which files are in here: a bit for each number, the lowest first, in hex.
    #[serde(with = "in_hex")]
    merged: Vec<u8>,
    /// Files, lines and longest line by language.
    pub(crate) languages: BTreeMap<String, [u64; 3]>,
}

mod in_hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A finding with the number of its file.
pub(crate) type Numbered = (usize, Finding);

impl Findings {
    /// As a payload holds it; empty before anything is in it.
    pub(crate) fn of(context: &Context) -> Result<Self> {
        serde_json::from_slice(&context.payload).with_context(|| format!("{KEY} at revision {}", context.rev))
    }

    /// Takes a finding in. Says whether it was new.
    pub(crate) fn merge(&mut self, number: usize, finding: &Finding) -> bool {
        let (byte, bit) = (number / 8, 1 << (number % 8));
        if self.merged.len() <= byte {
            self.merged.resize(byte + 1, 0);
        }
        let is_new = self.merged[byte] & bit == 0;
        if is_new {
            self.merged[byte] |= bit;
            let sum = self.languages.entry(finding.language.clone()).or_default();
            *sum = [sum[0] + 1, sum[1] + finding.lines, sum[2].max(finding.longest_line)];
        }
        is_new
    }

    /// Files in here.
    pub(crate) fn files(&self) -> u64 {
        self.merged.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// As a payload.
    pub(crate) fn payload(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }
}

/// What a merge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    /// Findings that were new.
    pub(crate) new: u64,
    /// How often somebody was faster, so that it was done again on what they left.
    pub(crate) races: u64,
    /// The revision that came of it.
    pub(crate) rev: u64,
}

/// Merges findings into the context, however many others do so at the same time.
pub(crate) async fn merge(client: &Client, batch: &[Numbered]) -> Result<Merged> {
    let (mut merged, mut tries, mut broken) = (Merged::default(), 0, None);
    let context = client
        .contexts()
        .modify(KEY, |present| {
            tries += 1;
            let payload = Findings::of(present).and_then(|mut findings| {
                merged.new = batch.iter().map(|(number, finding)| u64::from(findings.merge(*number, finding))).sum();
                findings.payload()
            });
            match payload {
                Ok(payload) if merged.new > 0 => Some(payload.into()),
                Ok(_) => None,
                Err(error) => {
                    broken = Some(error);
                    None
                }
            }
        })
        .await?;
    match broken {
        Some(error) => Err(error),
        None => Ok(Merged { races: tries - 1, rev: context.rev, ..merged }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(language: &str, lines: u64) -> Finding {
        Finding { language: language.into(), lines, longest_line: lines, sha256: String::new() }
    }

    #[test]
    fn a_finding_that_comes_twice_counts_once() {
        let mut findings = Findings::default();
        assert!(findings.merge(9, &finding("Rust", 3)));
        assert!(!findings.merge(9, &finding("Rust", 3)));
        assert!(findings.merge(8, &finding("Rust", 4)));
        assert_eq!((findings.files(), findings.languages["Rust"]), (2, [2, 7, 4]));
    }

    #[test]
    fn findings_survive_their_payload() {
        let mut findings = Findings::default();
        findings.merge(17, &finding("C", 1));
        let payload = findings.payload().unwrap();
        assert_eq!(String::from_utf8_lossy(&payload), r#"{"merged":"000002","languages":{"C":[1,1,1]}}"#);
        assert_eq!(serde_json::from_slice::<Findings>(&payload).unwrap(), findings);
    }
}
