//! What `acb-server` can be told on its command line.

use std::path::PathBuf;

use acb_types::Timestamp;
use clap::{Args, Parser, Subcommand};

use crate::config::load::{FILE_DEFAULT, Origin, Problem, Values};

/// Where a manual clock stands when nobody says otherwise: the same at every start, so that a run can be told again.
const CLOCK_START: &str = "2026-01-01T00:00:00Z";

/// The server of the Agentic Context Bus: one binary, no other service.
#[derive(Debug, Parser)]
#[command(name = "acb-server", version, args_override_self = true)]
pub struct Cli {
    /// What to do; `run` when nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How.
    #[command(flatten)]
    pub settings: Settings,
    /// What is not a setting.
    #[command(flatten)]
    pub switches: Switches,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the server. The default.
    Run,
    /// Prints what the settings come to, and who said so.
    Config,
    /// Looks at a data folder of a stopped server, and says what is damaged.
    Check {
        /// The data folder.
        folder: PathBuf,
        /// Copies everything that is sound into this new folder. The damaged one is never written to.
        #[arg(long, value_name = "FOLDER")]
        salvage_into: Option<PathBuf>,
    },
}

/// Settings on the command line. They beat everything else.
#[derive(Args, Debug, Default)]
pub struct Settings {
    /// File of settings [default: acb.toml when it is there].
    #[arg(long, global = true, env = "ACB_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address for clients.
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Address for probes and metrics.
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    /// Folder of everything that must survive.
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data_dir: Option<String>,
    /// PEM file of the certificate chain.
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_certificate: Option<String>,
    /// PEM file of the private key.
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// Lets others connect without TLS.
    #[arg(long, global = true)]
    pub allow_plaintext: bool,
    /// text, json or auto.
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// What is logged, such as `info,acb_server=debug`.
    #[arg(long, global = true, value_name = "FILTER")]
    pub log_filter: Option<String>,
    /// Sets any key, such as `--set edge.connections_max=100`. Can be given often.
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

/// Switches that no file can throw.
#[derive(Args, Debug, Default)]
pub struct Switches {
    /// Needs no credentials: callers are who they say. For your own machine only.
    #[arg(long)]
    pub dev: bool,
    /// With --dev: time stands until `POST /advance?ms=` or `/wall?ms=` on the admin listener. It starts at START, an RFC
    /// 3339 time or milliseconds since 1970.
    #[arg(long, requires = "dev", value_name = "START", num_args = 0..=1, require_equals = true,
        default_missing_value = CLOCK_START, value_parser = point_in_time)]
    pub manual_clock: Option<Timestamp>,
    /// Makes a new admin key also when there are keys already, for those who lost theirs.
    #[arg(long)]
    pub new_admin_key: bool,
    /// Writes an admin key that is made to this file too, readable by its owner only.
    #[arg(long, value_name = "FILE")]
    pub admin_key_file: Option<PathBuf>,
}

/// Reads an RFC 3339 time or milliseconds since 1970.
fn point_in_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(ms) = text.parse() {
        return Ok(Timestamp(ms));
    }
    let wanted = || format!("a time such as {CLOCK_START}, or milliseconds since 1970");
    let time: jiff::Timestamp = text.parse().map_err(|_| wanted())?;
    time.as_millisecond().try_into().map(Timestamp).map_err(|_| wanted())
}

impl Settings {
    /// Every value, from defaults, file, environment and flags.
    pub fn values(&self, variables: impl IntoIterator<Item = (String, String)>) -> (Values, Vec<Problem>) {
        let (mut values, mut problems) = (Values::default(), Vec::new());
        match &self.config {
            Some(path) => values.file(path, &mut problems),
            None if std::path::Path::new(FILE_DEFAULT).exists() => values.file(FILE_DEFAULT.as_ref(), &mut problems),
            None => {}
        }
        values.variables(variables, &mut problems);
        let flags = [
            ("server.listen", "--listen", self.listen.as_deref()),
            ("server.admin_listen", "--admin-listen", self.admin_listen.as_deref()),
            ("storage.data_dir", "--data-dir", self.data_dir.as_deref()),
            ("tls.certificate", "--tls-certificate", self.tls_certificate.as_deref()),
            ("tls.key", "--tls-key", self.tls_key.as_deref()),
            ("server.allow_plaintext", "--allow-plaintext", self.allow_plaintext.then_some("true")),
            ("log.format", "--log-format", self.log_format.as_deref()),
            ("log.filter", "--log-filter", self.log_filter.as_deref()),
        ];
        for (path, flag, value) in flags {
            if let Some(value) = value {
                problems.extend(values.set(path, value, Origin::Flag(flag)).err());
            }
        }
        for assignment in &self.set {
            values.assignment(assignment, &mut problems);
        }
        (values, problems)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_reaches_its_key() {
        let cli = Cli::parse_from([
            "acb-server",
            "--listen",
            "127.0.0.1:1",
            "--admin-listen",
            "127.0.0.1:2",
            "--data-dir",
            "d",
            "--tls-certificate",
            "c",
            "--tls-key",
            "k",
            "--allow-plaintext",
            "--log-format",
            "json",
            "--log-filter",
            "debug",
            "--set",
            "edge.hot_runtimes=3",
        ]);
        let (values, problems) = cli.settings.values([]);
        assert!(problems.is_empty(), "{problems:?}");
        let of = |path| values.get(path).map(|(text, _)| text.to_owned()).unwrap_or_default();
        let paths = [
            "server.listen",
            "server.admin_listen",
            "storage.data_dir",
            "tls.certificate",
            "tls.key",
            "server.allow_plaintext",
            "log.format",
            "log.filter",
            "edge.hot_runtimes",
        ];
        let read: Vec<String> = paths.into_iter().map(of).collect();
        assert_eq!(read, ["127.0.0.1:1", "127.0.0.1:2", "d", "c", "k", "true", "json", "debug", "3"]);
    }

    #[test]
    fn a_named_file_must_be_there() {
        let settings = Settings { config: Some("/no/such/acb.toml".into()), ..Settings::default() };
        let (_, problems) = settings.values([]);
        assert!(problems.len() == 1 && problems[0].message.starts_with("cannot be read"), "{problems:?}");
    }

    #[test]
    fn a_manual_clock_goes_with_dev_only() {
        assert!(Cli::try_parse_from(["acb-server", "--manual-clock"]).is_err());
        assert!(Cli::try_parse_from(["acb-server", "--manual-clock=0"]).is_err());
        assert!(Cli::try_parse_from(["acb-server", "--dev", "--manual-clock"]).is_ok());
    }

    #[test]
    fn a_manual_clock_starts_where_it_is_told_to() {
        let start = |args: &[&str]| {
            let words = ["acb-server", "--dev"].iter().chain(args);
            Cli::try_parse_from(words).map(|cli| cli.switches.manual_clock.map(|t| t.0)).map_err(|e| e.to_string())
        };
        assert_eq!(start(&[]), Ok(None));
        assert_eq!(start(&["--manual-clock"]), Ok(Some(1_767_225_600_000)));
        assert_eq!(start(&["--manual-clock=1767225601500"]), Ok(Some(1_767_225_601_500)));
        assert_eq!(start(&["--manual-clock=2026-01-01T01:00:01.5+01:00"]), Ok(Some(1_767_225_601_500)));
        for wrong in ["--manual-clock=soon", "--manual-clock=1969-12-31T23:59:59Z", "--manual-clock=-5"] {
            assert!(start(&[wrong]).is_err_and(|text| text.contains("milliseconds since 1970")), "{wrong}");
        }
        // A word that follows is a command and not a time.
        assert_eq!(start(&["--manual-clock", "run"]), Ok(Some(1_767_225_600_000)));
    }
}
