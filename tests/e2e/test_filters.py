"""`only` and `hide` of a server's table, with a real server: over the shim, the gateway and the command."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from client_shim import BrokerClient
from client_shim.errors import InvalidRequest, UnknownTool
from tests.e2e.harness import RunningBroker, running, script
from tests.e2e.test_command import command
from tests.gateway.gateways import gateway

FILTERS: dict[str, Any] = {
    "tools": {"only": ["test_simple_text", "test_image_*"], "hide": ["test_image_content", "no_such_tool"]},
    "prompts": {"hide": ["test_simple_prompt"]},
    "resources": {"hide": ["test://template/{id}/data", "test://static-text"]},
}


async def use(broker: RunningBroker) -> None:
    """A client of the shim sees and uses what is left."""
    async with BrokerClient("page", endpoint=broker.endpoint) as client:
        assert [tool.name for tool in await client.list_tools("all")] == ["test_simple_text"]
        await client.call_tool("all", "test_simple_text", {})
        with pytest.raises(UnknownTool, match="has no tool 'test_image_content'"):
            await client.call_tool("all", "test_image_content", {})
        prompts = await client.request("all", "prompts/list")
        assert "test_simple_prompt" not in [prompt["name"] for prompt in prompts["prompts"]]
        for method, params in (
            ("prompts/get", {"name": "test_simple_prompt"}),
            ("resources/read", {"uri": "test://static-text"}),
            ("resources/read", {"uri": "TEST://static-text"}),
            ("resources/read", {"uri": "test://template/7/data"}),
        ):
            with pytest.raises(InvalidRequest, match="has no"):
                await client.request("all", method, params)
        assert (await client.request("all", "resources/read", {"uri": "test://static-binary"}))["contents"]


def test_what_is_hidden_is_hidden_from_every_client() -> None:
    """One process, and a reload that shows everything again without another one."""
    table = script("tests/servers/everything.py")
    with running({"all": {**table, **FILTERS}}) as broker, gateway(broker) as door:
        pid = broker.server("all")["pid"]
        asyncio.run(use(broker))
        client = door.http("all")
        listed = client.ask("tools/list").message["result"]["tools"]
        assert [tool["name"] for tool in listed] == ["test_simple_text"]
        error = client.ask("tools/call", {"name": "test_image_content", "arguments": {}}).message["error"]
        assert error["code"] == -32602
        assert "has no tool" in error["message"]
        server = broker.server("all")
        assert (server["tools"], server["hidden"]["prompts"], server["hidden"]["resources"]) == (1, 1, 2)
        (warning,) = [one for one in server["warnings"] if one["kind"] == "pattern-unmatched"]
        assert 'hide "no_such_tool"' in warning["text"]
        shown = command("tools", "all", endpoint=broker.endpoint).stdout
        assert f"{server['hidden']['tools']} hidden by [servers.all.tools]" in shown
        broker.write({"all": table})
        assert command("reload", endpoint=broker.endpoint).returncode == 0
        assert len(client.ask("tools/list").message["result"]["tools"]) > 1
        assert broker.server("all")["pid"] == pid
