#!/usr/bin/env bash
# Puts the pinned peers of `make bench` into bench/.peers: nats-server (built by Go) and redis-server (Debian's).
# Does nothing when they are there. Set ACB_NO_INSTALL=1 to check only.
set -euo pipefail
cd "$(dirname "$0")/.."

nats_version=2.15.2
redis_series=7.0
peers=bench/.peers

fail() {
    echo "bench-peers: $*" >&2
    exit 1
}

nats_present() {
    [ -x "$peers/nats-server" ] && "$peers/nats-server" --version | grep -qF "v$nats_version"
}

redis_present() {
    [ -x "$peers/redis-server" ] && "$peers/redis-server" --version | grep -qF "v=$redis_series."
}

mkdir -p "$peers"

if ! nats_present; then
    [ -z "${ACB_NO_INSTALL:-}" ] || fail "nats-server $nats_version is missing in $peers"
    command -v go >/dev/null || fail "Go is missing: it builds nats-server $nats_version (any Go from 1.25 on)"
    echo "bench-peers: building nats-server $nats_version (about half a minute)"
    GOBIN="$PWD/$peers" go install "github.com/nats-io/nats-server/v2@v$nats_version" \
        || fail "go could not build nats-server $nats_version"
    nats_present || fail "$peers/nats-server is not version $nats_version"
fi

if ! redis_present; then
    [ -z "${ACB_NO_INSTALL:-}" ] || fail "redis-server $redis_series is missing in $peers"
    if ! command -v redis-server >/dev/null; then
        command -v apt-get >/dev/null || fail "redis-server $redis_series is missing and there is no apt-get to install it"
        as_root=()
        if [ "$(id -u)" -ne 0 ]; then
            command -v sudo >/dev/null || fail "installing redis-server takes root: apt-get install redis-server"
            as_root=(sudo)
        fi
        echo "bench-peers: installing redis-server"
        # On a fresh machine the package lists may be missing: one more try after fetching them.
        install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server)
        "${as_root[@]}" "${install[@]}" >/dev/null 2>&1 \
            || { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" "${install[@]}" >/dev/null; } \
            || fail "apt-get could not install redis-server"
    fi
    ln -sf "$(command -v redis-server)" "$peers/redis-server"
    redis_present || fail "the system's redis-server is not of series $redis_series: $("$peers/redis-server" --version)"
fi

"$peers/nats-server" --version
"$peers/redis-server" --version | cut -d' ' -f1-3
