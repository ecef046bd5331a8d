# SPDX-License-Identifier: AGPL-3.0-or-later
# Every target first makes sure that .venv is what requirements.lock says; that takes no time when it is.
.DEFAULT_GOAL := help
.PHONY: help setup demo up down test lint bench soak mutants crash faults drills pictures
BIN := .venv/bin
WORKERS ?= 2
MINUTES ?= 60
JOBS ?= 1
SEED ?= 1000

help: ## this list
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 18

setup: ## build .venv from requirements.lock
	@devnet/setup.sh

demo: setup ## from a bare clone to a born deployment with deposits on both chains, narrated
	@$(BIN)/bulkhead demo

up: setup ## start the development network, give birth to a deployment, leave it living, and say what to do by hand
	@$(BIN)/bulkhead devnet up

down: setup ## stop the development network; what it stored stays
	@$(BIN)/bulkhead devnet down

lint: setup ## ruff, mypy --strict, import contracts
	@status=0; \
	$(BIN)/ruff check --output-format concise . || status=1; \
	$(BIN)/ruff format --check --output-format concise . || status=1; \
	$(BIN)/mypy || status=1; \
	$(BIN)/lint-imports || status=1; \
	exit $$status

# Both run whatever the first one finds; pytest's own summary is the last line. Whole files go to WORKERS processes, the longest
# first (tests/conftest.py); each worker has nodes, ports and folders of its own. A single file is quicker without: pytest FILE
test: setup ## lint, then every test (in two processes; on a larger machine: WORKERS=4)
	@status=0; $(MAKE) --no-print-directory lint || status=1; \
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder || status=1; exit $$status

bench: setup ## speed as ratios against bare operations (facts of one run, raw JSON kept)
	@$(BIN)/python -m tests.bench

soak: setup ## the property tests with many more examples, then MINUTES (60) of simulated runs from SEED on, on every idle core (or JOBS=2), with a summary
	@status=0; HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest tests/unit tests/contract --timeout=3600 || status=1; \
	$(BIN)/python -m tests.simulation --minutes $(MINUTES) --seed $(SEED) --jobs $(if $(filter command environment,$(origin JOBS)),$(JOBS),0) || status=1; exit $$status

faults: setup ## nodes, vaults, disks and clocks fail under withdrawals, and workers are stopped (many minutes)
	@BULKHEAD_LONG=1 $(BIN)/python -m pytest tests/faults -m "faults or not faults"

drills: setup ## seats vanish, wallets move to new ones, and coins come back from a backup with standard tools (five minutes)
	@BULKHEAD_LONG=1 $(BIN)/python -m pytest tests/devnet/test_drills.py

pictures: setup ## screenshots of every page of the console, at both widths, into docs/console
	@$(BIN)/python -m tests.console.pictures

crash: setup ## kill -9 at every commit and await of a deposit and a withdrawal, against a twin; minutes (EACH=1: each alone, an hour; ONLY=worker.commit)
	@$(BIN)/python -m tests.crash $(if $(EACH),--each) $(if $(ONLY),--only '$(ONLY)')

# The score is of what was asked so far; a later run goes on from there, and asks again what changed (tests/mutants.py).
mutants: setup ## change rules and flows at random for MINUTES (60); count what no test notices (ONLY='custody.rules.seat_checks_*'; SAMPLE=400: of that many drawn from all)
	@set -f; HYPOTHESIS_PROFILE=mutants nice -n 15 $(BIN)/python -m tests.mutants $(ONLY) $(if $(SAMPLE),--sample $(SAMPLE)) --minutes $(MINUTES) --jobs $(JOBS)
