#!/bin/sh
# Lints the contract with the buf that proto/package-lock.json pins. Installs it on first use.
set -eu
cd "$(dirname "$0")/../proto"
if ! [ -x node_modules/.bin/buf ]; then
    npm ci --no-audit --no-fund
fi
npx --no-install buf lint
npx --no-install buf build -o /dev/null
echo "buf: contract is clean"
