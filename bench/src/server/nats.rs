//! `nats-server`: JetStream on a file store, or core only.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{Place, ask};
use crate::case::Peer;

/// The command that starts it with the peer's settings.
pub(super) fn command(program: &Path, place: &Place, peer: Peer) -> Result<Command> {
    let file = place.write("nats.conf", &config(&place.address(), &place.store(), peer))?;
    let mut command = Command::new(program);
    command.arg("-c").arg(file);
    Ok(command)
}

fn config(address: &str, store: &Path, peer: Peer) -> String {
    let listen = format!("listen: {address}\n");
    let sync = match peer {
        Peer::NatsCore => return listen,
        Peer::NatsAlways => ", sync_interval: always",
        _ => "",
    };
    format!("{listen}jetstream {{ store_dir: \"{}\", max_file_store: 20GB{sync} }}\n", store.display())
}

/// It is ready when it greets.
pub(super) fn ready(place: &Place) -> bool {
    ask(&place.address(), b"").starts_with(b"INFO ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_has_its_file() {
        let store = Path::new("/data/store");
        assert_eq!(config("127.0.0.1:1", store, Peer::NatsCore), "listen: 127.0.0.1:1\n");
        let plain = config("127.0.0.1:1", store, Peer::NatsDefault);
        assert!(plain.contains("store_dir: \"/data/store\", max_file_store: 20GB }"), "{plain}");
        assert!(config("127.0.0.1:1", store, Peer::NatsAlways).contains("sync_interval: always"));
    }
}
