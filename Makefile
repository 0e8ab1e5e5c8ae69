# Every target sets up its own virtual environment first; nothing needs to be activated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
# One more than there are cores on a small machine: tests wait for processes to start.  Whoever is done takes over from the others.
PYTEST_ARGS ?= -n 3 --dist worksteal
FUZZ_MINUTES ?= 1
FUZZ_TARGETS ?= packet envelope http1-request http1-response http2-caller http2-agent policy members
SOAK_MINUTES ?= 10

.PHONY: install demo test test-compiled native lint schema docs audit bench wheel wheelhouse chart image-rehearsal run fuzz soak clean

install: $(VENV)/.demo

demo: $(VENV)/.demo
	$(BIN)/phoenixflight demo

# Where codecs could be compiled, the suite runs on them, and what tells of the wire runs on jh2 and httptools as well.
WIRE_TESTS := $(addprefix tests/conformance/test_,abuse_http1.py abuse_http2.py bodies.py drain.py http1.py http2.py smuggling.py) \
	tests/integration/test_h2spec.py

test: $(VENV)/.dev
	tools/test-deps
	$(BIN)/python tools/native
	$(BIN)/pytest $(PYTEST_ARGS)
ifneq ($(origin PYTEST_ARGS),command line)
	! ls gateway/proxy/codec/_*.so >/dev/null 2>&1 || \
		PHOENIXFLIGHT_HTTP1=httptools PHOENIXFLIGHT_HTTP2=jh2 $(BIN)/pytest $(PYTEST_ARGS) $(WIRE_TESTS)
endif

native: $(VENV)/.dev
	$(BIN)/python tools/native

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

schema: $(VENV)/.dev
	$(BIN)/python tools/write-schema

# The documentation as a site, in site/.  A link that leads nowhere fails it.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# What users get with it: is anything of it known to be vulnerable, and may we pass it on?
audit: $(VENV)/.audit
	$(BIN)/python tools/audit

# Each target for so many minutes; what is found breaks off and lies in .fuzz/.
fuzz: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --group fuzz
	set -e; for target in $(FUZZ_TARGETS); do $(BIN)/python -m tests.fuzz $$target $(FUZZ_MINUTES); done

soak: $(VENV)/.dev
	tools/test-deps
	SOAK_MINUTES=$(SOAK_MINUTES) $(BIN)/python -m tests.soak

bench: $(BENCH_VENV)/.bench
	$(BENCH_VENV)/bin/python -m bench

wheel:
	tools/compiled-wheel

# The tests of the wire against the compiled wheel.
test-compiled: $(VENV)/.dev
	tools/test-compiled $(BIN)/python

# What an image is built from where PyPI cannot be reached.
wheelhouse: $(VENV)/.dev
	tools/wheelhouse $(BIN)/python

# What follows from the chart's values.yaml, and the chart's copies of alerts and dashboards.
chart: $(VENV)/.dev
	$(BIN)/python tools/write-chart

# Builds the image from the Dockerfile as it is, and runs it; takes root, buildah, debootstrap and some minutes.
image-rehearsal: $(VENV)/.dev
	tools/image-rehearsal $(BIN)/python
	$(BIN)/pytest tests/delivery/test_image.py

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
	$(BIN)/python -m pip install --quiet --editable '.[fast,demo]' --group dev --group docs --group examples
	touch $@

$(VENV)/.audit: $(VENV)/.pip
	$(BIN)/python -m pip install --quiet --editable '.[fast,redis,kubernetes,plot,demo]' --group audit
	touch $@

# The bench runs as production does: on the fastest Python there is, an optimised build where one is installed, and
# with the data plane compiled where there is a C compiler.
$(BENCH_VENV)/.bench: pyproject.toml $(shell find gateway -name '*.py' -o -name '*.[ch]')
	test -x $(BENCH_VENV)/bin/python || $$($(PYTHON) tools/fastest-python) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	PYTHON=$(BENCH_VENV)/bin/python tools/compiled-wheel
	$(BENCH_VENV)/bin/python -m pip install --quiet --group bench "$$(ls dist/*.whl)[fast,redis]"
	$(BENCH_VENV)/bin/python -m pip install --quiet --no-deps --force-reinstall dist/*.whl
	touch $@

clean:
	rm -rf $(VENV) $(BENCH_VENV) certs site bench/out gateway/proxy/codec/_*.so
