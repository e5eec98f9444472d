# Every door works on a machine that has Python 3.11 or newer and make: it makes .venv and installs what it needs there,
# again only when pyproject.toml, constraints.txt or the Python changed. PYTHON=... chooses the Python.

VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
TORTURERS ?= 3
POSTGRES ?= $(patsubst /usr/lib/postgresql/%/bin/postgres,%,$(wildcard /usr/lib/postgresql/15/bin/postgres)) 16 18
PYTHONS := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# pyright runs on the node that its wheel brings, not on the machine's, and does not look for newer versions.
export PYRIGHT_PYTHON_GLOBAL_NODE := 0
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-postgres check bench torture clean lint format-check pyright mypy ty imports FORCE

help:  ## show the doors
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "%-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime  ## watch an actor survive kill -9
	$(BIN)/perdure demo

test: $(VENV)/.dev  ## run the tests, but for the torture ones (WORKERS=2)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-postgres: $(VENV)/.dev  ## run what needs PostgreSQL on each version that is installed (POSTGRES="16 18")
	@set -e; for version in $(POSTGRES); do \
		PERDURE_TEST_POSTGRES_VERSION=$$version $(BIN)/python -m pytest -n $(WORKERS) -k postgres tests/unit tests/conformance tests/acceptance; \
	done

check: lint format-check pyright mypy ty imports  ## lint, format, types and imports (-k: go on after a failure)

bench: $(VENV)/.dev  ## measure
	$(BIN)/python -m benchmarks

torture: $(VENV)/.dev  ## run the long tests, with no time limit, and tell what they showed (TORTURERS=3)
	$(BIN)/python -m pytest -n $(TORTURERS) -m torture -o faulthandler_timeout=0 -rP

clean:  ## remove everything that the other doors made
	rm -rf $(VENV) .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lint: $(VENV)/.dev
	$(BIN)/ruff check

format-check: $(VENV)/.dev
	$(BIN)/ruff format --check

pyright: $(VENV)/.dev
	$(BIN)/pyright

mypy: $(VENV)/.dev
	$(BIN)/mypy

ty: $(VENV)/.dev
	$(BIN)/ty check tests/typing

imports: $(VENV)/.dev
	$(BIN)/lint-imports

# The build backend is installed first and used in place, so that its version is pinned like every other.
$(VENV)/.runtime: $(VENV)/.python pyproject.toml constraints.txt
	$(INSTALL) hatchling
	$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@

# Rewritten, after a new venv, only when the Python is another one. The base executable, because `python3` may be that of
# an activated .venv itself.
PROBE := import os, sys; sys.version_info >= (3, 11) or sys.exit(1); \
	print(os.path.realpath(getattr(sys, "_base_executable", sys.executable)), sys.version.split()[0], sep="\n")

$(VENV)/.python: FORCE
	@for python in $(PYTHONS); do \
		found=$$("$$python" -c '$(PROBE)' 2>/dev/null) && break || found=; \
	done; \
	if [ -z "$$found" ]; then \
		echo "perdure needs Python 3.11 or newer; none among: $(PYTHONS). Try: make PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	if [ -x $(BIN)/python ] && [ "$$(cat $@ 2>/dev/null)" = "$$found" ]; then exit 0; fi; \
	base=$$(printf '%s\n' "$$found" | head -n 1); \
	echo "making $(VENV) with $$(printf '%s\n' "$$found" | paste -s -d ' ' -)"; \
	rm -rf $(VENV); \
	if ! "$$base" -m venv $(VENV); then \
		rm -rf $(VENV); echo "$$base cannot make a venv; on Debian and Ubuntu install python3-venv" >&2; exit 1; \
	fi; \
	printf '%s\n' "$$found" > $@
