#!/usr/bin/env bash
# cargo's compiler for the crates of this workspace while coverage is measured: theirs alone are instrumented, so
# dependencies are neither measured nor built anew. bash and not sh: dash drops variables whose names have a hyphen, and
# `CARGO_BIN_EXE_acb-server` is one that tests are compiled with.
exec "$@" -C instrument-coverage
