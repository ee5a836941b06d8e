# Shared by the scripts of this folder; sourced, not run. Sets the working folder to the repository's root.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# Tools that scripts/setup-dev.sh put into .venv come before the machine's own.
PATH="$PWD/.venv/bin:$PATH"
export PATH

export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"

# Features with which tests and lints see the workspace: what is optional and ours. Not `acb-bench/peers`, whose two
# client libraries no test needs.
# shellcheck disable=SC2034
test_features=acb-ports/contract,acb-python/workspace-hack,acb-examples/workspace-hack

say() { printf '%s: %s\n' "${0##*/}" "$*"; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

heading() { printf '\n== %s\n' "$*"; }

# The clock of the table: whole seconds are enough.
seconds() { date +%s; }

# nextest's filter for test binaries whose name begins with a word; it refuses names that are nowhere.
binaries() {
    if compgen -G "*/tests/$1*" >/dev/null || compgen -G "*/*/tests/$1*" >/dev/null; then
        printf 'binary(/^%s/)' "$1"
    else
        printf 'none()'
    fi
}
