#!/usr/bin/env bash
# Everything that reads the code without running it. Runs all steps, then says which failed.
#
#   scripts/lint.sh [step …]    steps: fmt clippy clippy-tests generated tidy proto deny spelling links shell python docs
set -euo pipefail
source "$(dirname "$0")/lib.sh"
scripts/setup-dev.sh test

# A clean checkout has its lock file; on a developer's machine a changed manifest may change it.
locked=()
[ -z "${CI:-}" ] || locked=(--locked)

color=auto
[ -t 1 ] || color=never
step_fmt() { cargo fmt --all --check -- --color "$color"; }

# The clients of the benchmark's peers, which nothing else compiles. In all steps that read the code: dependencies that are
# chosen with the same features are checked once.
peers=acb-bench/peers

# The product: every lint.
step_clippy() {
    cargo clippy --quiet --keep-going --workspace --features "$peers" "${locked[@]}" -- -D warnings
}

# And with it its tests. They own their tasks and time, and a panic is how they fail; clippy knows that of test functions,
# but not of their helpers in tests/ folders.
tests_may=(-A clippy::disallowed_methods -A clippy::disallowed_types -A clippy::unwrap_used -A clippy::expect_used
    -A clippy::panic -A clippy::float_cmp)
step_clippy-tests() {
    cargo clippy --quiet --keep-going --workspace --all-targets --features "$peers,$test_features" "${locked[@]}" -- \
        -D warnings "${tests_may[@]}"
}

step_generated() { cargo xtask codegen --check; }
step_tidy() { cargo xtask tidy; }
step_proto() { scripts/buf-lint.sh; }

# Without the advisories: their database is a repository of its own. deny.toml has the ones that we know of.
step_deny() { cargo deny --log-level error check --hide-inclusion-graph licenses bans sources; }

step_spelling() { typos; }
step_links() { scripts/check-links.py; }
# Style of the Python client and of its tests. Its types are checked by its tests, on what is installed.
step_python() { ruff check --quiet sdk-python examples/python; }
step_shell() { shellcheck --external-sources --source-path=scripts scripts/*.sh .ci/run; }
step_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --quiet --keep-going --workspace --no-deps --features "$peers" "${locked[@]}"; }

steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(fmt spelling links shell python deny proto tidy generated clippy clippy-tests docs)

failed=()
began=$(seconds)
for step in "${steps[@]}"; do
    declare -F "step_$step" >/dev/null || fail "unknown step '$step'"
    heading "lint: $step"
    at=$(seconds)
    if "step_$step"; then
        printf '   %s: ok, %d s\n' "$step" $(($(seconds) - at))
    else
        failed+=("$step")
        printf '   %s: FAILED, %d s\n' "$step" $(($(seconds) - at))
    fi
done

took=$(($(seconds) - began))
[ ${#failed[@]} -eq 0 ] || fail "failed after $took s: ${failed[*]}"
printf '\nlint: %d steps without a finding, %d s\n' ${#steps[@]} "$took"
