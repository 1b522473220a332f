# Everything is installed inside this folder: .venv, .venv-mcp1, tests/node/node_modules, and in benchmarks/.
PYTHON ?= python3
CONFIG ?= broker.toml
WORKERS ?= 3
# The service is for other users too, so its default is the system's Python.
INSTALL_PYTHON := $(if $(filter file,$(origin PYTHON)),,$(PYTHON))

# A config for the service is one that the command line names, not the variable of `make run`.
GIVEN := $(if $(findstring command line,$(origin CONFIG)),$(CONFIG))

# In the reader's language, as broker/command/texts/words.py finds it. An English text in a `say` has no comma.
ZH  := $(filter zh% Zh% zH% ZH%,$(or $(MCP_BROKER_LANG),$(LC_ALL),$(LC_MESSAGES),$(LANG)))
say  = $(strip $(if $(ZH),$2,$1))

# Another PYTHON makes a new environment; a change of pyproject.toml installs again.
STAMP := .installed-$(subst /,_,$(PYTHON))
VENV  := .venv/$(STAMP)
RUN   := .venv/.for-running$(STAMP)
# Where everything is installed, nothing is left to install for running.
READY := $(if $(wildcard $(VENV)),$(VENV),$(RUN))
MCP1  := .venv-mcp1/$(STAMP)
NODE  := tests/node/node_modules/.installed
PEERS := mcp-proxy fastmcp
CHECKS := tests/project/test_architecture.py tests/project/test_words.py tests/project/test_make.py tests/project/test_texts.py
BIN   := .venv/bin
PIP   := bin/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test loop-test conformance docker-test bench soak fuzz check dist install uninstall purge clean node

help: ## Show this list | 显示本列表
	@awk -F ':.*## ' -v n=$(if $(ZH),2,1) '/^[a-z-]+:.*## / { split($$2, text, / \| /); printf "  make %-12s%s\n", $$1, text[n] }' \
	    $(MAKEFILE_LIST)
	@echo "$(call say,PYTHON=python3.12 uses another Python; CONFIG=my.toml another configuration.,\
	PYTHON=python3.12 使用另一个 Python，CONFIG=my.toml 使用另一份配置。)"

run: $(READY) ## Set up, then run the broker on broker.toml until Ctrl-C | 安装所需的一切，然后按 broker.toml 运行 broker，Ctrl-C 结束
	@exec $(BIN)/mcp-broker serve --config "$(CONFIG)"

# Files run in parallel, the longest first (tests/conftest.py); the tests of `check` are not run again.
test: check $(MCP1) node ## Set up, check, and run all tests | 安装所需的一切，检查并运行全部测试
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder \
	    $(foreach file,$(CHECKS),--ignore $(file))

# Programs that find this folder in PYTHONPATH have no other loops: tests/client_shim/loops.py.
loop-test: export PYTHONPATH := $(CURDIR)/tests/client_shim/without_add_reader
loop-test: $(VENV) $(MCP1) node ## Run the client's tests over event loops that cannot watch descriptors, as that of Windows (5 minutes) | 在无法监视描述符的事件循环（如 Windows 的）上运行客户端的测试（5 分钟）
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder tests/client_shim tests/e2e

check: $(VENV) ## Check style, format, types, the import rules, the wording and the Chinese | 检查代码风格、格式、类型、导入规则、用词与译文
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet $(CHECKS)

conformance: $(VENV) node ## Run the official conformance suite through gateway and broker (a minute) | 经网关和 broker 运行官方一致性测试（一分钟）
	$(BIN)/python -m pytest --quiet tests/gateway/test_conformance.py

docker-test: $(VENV) ## Build and run the image under a real container engine: docs/docker.md (4 minutes) | 在真实的容器引擎中构建并运行镜像：docs/docker.zh-CN.md（4 分钟）
	$(BIN)/python -m tests.docker $(CHECK)

bench: $(VENV) ## Measure it beside the alternatives: benchmarks/REPORT.md (10 minutes) | 与其他方案对比测量：benchmarks/REPORT.md（10 分钟）
	@.venv/$(PIP) --editable '.[bench]'
	@for peer in $(PEERS); do $(MAKE) --silent --no-print-directory benchmarks/.venv-$$peer/$(STAMP) || true; done
	@$(MAKE) --silent --no-print-directory benchmarks/node_modules/.installed || true
	$(BIN)/python -m benchmarks $(BENCH)
	@$(BIN)/python docs/generate.py

soak: $(VENV) node ## Try the laws for a long time: docs/soak.md (45 minutes; PARTS="restarts kills" for some) | 长时间验证各项保证：docs/soak.md（45 分钟；PARTS="restarts kills" 只做其中几项）
	$(BIN)/python -m tests.soak $(PARTS)

fuzz: $(VENV) ## Attack the pure parts with malformed messages, by seed (7 minutes; FUZZ_SEED=1 for others) | 按随机种子用畸形消息测试核心部分（7 分钟；FUZZ_SEED=1 换一个种子）
	$(BIN)/python -m tests.soak fuzz-core fuzz-shim fuzz-heavy

# The time of the last commit is the only one in what it builds, so two builds of one commit are equal.
dist: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || stat -c %Y pyproject.toml)
dist: $(VENV) ## Build the wheel, the sdist and the Debian package of a release into dist/ | 构建一次发布的 wheel、sdist 和 Debian 软件包，放入 dist/
	@rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist
	PYTHON="$(INSTALL_PYTHON)" PIP=$(BIN)/python systemd/package dist
	@if command -v lintian >/dev/null; then lintian --allow-root --fail-on error,warning dist/*.deb; \
	else echo "$(call say,The package was not checked: there is no lintian here (sudo apt-get install lintian),\
	软件包未经检查：此处没有 lintian（sudo apt-get install lintian）)"; fi

install: ## Install the service of this machine, or upgrade it (as root; see docs/service.md) | 安装或升级本机的系统服务（需 root；见 docs/service.zh-CN.md）
	@PYTHON="$(INSTALL_PYTHON)" PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" WHEELS="$(WHEELS)" \
	    CONFIG="$(GIVEN)" IMPORT="$(IMPORT)" systemd/install install

uninstall: ## Remove the service; keep its config and its user (as root) | 卸载系统服务，保留其配置和用户（需 root）
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" systemd/install uninstall

purge: ## Remove the service with its config, its state and its user (as root) | 卸载系统服务，并删除其配置、状态和用户（需 root）
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" systemd/install purge

clean: ## Remove everything that make installed, and all caches | 删除 make 安装的一切，以及所有缓存
	rm -rf .venv .venv-mcp1 tests/node/node_modules build dist *.egg-info
	rm -rf benchmarks/.venv-* benchmarks/node_modules benchmarks/out
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

$(VENV): pyproject.toml .ci/make-venv
	@.ci/make-venv .venv "$(PYTHON)"
	@echo "$(call say,Installing mcp-broker and the requirements of its tests into .venv (a minute or two the first time),正在把 mcp-broker 及测试所需的软件包安装到 .venv（首次需要一两分钟）)"
	@.venv/$(PIP) --editable '.[dev]'
	@touch $@

$(RUN): pyproject.toml .ci/make-venv
	@.ci/make-venv .venv "$(PYTHON)"
	@echo "$(call say,Installing mcp-broker into .venv,正在把 mcp-broker 安装到 .venv)"
	@.venv/$(PIP) --editable '.[daemon,gateway,metrics,examples]'
	@touch $@

# The environment of a backend: the thin shim and the 1.x SDK.
$(MCP1): pyproject.toml tests/mcp1-requirements.txt .ci/make-venv
	@.ci/make-venv .venv-mcp1 "$(PYTHON)"
	@echo "$(call say,Installing the client shim and the 1.x SDK of MCP into .venv-mcp1,正在把客户端 shim 和 MCP SDK 1.x 安装到 .venv-mcp1)"
	@.venv-mcp1/$(PIP) --editable . --requirement tests/mcp1-requirements.txt
	@touch $@

node:
	@if ! command -v npm >/dev/null; then \
	    echo "$(call say,SKIPPED: the tests with programs on node: there is no npm here (sudo apt-get install npm),\
	    已跳过：需要 node 程序的测试，因为此处没有 npm（sudo apt-get install npm）)"; \
	elif ! node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)'; then \
	    echo "$(call say,SKIPPED: the tests with programs on node: they need node 18 or newer,\
	    已跳过：需要 node 程序的测试，因为需要 node 18 或更新版本)"; \
	else \
	    $(MAKE) --silent --no-print-directory $(NODE); \
	fi

$(NODE): tests/node/package.json tests/node/package-lock.json
	@echo "$(call say,Installing MCP servers and clients and the conformance suite into tests/node,\
	正在把 MCP 服务器、客户端和一致性测试套件安装到 tests/node)"
	@cd tests/node && npm ci --ignore-scripts --loglevel=error
	@touch $@

# Gateways to compare with. The report names those that cannot be installed.
benchmarks/.venv-%/$(STAMP): benchmarks/peers/%.txt .ci/make-venv
	@.ci/make-venv benchmarks/.venv-$* "$(PYTHON)"
	@echo "$(call say,Installing $* into benchmarks/.venv-$*,正在把 $* 安装到 benchmarks/.venv-$*)"
	@benchmarks/.venv-$*/$(PIP) --requirement $<
	@touch $@

benchmarks/node_modules/.installed: benchmarks/package.json benchmarks/package-lock.json
	@echo "$(call say,Installing mcp-hub and supergateway into benchmarks/node_modules,正在把 mcp-hub 和 supergateway 安装到 benchmarks/node_modules)"
	@cd benchmarks && npm ci --ignore-scripts --loglevel=error
	@touch $@
