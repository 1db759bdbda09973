# make demo   sets up what is missing, runs the quickstart and writes its report
# make test   sets up what is missing and runs the tests
# make test-fast  runs those that run no sweep, start no Ray, kill nothing and need no cluster: minutes, for every change
# make test-lowest  runs them with the lowest versions that pyproject.toml allows, in an environment of its own
# make test-faults  kills runs two hundred times, at moments of the day (NTKSWEEP_KILL_SEED), and mutates many more inputs
# make golden records plans, numbers, messages and help pages, and says what differs from tests/golden/committed
# make seeded-faults  puts faults into a copy of the code and says which of them the tests catch
# make lint   checks style, formatting and types
# make docs   writes the pages that are made from the code
# make site   builds the pages as a site in build/site; a broken link within it is an error
# make clean  removes the virtual environment and what the demo fetched and computed

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
INSTALLED_FOR_DEMO := $(VENV)/installed-for-demo
CONSTRAINTS ?= constraints.txt
EXTRAS ?= demo,docs,test,lint
# Three processes of the whole suite wait for jobs of Slurm clusters rather than compute, where there can be such.
PROCESSES ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2)
# Folders of tests that take minutes: of whole sweeps, of every architecture, of groups of processes.
WHOLE := integration devices architectures finetune/zero

.PHONY: demo test test-fast test-lowest test-faults seeded-faults golden lint docs site setup data clean

demo: $(INSTALLED_FOR_DEMO)
	$(BIN)/python examples/fetch_quickstart.py
	$(BIN)/ntksweep run examples/quickstart.yaml
	$(BIN)/ntksweep report results/quickstart

test: data
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadgroup --no-loadscope-reorder $(PYTEST_OPTIONS)

test-fast: data
	$(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder \
		-m "not sweep and not ray and not faults and not cluster" $(WHOLE:%=--ignore=tests/%) $(PYTEST_OPTIONS)

test-faults: data
	NTKSWEEP_KILLS=200 NTKSWEEP_FUZZ=full $(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder \
		-m faults $(PYTEST_OPTIONS)

seeded-faults: data
	$(BIN)/python -m tests.seeded

test-lowest:
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt EXTRAS=demo,test

golden: data
	$(BIN)/python -m tests.golden record build/golden
	$(BIN)/python -m tests.golden compare tests/golden/committed build/golden/committed

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: data
	$(BIN)/python docs/write_reference.py
	$(BIN)/python docs/write_models.py
	$(BIN)/python docs/write_api.py

site: setup
	$(BIN)/python docs/build_site.py build/site

setup: $(INSTALLED)

data: setup
	$(BIN)/python examples/fetch_quickstart.py

define install
	@$(PYTHON) -c 'import sys; sys.exit("ntksweep needs Python 3.11 or newer: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	@echo "installing ntksweep[$(1)] with its libraries, PyTorch and Ray among them, into $(VENV); this takes minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[$(1)]'
endef

# Everything that tests, checks and pages need, and what the demo needs with it.
$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	$(call install,$(EXTRAS))
	touch $@ $(INSTALLED_FOR_DEMO)

$(INSTALLED_FOR_DEMO): pyproject.toml $(CONSTRAINTS)
	$(call install,demo)
	touch $@

clean:
	rm -rf $(VENV) .venv-lowest examples/data results/quickstart
