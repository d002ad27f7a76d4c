# `make` prints this help. `make run` and `make test` are all a newcomer needs.
SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3
T ?= tests
# Tests wait for other processes a third of their time, so that more of them than there are cores keep those busy.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(os.cpu_count() * 3 // 2 + 1)' 2>/dev/null || echo auto)
# Where a company's own authority is trusted, uv trusts it too.
export UV_SYSTEM_CERTS ?= true
export CHAOS_MINUTES CHAOS_REPORT CHAOS_PREVIOUS
# The tests start hundreds of interpreters; each of them would compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE
PART ?=
OPTIONS ?=

.DEFAULT_GOAL := help
.PHONY: help setup browser screenshots run dev test chaos integration lint format types layers proto policy docs check examples bench image clean

help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The standard library's venv, else uv, else virtualenv, else one clear line.
$(BIN)/python:
	@if $(PYTHON) -c 'import venv, ensurepip' >/dev/null 2>&1; then $(PYTHON) -m venv $(VENV); \
	elif command -v uv >/dev/null 2>&1; then uv venv -q --seed $(VENV); \
	elif command -v virtualenv >/dev/null 2>&1; then virtualenv -q $(VENV); \
	else echo "Install uv, or your system's package for Python's venv module, and run make again." >&2; exit 1; fi
	@$(BIN)/python -c 'import sys; sys.exit("Python 3.11 or newer is needed." if sys.version_info < (3, 11) else 0)'

# uv where it is installed; what it cannot reach, pip may.
define install
	@{ command -v uv >/dev/null 2>&1 && uv pip install -q --python $(BIN)/python -e "$(1)"; } || \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -e "$(1)"
endef

$(VENV)/.server: pyproject.toml | $(BIN)/python
	@echo "Installing the broker into $(VENV) ..."
	$(call install,.[server])
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing the broker and its test tools into $(VENV) (about a minute the first time) ..."
	$(call install,.[dev])
	@touch $@ $(VENV)/.server

setup: $(VENV)/.dev browser ## The virtual environment with everything for development, and a browser

# The tests of the auditor's pages skip without it, and say so; in CI they fail.
browser: ## Debian's Chromium for the tests of the auditor's pages, where this may install it
	@if command -v chromium >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "Installing Chromium ..."; \
	  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core) >/dev/null 2>&1 \
	  || echo "Chromium could not be installed; the tests of the auditor's pages need it." >&2; \
	else echo "Without Chromium the tests of the auditor's pages are skipped." >&2; fi

run: $(VENV)/.server ## Install, start `broker dev`, and see an exchange happen
	@$(BIN)/broker dev

dev: run ## The same as run

test: $(VENV)/.dev ## All tests; `make test T=tests/grants` for some
	@PATH="$(CURDIR)/$(BIN):$$PATH" exec $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(T)

chaos: $(VENV)/.dev ## Faults for ten minutes and the figures; `make chaos CHAOS_MINUTES=60 CHAOS_REPORT=chaos.json`
	@PATH="$(CURDIR)/$(BIN):$$PATH" exec $(BIN)/python -m pytest -s -p no:cacheprovider tests/chaos

integration: $(VENV)/.dev ## Only the tests against a real OpenBao
	@PATH="$(CURDIR)/$(BIN):$$PATH" exec $(BIN)/python -m pytest -m openbao

lint: $(VENV)/.dev ## ruff, codespell, buf lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/codespell
	@cd proto && ../$(BIN)/buf lint

format: $(VENV)/.dev ## Format the code and the protocol files
	@$(BIN)/ruff check --fix-only -q . ; $(BIN)/ruff format .
	@cd proto && ../$(BIN)/buf format -w

types: $(VENV)/.dev ## mypy, strict, over broker, tests and bench
	@$(BIN)/mypy

layers: $(VENV)/.dev ## Who may import whom
	@$(BIN)/lint-imports

proto: $(VENV)/.dev ## Regenerate broker/v1 from proto/
	@$(BIN)/python -m grpc_tools.protoc -Iproto --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --python_out=. --grpc_python_out=. \
	  --mypy_out=quiet:. --mypy_grpc_out=quiet:. proto/broker/v1/*.proto

policy: $(VENV)/.dev ## Check the policies and run their decision tables
	@$(BIN)/broker policy check policies
	@$(BIN)/broker policy test policies

docs: $(VENV)/.dev ## Regenerate the reference pages
	@$(BIN)/python -m docs.generate

check: lint types layers policy test ## Everything that CI demands

screenshots: $(VENV)/.dev ## The pictures of the auditor's pages in docs/images
	@$(BIN)/python -m tests.web.review.screenshots

examples: $(VENV)/.dev ## Start the examples, see them work, and end them
	@$(BIN)/python examples/play.py

bench: $(VENV)/.dev ## What it costs, for docs/performance.md (20 minutes); `make bench PART=faces` for some
	@$(BIN)/python -m bench $(PART) $(OPTIONS)

image: ## The container image
	docker build -t delegation-broker .

clean: ## Remove what was built
	rm -rf $(VENV) .broker-dev build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
