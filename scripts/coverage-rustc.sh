#!/bin/sh
# cargo's compiler for the crates of this workspace while coverage is measured: theirs alone are instrumented, so
# dependencies are neither measured nor built anew.
exec "$@" -C instrument-coverage
