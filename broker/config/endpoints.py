"""The addresses that a config may name, and which of them only this machine reaches."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_LOOPBACK = rf"(127\.0\.0\.1|\[::1\]):{_PORT}"
_PATH = r"[^\0-\x1f\x7f]+"  # a line end in it is a mistake, and would break what is written line by line
_HOST = r"(\*|\[[0-9A-Fa-f:.]+(%[0-9A-Za-z_.-]+)?\]|[0-9A-Za-z._-]+)"
# Not ipc://@name: a socket without a file has no permissions, so everybody here could connect.
_ENDPOINT = rf"ipc:///{_PATH}|tcp://{_HOST}:{_PORT}"
Endpoint = Annotated[str, Meta(pattern=rf"^({_ENDPOINT})\Z")]
ScrapeAddress = Annotated[str, Meta(pattern=rf"^{_LOOPBACK}\Z|^unix:/{_PATH}\Z")]


def is_endpoint(text: str) -> bool:
    """Return whether a text has the form of an endpoint."""
    return re.fullmatch(_ENDPOINT, text) is not None


def is_loopback(endpoint: str) -> bool:
    """Return whether an endpoint is a path, or written as an address that only this machine reaches.

    Every other spelling needs keys, also of what may turn out to be a loopback address.
    """
    return endpoint.startswith("ipc://") or re.fullmatch(f"tcp://{_LOOPBACK}", endpoint) is not None
