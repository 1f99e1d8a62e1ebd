# Every target sets up what it needs in .venv; the second time that costs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo browser test test-fast conformance lint format bench evidence notebooks clean
.DEFAULT_GOAL := test

$(READY): setup.py
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 10) <= sys.version_info < (3, 14) else "Python 3.10 to 3.13 is needed. Received: " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(READY)

demo: $(READY)
	rm -rf build/demo
	$(BIN)/mmoe-ranker demo --out build/demo

# The report's tests look at the page in a browser; where none is there and none can be had, they are skipped and say so.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || ! grep -qs '^ID=debian' /etc/os-release || \
		[ "$$(id -u)" != 0 ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
		--no-install-recommends chromium >/dev/null; } || echo "No browser could be installed: its tests will be skipped."

test: $(READY) browser
	$(BIN)/python -m pytest tests --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-fast: $(READY)
	$(BIN)/python -m pytest tests -m "not slow"

# make conformance TARGET=localhost:8500 MODELS=/tmp/half_plus_two METRICS=localhost:8501; without any, our own server
conformance: $(READY)
	CONFORMANCE_TARGET=$(TARGET) CONFORMANCE_MODELS=$(MODELS) CONFORMANCE_METRICS=$(METRICS) \
		$(BIN)/python -m pytest tests/conformance

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# make bench ONLY=train
bench: $(READY)
	$(BIN)/python -m tests.benchmarks $(ONLY)

# make evidence ONLY=kuairand
evidence: $(READY)
	$(BIN)/python -m tests.evidence $(ONLY)

# Runs the notebooks in full and keeps their outputs.
notebooks: $(READY)
	$(BIN)/python -m tests.notebooks

clean:
	rm -rf build $(VENV) *.egg-info .mypy_cache .pytest_cache .ruff_cache
