"""The methods of MCP, each a request whose result is an object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from client_shim.asyncio.call import Options
from client_shim.protocol import payload
from client_shim.results import (
    CallResult,
    Completion,
    Data,
    Prompt,
    PromptResult,
    ReadResult,
    Resource,
    ResourceTemplate,
    Tool,
    entries,
    field_of,
    wrap,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

D = TypeVar("D", bound=Data)


class McpMethods(ABC):
    """The methods that servers have, over `request`."""

    @abstractmethod
    async def request(
        self, server: str, method: str, params: dict[str, Any] | None = None, **options: Unpack[Options]
    ) -> Any:
        """Make any MCP request and return its result as plain data."""

    async def call_tool(
        self,
        server: str,
        tool: str,
        arguments: dict[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> CallResult:
        """Call a tool. A tool that fails returns a result with `isError`; see `request` for the options."""
        params = {"name": tool, "arguments": {} if arguments is None else arguments}
        return await self._get(CallResult, server, "tools/call", params, options)

    async def list_tools(self, server: str, *, timeout: float | None = None) -> list[Tool]:
        """Return all tools of a server, from the broker's catalogue if that is fresh."""
        return await self._list(Tool, server, "tools/list", "tools", timeout)

    async def list_resources(self, server: str, *, timeout: float | None = None) -> list[Resource]:
        """Return all resources of a server."""
        return await self._list(Resource, server, "resources/list", "resources", timeout)

    async def list_resource_templates(
        self, server: str, *, timeout: float | None = None
    ) -> list[ResourceTemplate]:
        """Return all resource templates of a server."""
        method = "resources/templates/list"
        return await self._list(ResourceTemplate, server, method, "resourceTemplates", timeout)

    async def list_prompts(self, server: str, *, timeout: float | None = None) -> list[Prompt]:
        """Return all prompts of a server."""
        return await self._list(Prompt, server, "prompts/list", "prompts", timeout)

    async def read_resource(self, server: str, uri: str, **options: Unpack[Options]) -> ReadResult:
        """Return the contents of a resource."""
        return await self._get(ReadResult, server, "resources/read", {"uri": str(uri)}, options)

    async def get_prompt(
        self,
        server: str,
        name: str,
        arguments: dict[str, str] | None = None,
        **options: Unpack[Options],
    ) -> PromptResult:
        """Return a prompt, filled in with the arguments."""
        params = {"name": name, "arguments": {} if arguments is None else arguments}
        return await self._get(PromptResult, server, "prompts/get", params, options)

    async def complete(
        self,
        server: str,
        ref: dict[str, Any],
        argument: dict[str, str],
        *,
        context: dict[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> Completion:
        """Return proposals for an argument of a prompt or a resource template.

        Args:
            ref: ``{"type": "ref/prompt", "name": …}`` or ``{"type": "ref/resource", "uri": …}``.
            argument: ``{"name": …, "value": the text typed so far}``.
            context: ``{"arguments": {name: value}}``: the arguments that are filled in already.
        """
        method, filled_in = "completion/complete", {} if context is None else {"context": context}
        params = {"ref": ref, "argument": argument, **filled_in}
        subject, raw = payload.subject(server, method), await self.request(server, method, params, **options)
        return wrap(Completion, field_of(raw, "completion", subject), subject)

    async def _list(
        self, kind: type[D], server: str, method: str, field: str, timeout: float | None
    ) -> list[D]:
        return entries(
            kind, await self.request(server, method, timeout=timeout), field, payload.subject(server, method)
        )

    async def _get(
        self, kind: type[D], server: str, method: str, params: dict[str, Any], options: Options
    ) -> D:
        return wrap(
            kind, await self.request(server, method, params, **options), payload.subject(server, method)
        )
