# Every target works from a fresh clone with only Python 3.11+ and make: the first one called creates the environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: env demo pipeline test lint clean-env

env: $(STAMP)

$(STAMP): requirements-cpu.lock pyproject.toml
	@echo "Creating the environment in $(VENV) from requirements-cpu.lock (about two minutes, about 3 GB) ..."
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tandem needs Python 3.11 or newer, and this is " + sys.version.split()[0] + ": call make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-deps $(PIP_OPTIONS) --requirement requirements-cpu.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)
	@echo "The environment is ready: $(VENV)"

demo: $(STAMP)
	$(BIN)/python -m recipes.demo $(if $(SMALL),--small true) $(ARGS)

pipeline: $(STAMP)
	$(BIN)/python -m recipes.pipeline $(if $(SMALL),--small true) $(ARGS)

test: $(STAMP) lint
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean-env:
	rm -rf $(VENV)
