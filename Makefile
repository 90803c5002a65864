# The commands of this project. Each of them sets up .venv by itself, from nothing but a Python and make.

VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	{ command -v $$p; break; }; done)
STAMP  := $(VENV)/.ready

# Tests hold made-up keys, and manifests the names of Secrets; the detectors of real vendors' keys look at them all the
# same.
MADE_UP := $(patsubst %,--disable-plugin %,KeywordDetector BasicAuthDetector Base64HighEntropyString HexHighEntropyString \
	JwtTokenDetector)

# What writes the locks and installs past them. It has an environment of its own: a lock that no longer fits mends itself.
UV      := .venv-uv/bin/uv
UV_PIN  := uv==0.13.9
COMPILE  = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock' $(if $(UPGRADE),$(if $(filter all,$(UPGRADE)),--upgrade,$(UPGRADE:%=--upgrade-package %)))

SDKS := openai anthropic azure-ai-documentintelligence langchain-openai llama-index-llms-openai litellm 'pydantic-ai-slim[openai]' instructor
NODE_SDKS := openai @anthropic-ai/sdk ai @ai-sdk/openai @ai-sdk/anthropic

# A process of tests for each core; one that has nothing left takes over half of what another has.
WORKERS := --numprocesses auto --dist worksteal

PIP := -m pip --quiet --disable-pip-version-check

define VENV_NEEDED
	@test -n "$(PYTHON)" || { echo "Sidecar needs Python 3.11 or newer with venv: install python3.11 (Debian, Ubuntu: apt install python3 python3-venv) or say PYTHON=/path/to/python."; exit 1; }
	@test -x $(1)/bin/python || { echo "Setting up $(1) with $(PYTHON) ..."; $(PYTHON) -m venv $(1) || \
	{ echo "Python's venv module is missing: install it (Debian, Ubuntu: apt install python3-venv)."; rm -rf $(1); exit 1; }; }
endef

.PHONY: setup run test test-newest test-lowest api-server check bench soak sdk-matrix format lock clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements-dev.txt sidecar/__init__.py
	$(call VENV_NEEDED,$(VENV))
	@$(BIN)/python $(PIP) install --require-hashes --requirement requirements-dev.txt
	@$(BIN)/python $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

$(UV): Makefile
	$(call VENV_NEEDED,.venv-uv)
	@.venv-uv/bin/python $(PIP) install $(UV_PIN)
	@touch $(UV)

run: $(STAMP)
	@$(BIN)/sidecar run --demo

test: $(STAMP)
	@$(BIN)/python -m pytest $(WORKERS) $(TESTS)

# The suite with the newest, or the oldest, of what pyproject.toml allows, whatever is locked.
test-newest: RESOLUTION := highest
test-lowest: RESOLUTION := lowest-direct
test-newest test-lowest: test-%: $(UV)
	@$(UV) venv --quiet --clear --python $(PYTHON) .venv-$*
	@$(UV) pip install --quiet --python .venv-$* --resolution $(RESOLUTION) --editable . --group dev
	@.venv-$*/bin/python -m pytest $(WORKERS) $(TESTS)

# The API server that tests/scenarios/test_cluster*.py run, in a cache outside of the checkout; built once.
api-server:
	@tests/cluster/build_apiserver.sh

check: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@git ls-files -z -- . ':!tests' ':!k8s' | xargs -0 $(BIN)/detect-secrets-hook
	@git ls-files -z -- k8s | xargs -0 $(BIN)/detect-secrets-hook --disable-plugin KeywordDetector
	@git ls-files -z -- tests | xargs -0 $(BIN)/detect-secrets-hook $(MADE_UP)

bench: $(STAMP)
	@$(BIN)/python -m tests.bench

# Half an hour of mixed load with reloads; ends with 1 where the process grows, keeps something, or fails a call.
soak: $(STAMP)
	@$(BIN)/python -m tests.bench soak --output build/soak.json

# Other people's clients, at their newest, in environments of their own; see tests/sdk_matrix. Those of Node are asked
# where node and npm are installed.
sdk-matrix: $(STAMP)
	$(call VENV_NEEDED,.venv-sdks)
	@.venv-sdks/bin/python $(PIP) install --upgrade $(SDKS)
	@if command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1; then mkdir -p .node-sdks && \
	npm install --prefix .node-sdks --ignore-scripts --no-audit --no-fund --loglevel=error $(NODE_SDKS:%=%@latest); fi
	@$(BIN)/python -m tests.sdk_matrix

# What is locked stays where it still fits. UPGRADE=all takes the newest of everything, UPGRADE=NAME of one package.
lock: $(UV)
	@$(COMPILE) --output-file requirements.txt pyproject.toml
	@$(COMPILE) --output-file requirements-dev.txt --constraint requirements.txt --group dev pyproject.toml
	@$(COMPILE) --output-file requirements-build.txt --constraint requirements-dev.txt --group build

format: $(STAMP)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .venv-* .node-sdks build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
