VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# More than cores: many tests wait for processes, sockets and clocks.
TEST_PROCESSES ?= 3

.PHONY: help run test test-oldest chaos soak fuzz lint format bench bench-peers clean
help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.installed ## Serve on 127.0.0.1:8080 (settings: environment or .env)
	@$(BIN)/gunicorn -c gunicorn.conf.py wsgi:app

# With bytecode, whatever the environment says: the suite starts Python some hundred times.
test: $(VENV)/.installed-test ## Run the whole test suite
	@PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile

# In a folder of its own. What only the tests need may ask for newer ones; pip says so, and goes on.
test-oldest: ## Run it with the oldest version of each dependency that pyproject.toml allows
	@$(MAKE) --no-print-directory VENV=.venv-oldest .venv-oldest/.installed-test
	@.venv-oldest/bin/pip install --quiet --disable-pip-version-check $$(.venv-oldest/bin/python -c \
	  'import re, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*(re.sub(">=([0-9.]+).*", r"==\1", each) for each in project["dependencies"]))')
	@$(MAKE) --no-print-directory VENV=.venv-oldest test

chaos: $(VENV)/.installed-test ## Play every fault at every place, and print what clients see
	@$(BIN)/python -m tests.chaos
	@EXAMPLES=1000 $(BIN)/pytest -q --timeout 600 tests/chaos/test_exactly_once.py

soak: $(VENV)/.installed-test ## Send 100,000 requests with faults, and print what of them stays (REQUESTS=5000)
	@$(BIN)/python -m tests.soak

lint: $(VENV)/.installed-lint ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.installed-lint ## Put the code into its format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

fuzz: $(VENV)/.installed-test ## Fuzz the parsers, guided by coverage (SECONDS=60 for each)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,fuzz]'
	@for target in validator schema reader translator; do \
	  $(BIN)/python -m tests.fuzz $$target $(or $(SECONDS),60) || exit 1; done

bench: $(VENV)/.installed-test ## Measure what the gateway costs, beside others (BENCH="--only burst --rounds 1")
	@$(BIN)/python -m bench $(BENCH)

bench-peers: ## Install the others that bench compares with
	@bench/install-peers

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=python3.x" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	@echo "Installing into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

$(VENV)/.installed-lint: $(VENV)/.installed-test
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch $@
