# `make demo` and `make test` do all the set-up; `make setup` is the installation alone.
# TORCH_PIP_ARGS picks another build of torch, e.g. the small CPU one (see README.md).
PYTHON ?= python3
TORCH_PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
OUT ?= stepgold-demo
WORKERS ?= 2
SETUP := $(VENV)/.stepgold-setup
SERVERS := $(VENV)/.stepgold-servers
# Threads that spin while they wait cost small models half their speed on a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE
PYTEST := $(BIN)/python -m pytest

.PHONY: setup demo test test-slow check format bench-lab bench-quotes bench-judge bench-continue bench-retrieve bench-score bench-evaluate clean

setup: $(SETUP)

$(SETUP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch first and alone: a resolver that picks it as a dependency may bring gigabytes of CUDA.
	$(BIN)/python -m pip install --disable-pip-version-check torch==2.13.0 $(TORCH_PIP_ARGS)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	touch $@

# The servers that the slow tests talk to: llama.cpp's (xllamacpp) and `transformers serve`.
$(SERVERS): $(SETUP)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev,servers]'
	touch $@

demo: $(SETUP)
	$(BIN)/stepgold demo --seed $(SEED) --out $(OUT)

test: $(SETUP)
	$(PYTEST) -n $(WORKERS)

test-slow: $(SERVERS)
	$(PYTEST) -m slow -n $(WORKERS)

check: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(SETUP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-lab: $(SETUP)
	$(BIN)/python -m benchmarks.lab

bench-judge bench-score bench-evaluate bench-quotes: bench-%: $(SETUP)
	$(BIN)/python -m benchmarks.$*

bench-retrieve: $(SETUP)
	$(BIN)/python -m benchmarks.retrieve
	$(BIN)/python -m benchmarks.retrieve_quality

bench-continue: $(SETUP)
	$(BIN)/python -m benchmarks.continuation

clean:
	rm -rf $(VENV) stepgold-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Sizes, imports, calls and wording against the limits of tools/house.py; needs no installation.
.PHONY: house
house:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m tools.house
