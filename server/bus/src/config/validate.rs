//! Rules between values, and ranges.

use std::time::Duration;

use acb_types::{Durability, limits};

use super::{
    Config,
    load::{Problem, Values},
};

/// Most of `edge.busy_poll`: a unit that was mistyped must not keep a core busy.
const BUSY_POLL_MAX: Duration = Duration::from_millis(1);

/// Notes every rule that is broken.
pub(super) fn check(config: &Config, values: &Values, problems: &mut Vec<Problem>) {
    let mut problem = |path: &'static str, message: String| {
        problems.push(Problem { origin: values.origin(path), path: path.to_owned(), message });
    };
    let server = &config.server;
    let tls = config.tls.certificate.is_some() && config.tls.key.is_some();
    if config.tls.certificate.is_some() != config.tls.key.is_some() {
        let (path, other) =
            if config.tls.key.is_some() { ("tls.key", "tls.certificate") } else { ("tls.certificate", "tls.key") };
        problem(path, format!("is given without {other}"));
    }
    if !server.listen.ip().is_loopback() && !tls && !server.allow_plaintext {
        let message = format!(
            "{} can be reached by others, so it needs TLS (tls.certificate and tls.key); --allow-plaintext if what \
             stands in front of it does TLS",
            server.listen
        );
        problem("server.listen", message);
    }
    if !server.admin_listen.ip().is_loopback() {
        let message =
            format!("{} can be reached by others, and the admin listener has no credentials", server.admin_listen);
        problem("server.admin_listen", message);
    }
    if server.listen == server.admin_listen && server.listen.port() != 0 {
        problem("server.admin_listen", format!("{} is where clients connect", server.admin_listen));
    }
    let mut range = |path: &'static str, value: Duration, limit: &'static str| {
        let Some(limit) = limits::find(limit) else { return };
        let (min, max) = (Duration::from_millis(limit.minimum), Duration::from_millis(limit.maximum));
        if !(min..=max).contains(&value) {
            let show = |d| humantime::format_duration(d).to_string();
            problem(path, format!("{} must be {} to {}", show(value), show(min), show(max)));
        }
    };
    range("auth.access_token_ttl", config.auth.access_token_ttl, "access_token_ttl");
    range("auth.refresh_token_ttl", config.auth.refresh_token_ttl, "refresh_token_ttl");
    let levels = [
        ("delivery.durability_default", config.delivery.durability_default),
        ("delivery.durability_floor", config.delivery.durability_floor),
    ];
    for (path, level) in levels {
        if level > Durability::Synced {
            problem(path, format!("{level} cannot be kept by one machine; synced is the highest"));
        }
    }
    if config.delivery.durability_default < config.delivery.durability_floor {
        problem("delivery.durability_default", "is below delivery.durability_floor".to_owned());
    }
    let positive = [
        ("edge.connections_max", config.edge.connections_max),
        ("edge.streams_per_connection", config.edge.streams_per_connection as usize),
        ("edge.handshakes_max", config.edge.handshakes_max),
        ("delivery.committer_threads", config.delivery.committer_threads),
    ];
    for (path, value) in positive {
        if value == 0 {
            problem(path, "must be at least 1".to_owned());
        }
    }
    if config.edge.busy_poll > BUSY_POLL_MAX {
        problem("edge.busy_poll", "must be at most 1ms".to_owned());
    }
    // A timer that never waits would keep a core busy.
    let waits = [
        ("edge.handshake_timeout", config.edge.handshake_timeout),
        ("edge.keep_alive_interval", config.edge.keep_alive_interval),
        ("edge.keep_alive_timeout", config.edge.keep_alive_timeout),
        ("delivery.retain_every", config.delivery.retain_every),
        ("delivery.survey_every", config.delivery.survey_every),
        ("retention.topics_age", config.retention.topics_age),
    ];
    for (path, value) in waits {
        if value < Duration::from_millis(10) {
            problem(path, "must be at least 10ms".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::Origin;

    fn problems(settings: &[(&str, &str)]) -> Vec<String> {
        let mut values = Values::default();
        for (path, text) in settings {
            values.set(path, *text, Origin::Flag("--set")).unwrap();
        }
        Config::read(&values)
            .map_or_else(|p| p.iter().map(|p| format!("{}: {}", p.path, p.message)).collect(), |_| Vec::new())
    }

    #[test]
    fn an_address_that_others_reach_needs_tls_or_a_word() {
        let open = ("server.listen", "0.0.0.0:7400");
        let told = problems(&[open]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("needs TLS") && told[0].contains("--allow-plaintext"), "{told:?}");
        assert!(problems(&[open, ("server.allow_plaintext", "true")]).is_empty());
        assert!(problems(&[open, ("tls.certificate", "c.pem"), ("tls.key", "k.pem")]).is_empty());
        assert!(problems(&[("server.listen", "[::1]:7400")]).is_empty());
    }

    #[test]
    fn each_rule_is_told_under_its_key() {
        for (settings, path) in [
            (&[("tls.certificate", "c.pem")][..], "tls.certificate: is given without tls.key"),
            (&[("server.admin_listen", "0.0.0.0:1")], "server.admin_listen: 0.0.0.0:1 can be reached"),
            (&[("server.admin_listen", "127.0.0.1:7400")], "server.admin_listen: 127.0.0.1:7400 is where clients"),
            (&[("auth.access_token_ttl", "2days")], "auth.access_token_ttl: 2days must be 1m to 1day"),
            (&[("delivery.durability_default", "replicated")], "delivery.durability_default: replicated cannot"),
            (
                &[("delivery.durability_floor", "synced"), ("delivery.durability_default", "written")],
                "delivery.durability_default: is below",
            ),
            (&[("edge.connections_max", "0")], "edge.connections_max: must be at least 1"),
            (&[("edge.keep_alive_interval", "1ms")], "edge.keep_alive_interval: must be at least 10ms"),
            (&[("edge.busy_poll", "2ms")], "edge.busy_poll: must be at most 1ms"),
        ] {
            let told = problems(settings);
            assert!(told.len() == 1 && told[0].starts_with(path), "{settings:?}: {told:?}");
        }
    }
}
