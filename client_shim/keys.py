"""The keys of a client for ``tcp://`` endpoints (CURVE), and where they come from.

Source: ZeroMQ RFC 26 (CurveZMQ). `key_file` has the format of the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple, Union

VARIABLE = "MCP_BROKER_KEYS"


class ClientKeys(NamedTuple):
    """The public key of the broker, and the client's own pair, in Z85."""

    server: str
    public: str
    secret: str

    def __repr__(self) -> str:
        return f"ClientKeys(server={self.server!r}, public={self.public!r}, secret=…)"


Keys = Union[str, "os.PathLike[str]", ClientKeys]
"""A file of keys, or the keys themselves."""


def keys_source(
    endpoint: str, given: Keys | None, environ: Mapping[str, str] = os.environ
) -> str | ClientKeys | None:
    """Return the keys of a client, or their file: what is given, else the file that `MCP_BROKER_KEYS` names.

    Only ``tcp://`` has keys: over ``ipc://`` the kernel says who the client is.
    """
    if not endpoint.startswith("tcp://"):
        return None
    if isinstance(given, ClientKeys):
        return given
    return os.fspath(given) if given else environ.get(VARIABLE) or None
