# `make demo` and `make test` each start from nothing and are quick the second time.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin
BENCH_DATA ?= ../shared/data
BENCH_PEERS ?= .venv-peers
PIP_INSTALL := $(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Tests share the cores among this many processes.
WORKERS ?= 2

.PHONY: notebooks docs linkcheck words pictures
.PHONY: help demo test test-fast lint bounds outputs bench mutants clean

help:
	@echo "make demo   install into $(VENV) and answer one question in each of four languages"
	@echo "make test   install the test tools too, check style, types and imports, run every test"
	@echo "make test-fast  lint, and the quick tests of the files changed since the last commit (SINCE=)"
	@echo "make lint   only the checks of style, types and imports"
	@echo "make bounds  resolve the lowest versions that pyproject.toml allows"
	@echo "make bench  time engines and first stages beside their peers (hours; question sets in BENCH_DATA)"
	@echo "make mutants  small changes of the package, each of which a test must notice (hours; SAMPLE=150)"
	@echo "make notebooks  run the notebooks anew, in place"
	@echo "make pictures  screenshots of rankings and of a report, in Chromium, into build/pictures; README's too"
	@echo "make docs   build the documentation into build/docs"
	@echo "make linkcheck  ask the sites that the documentation links to (needs a network)"
	@echo "make words  count turns of phrase that are not idiomatic technical English"
	@echo "make outputs  run the pages' code blocks and write down what they print"
	@echo "make clean  remove $(VENV) and everything built"

demo: $(VENV)/.demo-installed
	@echo "==> Retrieve, rerank, assemble: Arabic, French, Polish, English (no network from here on)"
	@$(RUN)/rerank-plugins demo

test: lint
	@echo "==> Running the tests"
	@$(RUN)/python -m pytest -n $(WORKERS) --dist worksteal

SINCE ?= HEAD
test-fast: lint
	@chosen="$$($(RUN)/python tests/affected.py $(SINCE))"; \
		if [ -n "$$chosen" ]; then $(RUN)/python -m pytest -m "not slow" $$chosen; \
		else echo "No changed file has tests"; fi

lint: $(VENV)/.test-installed
	@echo "==> Checking style, types and imports"
	@$(RUN)/ruff check --quiet . && $(RUN)/ruff format --quiet --check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports > $(VENV)/lint-imports.log || (cat $(VENV)/lint-imports.log; exit 1)

# Whether versions exist together at the bounds' lower ends, for the oldest and newest Python.
# uv ends with 1 where they do not, and with 2 where it cannot ask the index.
bounds: $(VENV)/.test-installed
	@mkdir -p build
	@for version in 3.10 3.13; do \
		echo "==> Resolving the lowest versions for Python $$version"; \
		$(if $(PIP_INDEX_URL),UV_DEFAULT_INDEX=$(PIP_INDEX_URL)) $(RUN)/uv pip compile --quiet pyproject.toml \
			--extra all --resolution lowest-direct --python-version $$version \
			--output-file build/lowest-$$version.txt >/dev/null; \
		case $$? in 0) ;; 2) echo "    no answer from the index: not checked" ;; *) exit 1 ;; esac; \
	done

# Resumes where it stopped; the folder mutants keeps the results.
mutants: $(VENV)/.test-installed
	@$(PIP_INSTALL) -e ".[mutants]"
	@$(RUN)/python tests/faults/mutants.py --processes $(WORKERS) \
		$(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

# Peers that clash get environments of their own under BENCH_PEERS.
bench: $(VENV)/.test-installed
	@$(RUN)/python benchmarks/peers.py --data $(BENCH_DATA) --environments $(BENCH_PEERS)
	@$(RUN)/python benchmarks/engines.py
	@$(RUN)/python benchmarks/first_stage_scale.py --data $(BENCH_DATA)
	@if $(RUN)/python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; \
		then $(RUN)/python benchmarks/gpu.py; else echo "No CUDA device: gpu.py left out"; fi

$(VENV)/bin/python:
	@echo "==> Creating the environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "==> Installing rerank-plugins and what it needs (torch is large: some minutes the first time)"
	@$(PIP_INSTALL) torch
	@$(PIP_INSTALL) -e ".[langchain,llama-index]"
	@touch $@

$(VENV)/.test-installed: $(VENV)/.demo-installed
	@echo "==> Installing the test tools"
	@$(PIP_INSTALL) -e ".[all,test]"
	@touch $@

# After a change of the weights, so that what the notebooks show is what a reader gets.
notebooks: $(VENV)/.test-installed
	@echo "==> Running the notebooks"
	@PYTHONWARNINGS="ignore:IProgress not found" $(RUN)/jupyter nbconvert --to notebook --execute \
		--inplace --ExecutePreprocessor.record_timing=False --log-level=ERROR notebooks/*.ipynb

pictures: $(VENV)/.test-installed
	@echo "==> Taking pictures in headless Chromium (Debian: apt-get install chromium fonts-noto-core)"
	@$(RUN)/python tests/pictures.py build/pictures

docs: $(VENV)/.test-installed
	@$(PIP_INSTALL) -e ".[docs]"
	@echo "==> Building the documentation into build/docs"
	@$(RUN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs

# Links to other sites; needs a network. Links within are checked by every build.
linkcheck: $(VENV)/.test-installed
	@$(PIP_INSTALL) -e ".[docs]"
	@$(RUN)/sphinx-build --quiet --keep-going -b linkcheck docs build/linkcheck

words:
	@$(PYTHON) tests/words.py

# After a change that moves scores, so that pages show what a reader gets.
outputs: $(VENV)/.test-installed
	@PYTHONPATH=. $(RUN)/python tests/pages.py

clean:
	rm -rf $(VENV) build dist mutants *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
