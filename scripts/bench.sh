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

if [ -n "${QUICK:-}" ]; then
    cargo build --quiet --release -p acb-server -p acb-bench
    exec target/release/acb-bench run --quick "$@"
fi

scripts/bench-peers.sh
# One after the other: the server under test is the product's own build, without features that the peers' clients
# would switch on in shared dependencies.
cargo build --quiet --release -p acb-server
cargo build --quiet --release -p acb-bench --features peers
exec target/release/acb-bench run "$@"
