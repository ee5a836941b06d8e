//! The admin listener of a server under test: readiness, metrics, and the hands of its clock.
//!
//! HTTP/1.0 by hand: a request a connection, the answer ends with it. A client library would keep connections, and a
//! connection kept over a restart is one more thing that a test could stumble over.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::wait::within;

/// Longest that one question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Asks a server's admin listener.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    address: SocketAddr,
}

impl Admin {
    /// The admin listener at an address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// One question: status and body.
    ///
    /// # Errors
    /// When nobody answers, or with something that is not HTTP.
    pub async fn ask(&self, method: &str, path: &str) -> Result<(u16, String)> {
        let answer = within("an answer of the admin listener", ANSWER_WITHIN, async {
            let mut stream = TcpStream::connect(self.address).await?;
            let question = format!("{method} {path} HTTP/1.0\r\nhost: {}\r\ncontent-length: 0\r\n\r\n", self.address);
            stream.write_all(question.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            std::io::Result::Ok(answer)
        })
        .await?
        .with_context(|| format!("{method} {path} at {}", self.address))?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("the answer has no status")?;
        Ok((status, body.to_owned()))
    }

    async fn ask_well(&self, method: &str, path: &str) -> Result<String> {
        let (status, body) = self.ask(method, path).await?;
        if status != 200 {
            bail!("{method} {path}: {status} {body}");
        }
        Ok(body)
    }

    /// Whether the server says that it is ready.
    pub async fn is_ready(&self) -> bool {
        matches!(self.ask("GET", "/ready").await, Ok((200, _)))
    }

    /// Moves the clock of a server that was started with `--manual-clock`. Answers with what it said.
    ///
    /// # Errors
    /// When the server has no such clock.
    pub async fn advance(&self, span: Duration) -> Result<String> {
        self.ask_well("POST", &format!("/advance?ms={}", span.as_millis())).await
    }

    /// Sets the wall clock of such a server, in milliseconds since 1970: forward or back, and no time passes by it.
    /// Answers with what it said.
    ///
    /// # Errors
    /// When the server has no such clock.
    pub async fn set_wall(&self, wall_ms: u64) -> Result<String> {
        self.ask_well("POST", &format!("/wall?ms={wall_ms}")).await
    }

    /// What the server counts.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics::parse(&self.ask_well("GET", "/metrics").await?))
    }
}

/// A scrape: numbers by series, such as `acb_messages_in_total{tenant="a"}`.
#[derive(Clone, Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads the text format of Prometheus.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|l| !l.starts_with('#'));
        let series = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(series.collect())
    }

    /// Sum of all series of a name whose labels hold all of these texts, such as `tenant="a"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.0
            .iter()
            .filter(|(series, _)| {
                let of_name = series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
                of_name && labels.iter().all(|label| series.contains(label))
            })
            .map(|(_, value)| value)
            .sum()
    }

    /// Whether there is a series of that name.
    pub fn has(&self, name: &str) -> bool {
        self.0.keys().any(|s| s.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_summed_by_name_and_labels() {
        let text = "# HELP x y\nacb_in_total{tenant=\"a\",class=\"inbox\"} 2\nacb_in_total{tenant=\"b\"} 3\nacb_in_total_more 9\nacb_up 1\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("acb_in_total", &[]), 5.0);
        assert_eq!(metrics.sum("acb_in_total", &["tenant=\"a\""]), 2.0);
        assert_eq!(metrics.sum("acb_absent", &[]), 0.0);
        assert!(metrics.has("acb_up") && !metrics.has("acb_in"));
    }

    #[tokio::test]
    async fn nobody_there_is_an_error_and_not_a_hang() {
        let admin = Admin::new(([127, 0, 0, 1], 1).into());
        assert!(!admin.is_ready().await);
        assert!(admin.advance(Duration::ZERO).await.is_err());
        assert!(admin.set_wall(1).await.is_err());
    }
}
