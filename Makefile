# Every chore of the repository by one word. `make help` lists them; CI runs `make lint` and `make test`, no more.

# The demo: its program in target/debug, and what it is given. DIR is the folder that the team surveys; without it the
# demo takes the sources of this project's own dependencies.
DEMO = target/debug/acb-demo $(if $(DIR),"$(DIR)")
# Arguments of `make run-server`.
ARGS ?= --dev
# One profile for tests, demo and everyday work (profile.dev in Cargo.toml).
CARGO ?= cargo
# Programs for everyday work share what they are built from with the tests (testing/workspace-hack).
SHARED = --features acb-examples/workspace-hack

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo run-server build wheel test test-unit test-integration test-crash test-sim test-coverage bench lint fmt \
        docs clean

help: ## This list
	@echo "make TARGET [KNOB=value]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## A team of agents in Rust and Python surveys a folder while its server is killed (DIR=path: another folder)
	@scripts/setup-dev.sh demo
	@$(CARGO) build --bins $(SHARED)
	@scripts/build-wheel.sh >/dev/null
	@$(DEMO)

run-server: ## Run the server on 127.0.0.1:7400 (ARGS="…": its arguments; default --dev, which asks no credentials)
	@scripts/setup-dev.sh build
	@$(CARGO) build --bin acb-server $(SHARED)
	@target/debug/acb-server $(ARGS)

build: ## Build the programs: target/debug/acb-server, acb and acb-demo
	@scripts/setup-dev.sh build
	@$(CARGO) build --bins $(SHARED)

wheel: ## Build the Python client's wheel, for Python 3.11 and later, and print where it is
	@scripts/setup-dev.sh demo
	@scripts/build-wheel.sh release

test: ## Run every test suite, all checks included
	@scripts/run-tests.sh

test-unit: ## Tests inside the crates, and the examples in their documentation
	@scripts/run-tests.sh unit doc

test-integration: ## The crates' tests/ folders, conformance scenarios and the foreign client
	@scripts/run-tests.sh integration conformance foreign python

test-crash: ## Kill -9 of the real server under load (ROUNDS=n: how often, 30; INCREMENTS=n: of 32 counting agents, 30)
	@ACB_CRASH_ROUNDS=$(or $(ROUNDS),30) ACB_CRASH_INCREMENTS=$(or $(INCREMENTS),30) scripts/run-tests.sh crash

test-sim: ## Engine and log under simulation (SEEDS=n: how many seeds, all of them; default 2000 or 60 s)
	@$(if $(SEEDS),ACB_SIM_SEEDS=$(SEEDS) ACB_SIM_SECONDS=86400) scripts/run-tests.sh simulation

test-coverage: ## Lines of server, core and types that the tests reach; writes docs/coverage.md
	@scripts/coverage.sh

bench: ## ACB and its peers in one run; writes docs/benchmarks.md (QUICK=1: ACB alone, against the committed figures)
	@QUICK=$(QUICK) scripts/bench.sh

lint: ## Formatting, lints, spelling, scripts, licences, walls, generated files, documentation
	@scripts/lint.sh

fmt: ## Format all Rust code
	@$(CARGO) fmt --all

docs: ## Build the API documentation into target/doc
	@$(CARGO) doc --workspace --no-deps

clean: ## Remove what was built here, and the tools in .venv and proto/node_modules
	@$(CARGO) clean
	@rm -rf .venv proto/node_modules sdk-python/node_modules target-*
