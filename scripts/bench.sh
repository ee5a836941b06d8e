#!/usr/bin/env bash
# `make bench`: ACB and its peers in one run, interleaved; writes bench/results and docs/benchmarks.md.
# QUICK=1: ACB alone, server CPU per message against the committed figures; warns, does not fail.
# Arguments go to `acb-bench run` (for example: --cases live-256 --pairs 3).
set -euo pipefail
cd "$(dirname "$0")/.."

# 10,000 idle connections; server and load are one process each.
wanted_files=11000
if [ "$(ulimit -n)" != unlimited ] && [ "$(ulimit -n)" -lt "$wanted_files" ]; then
    ulimit -n "$wanted_files" || {
        echo "bench: idle-10k needs 'ulimit -n $wanted_files', the limit is $(ulimit -n)" >&2
        exit 1
    }
fi

# The Python clients: ours from a wheel as users get it, the peers' in pinned versions, in an environment of their own.
# ACB_BENCH_PYTHON=0 does without, for a selection of cases that has no Python in it.
python_clients() {
    [ "${ACB_BENCH_PYTHON:-1}" != 0 ] || return 0
    scripts/setup-dev.sh demo
    local home="${CARGO_TARGET_DIR:-$PWD/target}/bench-python" wheel stamp
    if ! [ -x "$home/bin/python" ]; then
        rm -rf "$home"
        python3 -m venv --without-pip "$home"
    fi
    local pip=(.venv/bin/pip --python "$home/bin/python" --quiet --disable-pip-version-check)
    stamp=$(sha256sum <bench/python/requirements.txt)
    if [ "$(cat "$home/requirements" 2>/dev/null)" != "$stamp" ]; then
        "${pip[@]}" install -r bench/python/requirements.txt
        printf '%s\n' "$stamp" >"$home/requirements"
    fi
    wheel=$(scripts/build-wheel.sh release)
    "${pip[@]}" install --no-index --no-deps --force-reinstall "$wheel"
}

if [ -n "${QUICK:-}" ]; then
    cargo build --quiet --release -p acb-server
    cargo build --quiet --release -p acb-bench
    python_clients
    exec target/release/acb-bench run --quick "$@"
fi

scripts/bench-peers.sh
# One after the other: the server under test is the product's own build, without features that the peers' clients
# would switch on in shared dependencies.
cargo build --quiet --release -p acb-server
cargo build --quiet --release -p acb-bench --features peers
python_clients
exec target/release/acb-bench run "$@"
