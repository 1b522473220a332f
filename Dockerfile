# The broker in a container of its own, beside that of a backend. docs/docker.md explains it.
# broker 单独运行在一个容器里，与后端容器相邻；说明见 docs/docker.zh-CN.md。
#
# Mirrors: --build-arg REGISTRY=registry.example.org/library/ APT_MIRROR=mirror.example.org PIP_INDEX_URL=https://…/simple
# 国内镜像站：用上面三个构建参数指定基础镜像、Debian 软件包与 Python 包的来源。
ARG PYTHON=3.12
ARG REGISTRY=

FROM ${REGISTRY}python:${PYTHON}-slim-trixie AS build
ARG PIP_INDEX_URL=
WORKDIR /src
# The dependencies are a layer of their own: a change of the source does not fetch them again.
# 依赖单独成层：修改源码不会重新下载依赖。
COPY examples/docker/constraints.txt pyproject.toml README.md LICENSE ./
RUN set -eu; \
    python -m venv /opt/build; \
    python -m venv --without-pip /opt/mcp-broker; \
    /opt/build/bin/pip install --no-cache-dir --constraint constraints.txt hatchling; \
    mkdir broker client_shim; \
    echo '__version__ = "0"' >broker/__init__.py; \
    touch client_shim/__init__.py; \
    /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/empty .; \
    /opt/build/bin/pip --python /opt/mcp-broker/bin/python install --no-cache-dir --constraint constraints.txt \
        "$(echo /tmp/empty/*.whl)[daemon,gateway,metrics]"
COPY broker broker
COPY client_shim client_shim
RUN set -eu; \
    /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/whole .; \
    /opt/build/bin/pip --python /opt/mcp-broker/bin/python install --no-cache-dir --no-deps /tmp/whole/*.whl

FROM ${REGISTRY}python:${PYTHON}-slim-trixie
# Runtimes of the servers: `--build-arg UV=yes` installs uv and uvx, `--build-arg NODE=yes` node and npx.
# 服务器所需的运行环境：UV=yes 安装 uv 与 uvx，NODE=yes 安装 node 与 npx。
ARG UV=yes
ARG NODE=no
ARG APT_MIRROR=
ARG PIP_INDEX_URL=
COPY examples/docker/constraints.txt /tmp/constraints.txt
RUN set -eu; \
    if [ -n "$APT_MIRROR" ]; then \
        find /etc/apt -name '*.sources' -o -name sources.list | xargs -r sed -i "s|deb.debian.org|$APT_MIRROR|"; \
    fi; \
    apt-get update; \
    apt-get install --yes --no-install-recommends tini procps; \
    if [ "$NODE" = yes ]; then apt-get install --yes --no-install-recommends nodejs npm; fi; \
    if [ "$UV" = yes ]; then pip install --no-cache-dir --constraint /tmp/constraints.txt uv; fi; \
    rm -rf /var/lib/apt/lists/* /tmp/constraints.txt

# A backend reaches the socket by this group: its container needs the same number; the name does not matter.
# 后端通过这个组访问套接字：两个容器里的组号必须相同，组名无所谓。
ARG UID=10001
ARG GID=10001
RUN set -eu; \
    groupadd --gid "$GID" mcp-broker; \
    useradd --uid "$UID" --gid "$GID" --home-dir /var/lib/mcp-broker --no-create-home --shell /usr/sbin/nologin mcp-broker; \
    install -d -m 0750 -o "$UID" -g "$GID" /run/mcp-broker /var/lib/mcp-broker; \
    install -d -m 0700 -o "$UID" -g "$GID" /var/lib/mcp-broker-gateway; \
    install -d -m 0755 /etc/mcp-broker /srv/mcp; \
    ln -s /opt/mcp-broker/bin/mcp-broker /usr/local/bin/mcp-broker

# Of this Python only the command is in PATH: a server's `python` is not the broker's.
# PATH 中只有命令 mcp-broker：服务器的 `python` 不是 broker 的。
COPY --from=build /opt/mcp-broker /opt/mcp-broker
COPY examples/docker/config /etc/mcp-broker

# Defaults for a broker.toml without [broker]. Nothing outlives the container, so its records are in /tmp.
# 供没有 [broker] 的 broker.toml 使用的默认值；容器结束后不留进程，因此记录放在 /tmp。
ARG MCP_BROKER_LANG=en
ENV HOME=/var/lib/mcp-broker \
    MCP_BROKER_ENDPOINT=ipc:///run/mcp-broker/broker.sock \
    MCP_BROKER_SOCKET_MODE=0660 \
    MCP_BROKER_STATE_DIR=/tmp/mcp-broker \
    MCP_BROKER_LANG=${MCP_BROKER_LANG} \
    PYTHONDONTWRITEBYTECODE=1
USER ${UID}:${GID}
WORKDIR /var/lib/mcp-broker
VOLUME ["/run/mcp-broker", "/var/lib/mcp-broker"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 CMD ["mcp-broker", "status", "--broker"]
ENTRYPOINT ["tini", "--", "mcp-broker"]
CMD ["serve", "--config", "/etc/mcp-broker/broker.toml"]
