# driftloop: `make demo` shows it, `make test` proves it; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint prepared bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## virtual environment, pinned packages, llama-cpp-python's build

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "driftloop needs Python 3.11 or newer; name one with make PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
	  { echo "$(PYTHON) has no venv module; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@command -v c++ >/dev/null || \
	  { echo "llama-cpp-python is compiled here: install g++ (on Debian: apt-get install g++)" >&2; exit 2; }
	@echo "1 of 3: virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --constraint constraints.txt filelock
	@echo "2 of 3: llama-cpp-python from its pinned sdist"
	@$(BIN)/pip install --quiet --no-deps --no-index "$$($(BIN)/python -m driftloop.devices.runner.llama_cpp)"
	@echo "3 of 3: pinned packages, torch among them (some minutes the first time)"
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)  ## the whole job on the tiny bundle and a virtual phone
	$(BIN)/driftloop demo

lint: $(READY)  ## ruff, mypy --strict, direction of dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(READY)  ## lint and all tests, both ABIs of the virtual phone
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=line lint prepared
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# Models and runners that tests would otherwise wait for, one after another, while a core is idle.
prepared: $(READY)
	$(BIN)/python -m driftloop.fixtures.demo
	$(BIN)/python -m driftloop.fixtures.deep
	$(BIN)/python -m driftloop.devices.runner.build arm64-dotprod
	$(BIN)/python -m driftloop.devices.runner.build x86_64-v3

bench: $(READY)  ## speeds as ratios, side by side in one run (about half an hour)
	$(BIN)/python -m tests.bench

clean:  ## the environment and everything made in this folder (not ~/.cache/driftloop)
	rm -rf $(VENV) build runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
