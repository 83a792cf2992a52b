# `make quickstart` and `make test` do everything on a fresh machine that has Python and a network
# to install from; `make check` is the whole gate of a change.
#
# Variables, from the command line or the environment:
#   PYTHON      interpreter to make the environment with (3.11 or later)
#   VENV        where the environment is made
#   PYTESTARGS  further arguments for pytest: make test PYTESTARGS='-k packing -x'

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
PYTESTARGS ?=
# The first that is new enough and can make environments.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$name && break; done)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt

.PHONY: help setup quickstart test test-clusters lint format types imports docs check clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

# Stamps: what stands below them is installed again only when what it depends on has changed.

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later, with venv, was not found; give it as make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV); the first time this takes minutes"
	$(PIP) -e '.[report]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV); the first time this takes minutes"
	$(PIP) -e '.[dev]'
	@touch $(VENV)/.runtime $@

setup: $(VENV)/.dev ## make the environment with everything a contributor needs

quickstart: $(VENV)/.runtime ## set up, then run the main job on the packaged model and data
	$(BIN)/polyprefix quickstart

# A worker a CPU; tests keep torch to one thread each.
test: $(VENV)/.dev ## set up, then run the tests
	$(BIN)/python -m pytest -n logical --maxprocesses 8 $(PYTESTARGS)

$(VENV)/.clusters: $(VENV)/.dev
	$(PIP) -e '.[dev,ray,slurm]'
	@touch $@

# One after another: each starts nodes of a cluster on this machine.
test-clusters: $(VENV)/.clusters ## install Ray too, then run the tests on a real cluster (minutes)
	$(BIN)/python -m pytest -m 'slow or not slow' tests/test_clusters.py tests/test_engines.py $(PYTESTARGS)

lint: $(VENV)/.dev ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

imports: $(VENV)/.dev ## import-linter: the floors of the house
	$(BIN)/lint-imports

# Warnings are errors, see mkdocs.yml.
docs: $(VENV)/.dev ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m mkdocs build --quiet
	@echo "build/site/index.html"

check: lint types imports docs test ## all of these

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
