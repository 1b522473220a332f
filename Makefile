# Everything is installed inside this folder: .venv, .venv-mcp1, tests/node/node_modules, and in benchmarks/.
PYTHON ?= python3
CONFIG ?= broker.toml
WORKERS ?= 3
# The service is for other users too, so its default is the system's Python.
INSTALL_PYTHON := $(if $(filter file,$(origin PYTHON)),,$(PYTHON))

# Another PYTHON makes a new environment; a change of pyproject.toml installs again.
STAMP := .installed-$(subst /,_,$(PYTHON))
VENV  := .venv/$(STAMP)
RUN   := .venv/.for-running$(STAMP)
# Where everything is installed, nothing is left to install for running.
READY := $(if $(wildcard $(VENV)),$(VENV),$(RUN))
MCP1  := .venv-mcp1/$(STAMP)
NODE  := tests/node/node_modules/.installed
PEERS := mcp-proxy fastmcp
CHECKS := tests/project/test_architecture.py tests/project/test_words.py
BIN   := .venv/bin
PIP   := bin/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test conformance bench soak fuzz check install uninstall purge clean node

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "PYTHON=python3.12 uses another Python, CONFIG=my.toml another configuration."

run: $(READY) ## Set up, then run the broker on broker.toml until Ctrl-C
	@exec $(BIN)/mcp-broker serve --config "$(CONFIG)"

# Files run in parallel, the longest first (tests/conftest.py); the tests of `check` are not run again.
test: check $(MCP1) node ## Set up, check, and run all tests
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder \
	    $(foreach file,$(CHECKS),--ignore $(file))

check: $(VENV) ## Check style, format, types, the import rules and the wording
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet $(CHECKS)

conformance: $(VENV) node ## Run the official conformance suite through gateway and broker (a minute)
	$(BIN)/python -m pytest --quiet tests/gateway/test_conformance.py

bench: $(VENV) ## Measure it beside the alternatives: benchmarks/REPORT.md (10 minutes)
	@.venv/$(PIP) --editable '.[bench]'
	@for peer in $(PEERS); do $(MAKE) --silent --no-print-directory benchmarks/.venv-$$peer/$(STAMP) || true; done
	@$(MAKE) --silent --no-print-directory benchmarks/node_modules/.installed || true
	$(BIN)/python -m benchmarks $(BENCH)
	@$(BIN)/python docs/generate.py

soak: $(VENV) node ## Try the laws for a long time: docs/soak.md (45 minutes; PARTS="restarts kills" for some)
	$(BIN)/python -m tests.soak $(PARTS)

fuzz: $(VENV) ## Attack the pure parts with malformed messages, by seed (7 minutes; FUZZ_SEED=1 for others)
	$(BIN)/python -m tests.soak fuzz-core fuzz-shim fuzz-heavy

install: ## Install the service of this machine, or upgrade it (as root; see docs/service.md)
	@PYTHON="$(INSTALL_PYTHON)" PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" WHEELS="$(WHEELS)" systemd/install install

uninstall: ## Remove the service; keep its config and its user (as root)
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" systemd/install uninstall

purge: ## Remove the service with its config, its state and its user (as root)
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" systemd/install purge

clean: ## Remove everything that make installed, and all caches
	rm -rf .venv .venv-mcp1 tests/node/node_modules build dist *.egg-info
	rm -rf benchmarks/.venv-* benchmarks/node_modules benchmarks/out
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

$(VENV): pyproject.toml .ci/make-venv
	@.ci/make-venv .venv "$(PYTHON)"
	@echo "Installing mcp-broker and the requirements of its tests into .venv (a minute or two the first time)"
	@.venv/$(PIP) --editable '.[dev]'
	@touch $@

$(RUN): pyproject.toml .ci/make-venv
	@.ci/make-venv .venv "$(PYTHON)"
	@echo "Installing mcp-broker into .venv"
	@.venv/$(PIP) --editable '.[daemon,gateway,metrics,examples]'
	@touch $@

# The environment of a backend: the thin shim and the 1.x SDK.
$(MCP1): pyproject.toml tests/mcp1-requirements.txt .ci/make-venv
	@.ci/make-venv .venv-mcp1 "$(PYTHON)"
	@echo "Installing the client shim and the 1.x SDK of MCP into .venv-mcp1"
	@.venv-mcp1/$(PIP) --editable . --requirement tests/mcp1-requirements.txt
	@touch $@

node:
	@if ! command -v npm >/dev/null; then \
	    echo "SKIPPED: the tests with programs on node, because there is no npm here (sudo apt-get install npm)"; \
	elif ! node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)'; then \
	    echo "SKIPPED: the tests with programs on node, because they need node 18 or newer"; \
	else \
	    $(MAKE) --silent --no-print-directory $(NODE); \
	fi

$(NODE): tests/node/package.json tests/node/package-lock.json
	@echo "Installing MCP servers, clients and the conformance suite into tests/node"
	@cd tests/node && npm ci --ignore-scripts --loglevel=error
	@touch $@

# Gateways to compare with. The report names those that cannot be installed.
benchmarks/.venv-%/$(STAMP): benchmarks/peers/%.txt .ci/make-venv
	@.ci/make-venv benchmarks/.venv-$* "$(PYTHON)"
	@echo "Installing $* into benchmarks/.venv-$*"
	@benchmarks/.venv-$*/$(PIP) --requirement $<
	@touch $@

benchmarks/node_modules/.installed: benchmarks/package.json benchmarks/package-lock.json
	@echo "Installing mcp-hub and supergateway into benchmarks/node_modules"
	@cd benchmarks && npm ci --ignore-scripts --loglevel=error
	@touch $@
