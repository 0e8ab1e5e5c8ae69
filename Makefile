# Every target sets up its own virtual environment first; nothing needs to be activated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
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

bench: $(BENCH_VENV)/.bench
	$(BENCH_VENV)/bin/python -m bench

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

# The bench runs on the fastest Python there is: an optimised build, as production has, where one is installed.
$(BENCH_VENV)/.bench: pyproject.toml
	test -x $(BENCH_VENV)/bin/python || $$($(PYTHON) tools/fastest-python) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BENCH_VENV)/bin/python -m pip install --quiet --editable '.[fast]' --group bench
	touch $@

clean:
	rm -rf $(VENV) $(BENCH_VENV) certs bench/out
