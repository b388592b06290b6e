# Two commands do everything on a fresh machine: `make train` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train sweep test test-all lint types check docs ui clean

train: .venv/ready          ## train on the bundled digits
	$(BIN)/python train.py

sweep: .venv/ready          ## search learning rate, loss, accumulation; two trials at a time
	$(BIN)/python train.py --multirun hydra.launcher.n_jobs=2

test: .venv/ready           ## the fast tests, under three minutes on two cores
	$(BIN)/python -m pytest -m "not slow"

test-all: .venv/ready       ## also the slow ones: kills, sweeps, MLflow, README commands
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/ready
	$(BIN)/mypy

check: lint types test-all  ## what CI runs

docs: .venv/ready           ## docs/errors.md, from the table that the tests use
	$(BIN)/python -m tests.errors > docs/errors.md

ui: .venv/ready             ## the MLflow page, on http://127.0.0.1:5000
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true \
		PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mlflow ui --workers 1 --backend-store-uri sqlite:///mlflow.db

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("visionsweep needs Python " \
		"3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

clean:
	rm -rf .venv
