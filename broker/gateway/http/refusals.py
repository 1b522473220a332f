"""What the HTTP door refuses: an HTTP status, and a JSON-RPC error as the body that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

INVALID_REQUEST = -32600
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022

JSON = "application/json"


class Refused(Exception):
    """The door refuses this HTTP request.

    Attributes:
        status: the HTTP status.
        code: the code of the JSON-RPC error. Refusals that MCP has no code for carry the HTTP status, which
            lies outside of the range that JSON-RPC reserves (2026-07-28, Base Protocol, "Error Codes").
        message: what happened; what to do next.
        data: further facts for programs.
        headers: HTTP headers beside Content-Type.
        request_id: the id of the refused request, as JSON; `None` where it is not known.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: int | None = None,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = status if code is None else code
        self.data = data
        self.headers = dict(headers or {})
        self.request_id: bytes | None = None

    def body(self) -> bytes:
        """Return the JSON-RPC error response.

        Where the request's id is not known it is `null` (JSON-RPC 2.0, section 5): SDKs show the message then
        and for a response without an `id` they do not.
        """
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        request_id = msgspec.Raw(self.request_id or b"null")
        return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "error": error})
