# The environment is about 5 GB: VENV=/some/where make train puts it elsewhere.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
REAL ?= $(HEADSTART_REAL)

.DEFAULT_GOAL := help
.PHONY: help install train test test-all lint docs format clean

help:  ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# made anew when the dependencies change
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

install: $(VENV)/.installed  ## Make the environment in $(VENV)

train: install  ## The offline demonstration: rendered letters -> handwritten digits
	$(BIN)/python src/train.py experiment=letters_to_digits

test: install  ## The default test suite, some minutes: no network, no GPU, no data
	$(BIN)/python -m pytest -n auto --dist worksteal

test-all: install  ## All tests, also slow ones; with REAL=<folder> also tests on real data and weights
	HEADSTART_REAL=$(REAL) $(BIN)/python -m pytest -n auto --dist worksteal -m ""

lint: install  ## What CI checks beside the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

docs: install  ## The documentation as a site, in build/site
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

format: install  ## Mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment and all caches; logs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
	find src -name '*.egg-info' -type d -prune -exec rm -rf {} +
