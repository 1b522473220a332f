# syntax=docker/dockerfile:1
# The broker in a container of its own, beside that of a backend. docs/docker.md explains it.
# broker 单独运行在一个容器里，与后端容器相邻；说明见 docs/docker.zh-CN.md。
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-trixie AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY broker broker
COPY client_shim client_shim
RUN python -m venv /opt/mcp-broker && /opt/mcp-broker/bin/pip install --no-cache-dir ".[daemon,gateway,metrics]"

FROM python:${PYTHON}-slim-trixie
# Runtimes of the servers: `--build-arg UV=yes` installs uvx, `--build-arg NODE=yes` node and npx.
# 服务器所需的运行环境：UV=yes 安装 uvx，NODE=yes 安装 node 与 npx。
ARG UV=yes
ARG NODE=no
RUN set -eu; \
    apt-get update; \
    apt-get install --yes --no-install-recommends tini; \
    if [ "$NODE" = yes ]; then apt-get install --yes --no-install-recommends nodejs npm; fi; \
    if [ "$UV" = yes ]; then pip install --no-cache-dir uv; fi; \
    rm -rf /var/lib/apt/lists/*

# A backend reaches the socket by this group: its container needs the same number; the name does not matter.
# 后端通过这个组访问套接字：两个容器里的组号必须相同，组名无所谓。
ARG UID=10001
ARG GID=10001
RUN set -eu; \
    groupadd --gid "$GID" mcp-broker; \
    useradd --uid "$UID" --gid "$GID" --home-dir /var/lib/mcp-broker --no-create-home --shell /usr/sbin/nologin mcp-broker; \
    install -d -m 0750 -o "$UID" -g "$GID" /run/mcp-broker /var/lib/mcp-broker; \
    install -d -m 0700 -o "$UID" -g "$GID" /var/lib/mcp-broker-gateway; \
    install -d -m 0755 /etc/mcp-broker /srv/mcp

COPY --from=build /opt/mcp-broker /opt/mcp-broker
COPY examples/docker/broker.toml /etc/mcp-broker/broker.toml

ENV PATH=/opt/mcp-broker/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/var/lib/mcp-broker \
    MCP_BROKER_ENDPOINT=ipc:///run/mcp-broker/broker.sock \
    PYTHONDONTWRITEBYTECODE=1
USER ${UID}:${GID}
WORKDIR /var/lib/mcp-broker
VOLUME ["/run/mcp-broker", "/var/lib/mcp-broker"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 CMD ["mcp-broker", "status"]
ENTRYPOINT ["tini", "--", "mcp-broker"]
CMD ["serve", "--config", "/etc/mcp-broker/broker.toml"]
