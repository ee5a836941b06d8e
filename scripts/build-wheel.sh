#!/usr/bin/env bash
# Builds the Python client's wheel in the dev profile and installs it into an environment of its own, from where tests
# import it: never from the source folder.
#
#   scripts/build-wheel.sh            prints the environment's interpreter
#   scripts/build-wheel.sh release    builds in the release profile, installs nothing and prints the wheel
#
# Does nothing when neither the library nor the Python files have changed since.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

target="${CARGO_TARGET_DIR:-$PWD/target}"
home="$target/python"
python="$home/venv/bin/python"
mkdir -p "$home/wheels"

# Tests bring their tools from .venv: pytest, mypy, uvloop. What they test comes from the wheel alone.
if ! [ -x "$python" ] || [ "$(cat "$home/venv/stamp" 2>/dev/null)" != "$PWD" ]; then
    rm -rf "$home/venv"
    python3 -m venv --without-pip "$home/venv"
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/tools.pth"
    printf '%s\n' "$PWD" >"$home/venv/stamp"
fi

profile=${1:-dev}
wheels="$home/wheels"
# The tests' own shares what it is built from with them; a release has nothing of theirs.
features=(--features workspace-hack)
if [ "$profile" != dev ]; then
    wheels="$home/wheels-$profile"
    features=()
fi
mkdir -p "$wheels"
rm -f "$wheels"/*.whl
# Its own words go to the log; a failure shows them.
if ! (cd sdk-python && maturin build --quiet --profile "$profile" "${features[@]}" --target-dir "$target" --interpreter "$python" \
    --auditwheel skip --out "$wheels") >"$home/build.log" 2>&1; then
    cat "$home/build.log" >&2
    fail "the wheel was not built"
fi
wheel=$(compgen -G "$wheels/*.whl") || fail "maturin made no wheel"
if [ "$profile" != dev ]; then
    printf '%s\n' "$wheel"
    exit
fi
sum=$(sha256sum <"$wheel")
if [ "$(cat "$home/venv/installed" 2>/dev/null)" != "$sum" ]; then
    .venv/bin/pip --python "$python" install --quiet --disable-pip-version-check --no-index --no-deps --force-reinstall \
        "$wheel"
    printf '%s\n' "$sum" >"$home/venv/installed"
fi
printf '%s\n' "$python"
