# make demo: the real pair, end to end.   make test: everything that is checked.
# Nothing is needed before either but Python 3.11+ and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PAIR   := .cache/pair
ORACLE := .cache/oracle

.PHONY: demo test pair bench-foundation bench-algebra oracle fuzz clean

demo: $(VENV)/.installed $(PAIR)/.installed
	$(BIN)/python benchmarks/demo.py --pair $(PAIR)

test: $(VENV)/.tests $(PAIR)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	DIFFPACK_PAIR=$(PAIR) $(BIN)/python -m pytest -n 2

bench-foundation: $(VENV)/.bench $(PAIR)/.installed
	$(BIN)/python benchmarks/foundation.py --pair $(PAIR) --csv benchmarks/results/foundation.csv
	$(BIN)/python benchmarks/plot.py benchmarks/results/foundation.csv docs/sizes.svg

bench-algebra: $(VENV)/.bench $(PAIR)/.installed
	$(BIN)/python benchmarks/algebra.py --pair $(PAIR) --csv benchmarks/results/algebra.csv

# What mergekit and PEFT make of small models, frozen for the tests; they get an environment of their own.
oracle: $(ORACLE)/.installed
	$(ORACLE)/bin/python tests/oracles/make_oracles.py

fuzz: $(VENV)/.tests
	$(BIN)/python benchmarks/fuzz.py --seconds 300

pair: $(PAIR)/.installed

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "diffpack needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	touch $@

$(VENV)/.tests: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.bench: $(VENV)/.tests
	$(PIP) -e '.[test,bench]'
	touch $@

$(PAIR)/.installed: benchmarks/requirements-pair.txt | $(VENV)/bin/python
	$(PIP) --no-deps --upgrade --target $(PAIR) -r benchmarks/requirements-pair.txt
	touch $@

$(ORACLE)/.installed: benchmarks/requirements-oracle.txt constraints.txt
	$(PYTHON) -m venv $(ORACLE)
	$(ORACLE)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r benchmarks/requirements-oracle.txt
	$(ORACLE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps mergekit==0.1.5 peft==0.21.2
	touch $@

clean:
	rm -rf $(VENV) .cache build dist *.egg-info demo-out
