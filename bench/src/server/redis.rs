//! `redis-server` with its append-only file, flushed every second or before each answer.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use super::{Place, ask};
use crate::case::Peer;

/// The command that starts it with the peer's settings.
pub(super) fn command(program: &Path, place: &Place, peer: Peer) -> Result<Command> {
    fs::create_dir_all(place.store())?;
    let file = place.write("redis.conf", &config(place.port, &place.store(), peer))?;
    let mut command = Command::new(program);
    command.arg(file);
    Ok(command)
}

fn config(port: u16, store: &Path, peer: Peer) -> String {
    let flush = if peer == Peer::RedisAlways { "always" } else { "everysec" };
    format!(
        "bind 127.0.0.1\nport {port}\ndir {}\nsave \"\"\nappendonly yes\nappendfsync {flush}\n\
         auto-aof-rewrite-percentage 0\n",
        store.display()
    )
}

/// It is ready when it answers a ping.
pub(super) fn ready(place: &Place) -> bool {
    ask(&place.address(), b"PING\r\n").starts_with(b"+PONG")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_has_its_file() {
        let always = config(7, Path::new("/data/store"), Peer::RedisAlways);
        assert!(always.contains("port 7\n") && always.contains("dir /data/store\n"), "{always}");
        assert!(always.contains("appendfsync always\n"), "{always}");
        assert!(config(7, Path::new("/d"), Peer::RedisEverysec).contains("appendfsync everysec\n"));
    }
}
