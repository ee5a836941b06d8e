#!/usr/bin/env bash
# Measures which lines of server, core and types the tests reach. Writes docs/coverage.md; fails below 90 %.
#
#   scripts/coverage.sh                all tests but the crash suite, whose servers are killed before they can report, and
#                                      simulated seeds without planted faults
#   scripts/coverage.sh -p acb-types   one crate's tests (or several), printed only
#
# By rustc's own instrumentation and the tools of the LLVM that it was built with, so figures are per line and exact.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
scripts/setup-dev.sh coverage

[ $# -eq 0 ] || [ "$1" = -p ] || fail "usage: scripts/coverage.sh [-p crate]…"
packages=("$@") tests=()
if [ $# -eq 0 ]; then
    packages=(--workspace --exclude acb-bench --exclude acb-xtask --features "$test_features")
    tests=(-E "not ($(binaries crash) + package(acb-sim))")
fi

llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
work=target/coverage
rm -rf "$work"
mkdir -p "$work/raw"

# Instrumented crates lie beside the ordinary ones in the same target folder; cargo tells them apart by this wrapper.
export RUSTC_WORKSPACE_WRAPPER="$PWD/scripts/coverage-rustc.sh"
# Runs of one program are added up in a few files, also those of servers that tests start.
export LLVM_PROFILE_FILE="$PWD/$work/raw/%4m.profraw"
export ACB_SIM_SEEDS="${ACB_SIM_SEEDS:-200}" ACB_SIM_SECONDS="${ACB_SIM_SECONDS:-60}"

say "building"
cargo build --quiet --all-targets "${packages[@]}" --message-format json >"$work/build.json"
say "running the tests"
cargo nextest run --cargo-quiet "${packages[@]}" "${tests[@]}"
if [ $# -eq 0 ]; then
    # Its own tests look for planted faults, with thousands of seeds; a few healthy ones reach the same lines.
    "${CARGO_TARGET_DIR:-target}/debug/acb-sim" --seeds "$ACB_SIM_SEEDS" --seconds "$ACB_SIM_SECONDS"
fi

say "adding up"
"llvm-profdata-$llvm" merge -sparse "$work"/raw/*.profraw -o "$work/all.profdata"
objects=()
while read -r program; do objects+=(--object "$program"); done < <(
    python3 -c '
import json, sys
for line in sys.stdin:
    program = json.loads(line).get("executable") if line.startswith("{") else None
    if program: print(program)' <"$work/build.json" | sort -u
)
"llvm-cov-$llvm" export --format lcov --instr-profile "$work/all.profdata" "${objects[@]}" >"$work/all.lcov" 2>"$work/export.log" \
    || fail "llvm-cov: $(tail -n 1 "$work/export.log")"

if [ $# -eq 0 ]; then
    scripts/coverage_report.py "$work/all.lcov" --minimum "${ACB_COVERAGE_MIN:-90}" --write docs/coverage.md
else
    scripts/coverage_report.py "$work/all.lcov"
fi
