# `make demo` and `make test` each start from nothing and are quick the second time.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin
PIP_INSTALL := $(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test lint clean

help:
	@echo "make demo   install into $(VENV) and answer one question in each of four languages"
	@echo "make test   install the test tools too, check style, types and imports, run every test"
	@echo "make lint   only the checks of style, types and imports"
	@echo "make clean  remove $(VENV) and everything built"

demo: $(VENV)/.demo-installed
	@echo "==> Retrieve, rerank, assemble: Arabic, French, Polish, English (no network from here on)"
	@$(RUN)/rerank-plugins demo

test: lint
	@echo "==> Running the tests"
	@$(RUN)/python -m pytest

lint: $(VENV)/.test-installed
	@echo "==> Checking style, types and imports"
	@$(RUN)/ruff check --quiet . && $(RUN)/ruff format --quiet --check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports > $(VENV)/lint-imports.log || (cat $(VENV)/lint-imports.log; exit 1)

$(VENV)/bin/python:
	@echo "==> Creating the environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "==> Installing rerank-plugins and what it needs (torch is large: some minutes the first time)"
	@$(PIP_INSTALL) torch
	@$(PIP_INSTALL) -e ".[all]"
	@touch $@

$(VENV)/.test-installed: $(VENV)/.demo-installed
	@echo "==> Installing the test tools"
	@$(PIP_INSTALL) -e ".[all,ray,train,test]"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
