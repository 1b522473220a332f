# A backend with the thin shim: pyzmq and msgpack, without MCP servers and their runtimes.
# 装有客户端 shim 的后端：只需 pyzmq 与 msgpack，不含 MCP 服务器及其运行环境。
ARG REGISTRY=
FROM ${REGISTRY}python:3.12-slim-trixie
ARG PIP_INDEX_URL=
WORKDIR /src
COPY examples/docker/constraints.txt pyproject.toml README.md LICENSE ./
COPY broker broker
COPY client_shim client_shim
RUN pip install --no-cache-dir --constraint constraints.txt .
COPY examples/docker/backend.py /app/backend.py
USER 1000:1000
CMD ["python", "/app/backend.py"]
