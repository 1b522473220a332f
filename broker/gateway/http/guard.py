"""Who may come in by HTTP: the rules of Host and Origin, and the tokens. Sans-io.

Sources: 2026-07-28, Streamable HTTP, "Security & Endpoint"; RFC 9110, section 11 (authentication); RFC 6750.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable

from broker.gateway.http.headers import Headers
from broker.gateway.http.refusals import Refused
from broker.gateway.tokens import Token, digest_of

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_LOCAL = re.compile(r"https?://([^/?#@]+)", re.IGNORECASE)
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)


class Guard:
    """Admits or refuses HTTP requests by their headers.

    Args:
        tokens: the tokens that are accepted.
        hosts: names, beside those of loopback, that a Host header may have.
        origins: origins, beside those of loopback, whose pages may call; `*` allows each.
    """

    def __init__(
        self, tokens: Iterable[Token], hosts: Iterable[str] = (), origins: Iterable[str] = ()
    ) -> None:
        self._tokens = tuple(tokens)
        self._hosts = LOOPBACK_NAMES | {name.lower().strip("[]") for name in hosts}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    def check_host(self, headers: Headers) -> None:
        """Check that the client means this machine: a page whose name was rebound to it does not."""
        given = headers.get("host") or ""
        name = host_name(given)
        if name is None or name not in self._hosts:
            raise Refused(
                403,
                f"The Host header is {given[:100]!r}, which is not a name of this gateway; call it by "
                f"127.0.0.1 or localhost, or add the name to `hosts` in gateway.toml",
            )

    def check_origin(self, headers: Headers) -> str | None:
        """Check that a browser's page may call. Return its origin; `None` where no page calls."""
        given = headers.get("origin")
        if given is None:
            return None
        if "*" not in self._origins and given.lower() not in self._origins and not _is_local(given):
            raise Refused(
                403,
                f"Pages of {given[:100]!r} may not call this gateway; add the origin to `origins` in "
                "gateway.toml if they should",
            )
        return given

    def identify(self, headers: Headers) -> Token:
        """Return the token that the request carries.

        Raises:
            Refused: it carries none that is known. The challenge names no metadata of an authorization
                server, since there is no such server.
        """
        given = headers.get("authorization")
        if given is None:
            raise _unauthorized(
                "This gateway needs a token; send the header `Authorization: Bearer TOKEN`. The token is in "
                "the file `token` of the gateway's state directory, or its operator has given you another one"
            )
        bearer = _BEARER.fullmatch(given)
        if bearer is None:
            raise _unauthorized(
                "The header Authorization is not of the form `Bearer TOKEN`; send it like that"
            )
        digest, found = digest_of(bearer[1]), None
        for token in self._tokens:  # all of them: the time tells nothing
            if hmac.compare_digest(digest, token.digest):
                found = token
        if found is None:
            raise _unauthorized(
                "The token is not known to this gateway; take the one in the file `token` of its state "
                "directory, or ask its operator. OAuth is not offered here"
            )
        return found


def _unauthorized(message: str) -> Refused:
    return Refused(401, message, headers={"www-authenticate": 'Bearer realm="mcp-broker"'})


def host_name(host: str) -> str | None:
    """Return the name in a Host header, in lower case and without port and brackets; `None` for a bad one."""
    match = _HOST.fullmatch(host)
    return match[1].strip("[]").lower() if match else None


def _is_local(origin: str) -> bool:
    """Whether a page came from a web server on this machine."""
    match = _LOCAL.fullmatch(origin)
    return match is not None and host_name(match[1]) in LOOPBACK_NAMES


def check_use(token: Token, server: str) -> None:
    """Check that the holder of a token may use a server."""
    if not token.may_use(server):
        raise Refused(
            403,
            f"The token {token.name!r} may not use the server {server!r}; add it to `servers` of "
            f"[tokens.{token.name}] in gateway.toml",
        )


def check_call(token: Token, tool: object) -> None:
    """Check that the holder of a token may call the tool that a `tools/call` names."""
    if not isinstance(tool, str) or not token.may_call(tool):
        raise Refused(
            403,
            f"The token {token.name!r} may not call the tool {tool!r}; add it to `tools` of "
            f"[tokens.{token.name}] in gateway.toml",
        )


def too_often(token: Token, wait_s: float) -> Refused:
    """Return the refusal of a request beyond the rate of a token."""
    return Refused(
        429,
        f"The token {token.name!r} may make {token.rate:g} requests a second; wait {wait_s:.1f} s",
        headers={"retry-after": str(max(1, round(wait_s + 0.5)))},
    )
