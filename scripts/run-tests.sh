#!/usr/bin/env bash
# Runs the test suites, says what each took and found, and ends with a table and the line "N passed, N failed".
#
#   scripts/run-tests.sh [suite …]    all suites when none is named:
#
#   unit         tests inside the crates
#   integration  the crates' tests/ folders: ports' contracts, the server's edges, examples
#   conformance  scenarios through the Rust core, raw gRPC and both faces of Python, against the real server
#   log          the segment log, on the test disk and on the real one
#   simulation   engine and log together, one test a seed: ACB_SIM_SEEDS (2000) or ACB_SIM_SECONDS (60), what comes first
#   faults       faults planted in engine and log, each of which the simulation must find
#   crash        kill -9 of the real server under load, ACB_CRASH_ROUNDS rounds (30) from ACB_CRASH_SEED (by chance),
#                agents that count by compare-and-set, ACB_CRASH_INCREMENTS each (30); one upload over kills
#                of its process and of the server; the server's system calls traced; its disk full and read-only
#   doc          examples in the documentation of the crates
#   foreign      a Python gRPC client that shares no code with us
#   python       the Python client, installed from its wheel into an environment of its own: behaviour, border, types
#   contract     buf lint of the wire contract                                (a check: passes or fails, has no tests)
#   generated    generated files are what would be generated                  (a check)
#   tidy         walls between crates, leftovers, sizes                       (a check)
#
# Only what the runners themselves report is counted. A suite that ran no test has failed. Logs: target/test-logs.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
scripts/setup-dev.sh test

export ACB_SIM_SEEDS="${ACB_SIM_SEEDS:-2000}"
export ACB_SIM_SECONDS="${ACB_SIM_SECONDS:-60}"
export ACB_CRASH_ROUNDS="${ACB_CRASH_ROUNDS:-30}"
# Of each of 32 agents. The full 1,000 take some minutes: `make test-crash INCREMENTS=1000`.
export ACB_CRASH_INCREMENTS="${ACB_CRASH_INCREMENTS:-30}"

locked=()
[ -z "${CI:-}" ] || locked=(--locked)
# What shares a build with the programs under test. Log and simulation are built apart, as their tests plant faults in
# the product: a server that tests start must be the one that users get. They are built together, so that cargo agrees on
# the same features of what others have built already.
product=(--workspace --exclude acb-log --exclude acb-sim --features "$test_features" "${locked[@]}")
apart=(-p acb-log -p acb-sim "${locked[@]}")

crash=$(binaries crash)
conformance=$(binaries conformance)

logs=target/test-logs
mkdir -p "$logs"

# --- running and counting ----------------------------------------------------------------------------------------

names=() results=() counts_passed=() counts_failed=() counts_skipped=() times=()
passed=0 failed=0 skipped=0

# Sums the numbers before a word: `sum LOG passed`.
sum() { { grep -oE "[0-9]+ $2\b" "$1" || true; } | awk '{ n += $1 } END { print n + 0 }'; }

# Reads a runner's closing lines into passed, failed, skipped.
count_nextest() {
    local closing
    closing=$(grep -E '^ *Summary \[' "$1" | tail -n 1 || true)
    printf '%s\n' "$closing" >"$1.closing"
    passed=$(sum "$1.closing" passed)
    # All that ran and did not pass: failed, timed out, leaky, not started.
    failed=$(($(sum "$1.closing" 'tests? run') - passed))
    # nextest calls skipped what the suite's filter left to other suites.
    skipped=0
}
count_cargo() {
    { grep -E '^test result: ' "$1" || true; } >"$1.closing"
    passed=$(sum "$1.closing" passed) failed=$(sum "$1.closing" failed) skipped=$(sum "$1.closing" ignored)
}
count_pytest() {
    { grep -E '^=+ .* in [0-9.]+s' "$1" || true; } | tail -n 1 >"$1.closing"
    passed=$(sum "$1.closing" passed) skipped=$(sum "$1.closing" skipped)
    failed=$(($(sum "$1.closing" failed) + $(sum "$1.closing" 'errors?')))
}
count_plain() {
    { grep -E '^[0-9]+ passed, [0-9]+ failed' "$1" || true; } | tail -n 1 >"$1.closing"
    passed=$(sum "$1.closing" passed) failed=$(sum "$1.closing" failed) skipped=0
}
count_check() { passed=0 failed=0 skipped=0; }

# suite NAME RUNNER COMMAND…
suite() {
    local name=$1 runner=$2 log="$logs/$1.log" status=0 result=ok at took
    shift 2
    heading "$name"
    at=$(seconds)
    "$@" 2>&1 | tee "$log" || status=$?
    took=$(($(seconds) - at))
    "count_$runner" "$log"
    if [ "$status" -ne 0 ]; then
        result=FAILED
        # It did not get as far as a test, or its runner failed after the last one: that is a failure too.
        [ "$failed" -gt 0 ] || failed=1
    elif [ "$failed" -gt 0 ]; then
        result=FAILED
    elif [ "$runner" != check ] && [ "$passed" -eq 0 ]; then
        result="FAILED: ran no test"
        failed=1
    fi
    names+=("$name") results+=("$result") times+=("$took")
    counts_passed+=("$passed") counts_failed+=("$failed") counts_skipped+=("$skipped")
    printf '   %s: %s, %d passed, %d failed, %d s\n' "$name" "$result" "$passed" "$failed" "$took"
}

# No test at all is for `suite` to judge. Two tests a core: one a core leaves more than half of the machine idle.
nextest() {
    cargo nextest run --cargo-quiet --no-tests pass --test-threads "$((2 * $(nproc)))" ${CI:+--profile ci} "$@"
}

# --- the suites --------------------------------------------------------------------------------------------------

# One build for all of them, programs included: tests start target/debug/acb-server and acb. Python's module is built
# for its wheel, by maturin: in turns with ours, each would build its binding anew.
suite_build() {
    suite build check cargo build --quiet --all-targets "${product[@]/acb-python\/workspace-hack,/}" --exclude acb-python
}
# The Python client as users get it. The demo has members in Python, and clients in other languages run the scenarios too.
suite_wheel() { suite wheel check scripts/build-wheel.sh; }

suite_unit() { suite unit nextest nextest "${product[@]}" -E 'kind(lib) + kind(bin)'; }
suite_integration() {
    suite integration nextest nextest "${product[@]}" -E "(kind(test) + kind(example)) - ($crash + $conformance)"
}
suite_conformance() { suite conformance nextest nextest "${product[@]}" -E "$conformance"; }
# What a round did is shown also when all went well: how much was on its way when the server was killed.
suite_crash() { suite crash nextest nextest "${product[@]}" --success-output immediate -E "$crash"; }
suite_log() { suite log nextest nextest "${apart[@]}" -E 'package(acb-log)'; }
suite_faults() { suite faults nextest nextest "${apart[@]}" -E 'package(acb-sim)'; }
suite_simulation() { suite simulation plain simulate; }
simulate() {
    # Not `cargo run`: that would choose other features and build much of this once more.
    cargo build --quiet "${apart[@]}" --all-targets &&
        "${CARGO_TARGET_DIR:-target}/debug/acb-sim" --seeds "$ACB_SIM_SEEDS" --seconds "$ACB_SIM_SECONDS"
}
suite_doc() { suite doc cargo cargo test --quiet --doc "${product[@]}"; }
suite_foreign() { suite foreign pytest python -m pytest --color=no -p no:cacheprovider -rs conformance/foreign; }
suite_python() {
    suite python pytest target/python/venv/bin/python -P -m pytest --color=no -p no:cacheprovider -rs \
        -c sdk-python/pyproject.toml --rootdir sdk-python sdk-python/tests
}
suite_contract() { suite contract check scripts/buf-lint.sh; }
suite_generated() { suite generated check cargo xtask codegen --check; }
suite_tidy() { suite tidy check cargo xtask tidy; }

wanted=("$@")
[ ${#wanted[@]} -gt 0 ] \
    || wanted=(contract tidy generated unit integration doc conformance foreign python log faults crash simulation)
for name in "${wanted[@]}"; do
    declare -F "suite_$name" >/dev/null || fail "unknown suite '$name'"
done

# The simulation is built by its own suite.
needs_build() { case " ${wanted[*]} " in *" unit "* | *" integration "* | *" conformance "* | *" crash "* | *" foreign "* | *" python "*) ;; *) false ;; esac; }
needs_wheel() { case " ${wanted[*]} " in *" integration "* | *" conformance "* | *" python "*) ;; *) false ;; esac; }

began=$(seconds)
if needs_build; then suite_build; fi
if [ "${results[0]:-ok}" = ok ] && needs_wheel; then suite_wheel; fi
if [ "${results[0]:-ok}${results[1]:-ok}" = okok ]; then
    for name in "${wanted[@]}"; do
        "suite_$name"
    done
fi

# --- the table ---------------------------------------------------------------------------------------------------

total_passed=0 total_failed=0 total_skipped=0
heading "all suites"
printf '%-14s %8s %8s %8s %8s  %s\n' suite passed failed skipped seconds result
for i in "${!names[@]}"; do
    printf '%-14s %8d %8d %8d %8d  %s\n' "${names[i]}" "${counts_passed[i]}" "${counts_failed[i]}" \
        "${counts_skipped[i]}" "${times[i]}" "${results[i]}"
    total_passed=$((total_passed + counts_passed[i]))
    total_failed=$((total_failed + counts_failed[i]))
    total_skipped=$((total_skipped + counts_skipped[i]))
done
printf '%-14s %8d %8d %8d %8d\n\n' total "$total_passed" "$total_failed" "$total_skipped" $(($(seconds) - began))

closing="$total_passed passed, $total_failed failed"
[ "$total_skipped" -eq 0 ] || closing+=", $total_skipped skipped"
printf '%s\n' "$closing"
[ "$total_failed" -eq 0 ]
