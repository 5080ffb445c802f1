# What a newcomer types: `make demo`, `make test`. Each makes the environment it needs.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test quick lint format wheel clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Expected Python 3.11 or newer; got `$(PYTHON) -V`. Try make PYTHON=python3.11."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "Could not make $(VENV). On Debian: apt install python3-venv."; exit 1; }
	@echo "Installing into $(VENV); torch is large, this may take some minutes the first time."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY)  ## posterior spectra and redshifts of real and simulated galaxies
	$(BIN)/probmmae demo

test: $(READY)  ## every test, doctest and notebook
	$(BIN)/python -m pytest

quick: $(READY)  ## the tests under ten seconds
	$(BIN)/python -m pytest -m "not slow"

lint: $(READY)  ## style, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(READY)  ## dist/probmmae-*.whl
	rm -rf build
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

clean:  ## what the builds and the tools left; the environment stays
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find probmmae inference calibration tests benchmarks notebooks \
		-name __pycache__ -type d -prune -exec rm -rf {} +
