# pipelined: `make run` shows the whole job, `make test` proves it. Both set themselves up.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.set-up

EVENTS ?= 10000
SEED   ?= 1
SOURCE ?= file
DIR    ?= run
# More than the two cores of CI: most tests wait for something most of the time.
JOBS   ?= 3
# A day of chaos; without SEED= a new one is drawn, and printed.
MINUTES ?= 10
BROKERS ?= 3
HOSTS   ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup run test lint format bench chaos docs lock clean

help: ## List what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make the virtual environment, from the lock file

$(STAMP): requirements.lock setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "pipelined needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing the system package python3-venv"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; \
	  else \
	    echo "Python's venv module is missing; install it first: apt-get install python3-venv" >&2; exit 1; \
	  fi; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked packages into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: $(STAMP) ## The main job on a local Kafka: SOURCE=file|eventhouse|eventhub|both EVENTS=10000 SEED=1 FILE=my.jsonl KEEP=1 LEDGER=path DIR=run
	@$(BIN)/pipelined demo --directory "$(DIR)" --source "$(SOURCE)" --events $(EVENTS) --seed $(SEED) \
	  $(if $(FILE),--file "$(FILE)") $(if $(KEEP),--keep) $(if $(LEDGER),--ledger "$(LEDGER)")

test: $(STAMP) ## All tests: unit, contract, integration, acceptance, a short chaos
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

lint: $(STAMP) ## ruff and mypy --strict
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@echo "lint: clean"

format: $(STAMP) ## Format the code
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix .

bench: $(STAMP) ## The benchmarks, with their ratios; the results go to benchmarks/
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: $(STAMP) ## A day of faults drawn from a seed, judged: MINUTES=10 SEED=7 BROKERS=3 HOSTS=2 SOURCE=both RECORD=1
	@PYTHONPATH=.:tests $(BIN)/python -m chaos.day --minutes $(MINUTES) --brokers $(BROKERS) --hosts $(HOSTS) --source "$(SOURCE)" \
	  $(if $(filter command environment,$(firstword $(origin SEED))),--seed $(SEED)) \
	  $(if $(RATE),--rate $(RATE)) $(if $(RECORD),--record) $(if $(KEEP),--keep) $(ARGS)

docs: $(STAMP) ## Write the generated files: etc/pipelined.toml, docs/reference, dashboards
	@$(BIN)/python -m docs.generate

lock: $(STAMP) ## Lock the newest versions of all packages that setup.cfg allows
	@$(BIN)/pip-compile --quiet --upgrade --strip-extras --generate-hashes --allow-unsafe --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --extra local --extra dev --output-file requirements.lock setup.cfg

clean: ## Remove what was made here, the environment included
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis ./*.egg-info
