# `make demo` and `make test` are all the set-up there is: each makes what it needs and no more.
#
#   make demo      install into .venv and run the tour on real files
#   make test      install the judges (the real qemu-img and friends) where allowed, then run every test
#   make check     lint, types, layering
#   make bench     measure against the real qemu-img; writes bench/RESULTS.md
#   make torture   the long campaigns: more crash states, more random sequences, kill -9
#   make clean     remove what the above made, .venv included
#
#   ARGS="-k locking"        more arguments for pytest (test, torture) or bench/run.py (bench)
#   PYTHON=/usr/bin/python3  the interpreter for .venv, where the one found is not the one wanted

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV    ?= .venv
PYTHON  ?=
ARGS    ?=
# Under xdist one worker a core, but no more than eight: the tests are bound by the disk beyond that.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1); echo $$((n > 8 ? 8 : n)))

PY  := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet

.PHONY: help demo test check bench torture judges dev clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

# ---- set-up, each step kept by a stamp -------------------------------------------------------------------

$(VENV)/bin/python:
	@.ci/venv $(VENV) $(PYTHON)

# Editable: a change of the sources needs no new install, a change of pyproject.toml does.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@$(PIP) install --editable '.[dev]'
	@touch $(VENV)/.installed $@

dev: $(VENV)/.installed-dev

# A judge that cannot be installed is a loud skip in the tests here, and a failure when CI=true.
judges: $(VENV)/bin/python
	@missing=$$($(PY) tests/judges.py); [ -z "$$missing" ] || .ci/apt $$missing || true

# ---- work ------------------------------------------------------------------------------------------------

demo: $(VENV)/.installed
	@$(VENV)/bin/cowshed tour

test: dev judges
	@$(PY) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

torture: export COWSHED_TORTURE = 1
torture: dev judges
	@COWSHED_TORTURE=1 $(PY) -m pytest -n $(WORKERS) --dist worksteal -m torture --timeout 3600 $(ARGS)

check: dev
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

bench: $(VENV)/.installed judges
	@$(PY) bench/run.py $(ARGS)

clean:
	@rm -rf $(VENV) build dist *.egg-info src/*.egg-info
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +
