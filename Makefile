# The commands of this project. Each of them sets up .venv by itself, from nothing but a Python and make.

VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	{ command -v $$p; break; }; done)
STAMP  := $(VENV)/.ready

# Tests hold made-up keys; the detectors of real vendors' keys look at them all the same.
MADE_UP := $(patsubst %,--disable-plugin %,KeywordDetector BasicAuthDetector Base64HighEntropyString HexHighEntropyString \
	JwtTokenDetector)

.PHONY: setup run test check bench format clean

setup: $(STAMP)

$(STAMP): pyproject.toml sidecar/__init__.py
	@test -n "$(PYTHON)" || { echo "Sidecar needs Python 3.11 or newer with venv: install python3.11 (Debian, Ubuntu: apt install python3 python3-venv) or say PYTHON=/path/to/python."; exit 1; }
	@test -x $(BIN)/python || { echo "Setting up $(VENV) with $(PYTHON) ..."; $(PYTHON) -m venv $(VENV) || \
	{ echo "Python's venv module is missing: install it (Debian, Ubuntu: apt install python3-venv)."; rm -rf $(VENV); exit 1; }; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $(STAMP)

run: $(STAMP)
	@$(BIN)/sidecar run --demo

test: $(STAMP)
	@$(BIN)/python -m pytest

check: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@git ls-files -z -- . ':!tests' | xargs -0 $(BIN)/detect-secrets-hook
	@git ls-files -z -- tests | xargs -0 $(BIN)/detect-secrets-hook $(MADE_UP)

bench: $(STAMP)
	@$(BIN)/python -m tests.bench

format: $(STAMP)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
