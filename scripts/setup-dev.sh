#!/usr/bin/env bash
# Puts on this machine what the repository needs and the machine lacks. Says what it does; does nothing twice.
#
#   scripts/setup-dev.sh [build|demo|test|coverage]
#
#   build     the Rust toolchain and a C compiler: enough for `make build` and `make run-server`
#   demo      and Python, with what builds the Python client, in .venv: enough for `make demo`
#   test      and strace, Node.js, and what lints and tests take of it in proto/node_modules and sdk-python/node_modules
#             (the default)
#   coverage  and LLVM's coverage tools of the compiler's own version
#
# Supported: Debian 12 on x86-64 with rustup, Python 3.11 or later and Node.js. Elsewhere it says what is missing.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

level="${1:-test}"
case "$level" in build | demo | test | coverage) ;; *) fail "unknown level '$level': build, demo, test or coverage" ;; esac

have() { command -v "$1" >/dev/null 2>&1; }

# Debian packages, by name. On a fresh machine the package lists may be missing: then one more try after fetching them.
apt_install() {
    have apt-get || fail "missing: $*; there is no apt-get here, install them by the means of this system"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        have sudo || fail "missing: $*; installing them takes root: apt-get install $*"
        as_root=(sudo)
    fi
    say "installing $* (apt-get)"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@")
    "${as_root[@]}" "${install[@]}" >/dev/null 2>&1 && return
    "${as_root[@]}" apt-get update -qq >/dev/null || fail "apt-get update failed"
    "${as_root[@]}" "${install[@]}" >/dev/null || fail "apt-get could not install $*"
}

# --- build -------------------------------------------------------------------------------------------------------

rust_wanted=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)

# rustup may be barred from downloading. A toolchain of the same version under another name serves as well.
link_same_rust() {
    local home="${RUSTUP_HOME:-$HOME/.rustup}" found host
    for found in "$home"/toolchains/*; do
        [ -x "$found/bin/rustc" ] || continue
        case "$("$found/bin/rustc" -V 2>/dev/null)" in
        "rustc $rust_wanted "*)
            host=$("$found/bin/rustc" -vV | sed -n 's/^host: //p')
            # It has its name already: what ails is something else.
            [ ! -e "$home/toolchains/$rust_wanted-$host" ] || return 1
            say "rust $rust_wanted is installed as ${found##*/}: giving it its own name too"
            ln -sT "$found" "$home/toolchains/$rust_wanted-$host"
            return
            ;;
        esac
    done
    return 1
}

rust_here() {
    rustc -V 2>/dev/null | grep -q "^rustc $rust_wanted " && cargo -V 2>/dev/null | grep -q "^cargo $rust_wanted "
}

if ! rust_here; then
    if have rustup; then
        link_same_rust || {
            say "installing rust $rust_wanted (rustup)"
            rustup toolchain install --no-self-update >/dev/null 2>&1 || true
        }
    fi
    rust_here || fail "rust $rust_wanted is missing or does not answer: rustc says '$(rustc -V 2>&1 | head -n 1)', cargo says '$(cargo -V 2>&1 | head -n 1)'"
fi

packages=()
have cc || packages+=(gcc libc6-dev)
have make || packages+=(make)
if [ "$level" != build ]; then
    have python3 || packages+=(python3 python3-venv)
fi
if [ "$level" = test ] || [ "$level" = coverage ]; then
    have npm || packages+=(nodejs npm)
    # The crash suite looks at the server's system calls, and makes them fail.
    have strace || packages+=(strace)
fi
[ ${#packages[@]} -eq 0 ] || apt_install "${packages[@]}"
if [ "$level" = build ]; then
    exit 0
fi

# --- demo --------------------------------------------------------------------------------------------------------

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or later is needed, this is $(python3 -V)"

# The stamp names what .venv was made from and where: a moved or copied folder is made anew.
stamp="$(python3 -V) $PWD $(sha256sum <scripts/requirements.txt)"
if [ "$(cat .venv/stamp 2>/dev/null)" != "$stamp" ]; then
    say "installing the tools of scripts/requirements.txt into .venv (pip)"
    rm -rf .venv
    # The shell remembers where it found python3, which may have been in there.
    hash -r
    python3 -m venv .venv 2>/dev/null || {
        apt_install python3-venv
        rm -rf .venv
        python3 -m venv .venv
    }
    # Only what these hashes name, and nothing that would have to be built here.
    .venv/bin/pip install --quiet --disable-pip-version-check --no-input --require-hashes --only-binary :all: \
        -r scripts/requirements.txt
    printf '%s\n' "$stamp" >.venv/stamp
fi

[ "$level" != demo ] || exit 0

# --- test --------------------------------------------------------------------------------------------------------

if ! [ -x proto/node_modules/.bin/buf ]; then
    say "installing buf into proto/node_modules (npm)"
    (cd proto && npm ci --no-audit --no-fund --silent)
fi
if ! [ -x sdk-python/node_modules/.bin/pyright ]; then
    say "installing pyright into sdk-python/node_modules (npm)"
    (cd sdk-python && npm ci --no-audit --no-fund --silent)
fi
[ "$level" = coverage ] || exit 0

# --- coverage ----------------------------------------------------------------------------------------------------

# Profiles are read by tools of the LLVM that wrote them.
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
if ! have "llvm-cov-$llvm" || ! have "llvm-profdata-$llvm"; then
    apt_install "llvm-$llvm"
fi
