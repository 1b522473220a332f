"""The thin client of mcp-broker, which a backend uses in place of its own MCP client.

A name is imported when it is first used: the command line needs `client_shim.blocking` only, and no asyncio.
"""

from __future__ import annotations

from client_shim.version import __version__ as __version__

TYPE_CHECKING = False  # as type checkers know it; the module `typing` costs 4 ms
if TYPE_CHECKING:
    from client_shim.asyncio.client import BrokerClient as BrokerClient
    from client_shim.backend.mcp_client import MCPClient as MCPClient
    from client_shim.blocking import BlockingClient as BlockingClient
    from client_shim.errors import BrokerError as BrokerError
    from client_shim.errors import CallError as CallError
    from client_shim.errors import ServerError as ServerError
    from client_shim.errors import Unavailable as Unavailable
    from client_shim.questions import OnQuestion as OnQuestion
    from client_shim.questions import OnRawQuestion as OnRawQuestion
    from client_shim.questions import Question as Question
    from client_shim.questions import QuestionRefused as QuestionRefused
    from client_shim.questions import RawQuestion as RawQuestion

_HOME = {
    "BlockingClient": "client_shim.blocking",
    "BrokerClient": "client_shim.asyncio.client",
    "BrokerError": "client_shim.errors",
    "CallError": "client_shim.errors",
    "MCPClient": "client_shim.backend.mcp_client",
    "OnQuestion": "client_shim.questions",
    "OnRawQuestion": "client_shim.questions",
    "Question": "client_shim.questions",
    "QuestionRefused": "client_shim.questions",
    "RawQuestion": "client_shim.questions",
    "ServerError": "client_shim.errors",
    "Unavailable": "client_shim.errors",
}

__all__ = [
    "BlockingClient",
    "BrokerClient",
    "BrokerError",
    "CallError",
    "MCPClient",
    "OnQuestion",
    "OnRawQuestion",
    "Question",
    "QuestionRefused",
    "RawQuestion",
    "ServerError",
    "Unavailable",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
