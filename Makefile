# Every target sets up its own virtual environment first; nothing needs to be activated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n auto

.PHONY: demo test lint schema bench run clean

demo: $(VENV)/.demo
	$(BIN)/phoenixflight demo

test: $(VENV)/.dev
	tools/test-deps
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

schema: $(VENV)/.dev
	$(BIN)/python tools/write-schema

bench: $(VENV)/.bench
	$(BIN)/python -m bench

run: $(VENV)/.demo
	test -f certs/ca.pem || $(BIN)/phoenixflight certs dev --out certs
	$(BIN)/phoenixflight run --config config/gateway.yaml

$(VENV)/.pip: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	touch $@

$(VENV)/.demo: $(VENV)/.pip
	$(BIN)/python -m pip install --quiet --editable '.[fast,demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.pip
	$(BIN)/python -m pip install --quiet --editable '.[fast,demo]' --group dev
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --group bench
	touch $@

clean:
	rm -rf $(VENV) certs bench/out
