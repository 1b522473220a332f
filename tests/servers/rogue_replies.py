"""The table of replies that no server should send: the id, as JSON text, to what is written."""

from __future__ import annotations

TYPE_CHECKING = False  # see rogue_json
if TYPE_CHECKING:
    from collections.abc import Callable

FINE = '{"content":[{"type":"text","text":"fine"}],"isError":false}'
TEXT = '{"content":[{"type":"text","text":"%s"}],"isError":false}'
ERROR = '{"code":-32000,"message":"both"}'
DEPTH = 20_000


def line(id: str, result: str = FINE) -> bytes:
    """A whole reply with its line end."""
    return f'{{"jsonrpc":"2.0","id":{id},"result":{result}}}\n'.encode()


def _deep(id: str) -> bytes:
    return line(id, '{"content":[],"deep":' + "[" * DEPTH + "]" * DEPTH + "}")


BAD_REPLIES: dict[str, Callable[[str], list[bytes]]] = {
    # Its id is legible and its result is not
    "nan": lambda id: [line(id, '{"content":[],"value":NaN}')],
    "surrogate": lambda id: [line(id, TEXT % r"\ud800")],
    "utf8": lambda id: [line(id, TEXT % "?").replace(b"?", b"\xff")],
    "deep": lambda id: [_deep(id)],
    "truncated": lambda id: [line(id)[:-12] + b"\n"],
    "result_not_object": lambda id: [line(id, "[1]")],
    # Its envelope is no JSON-RPC
    "batch": lambda id: [b"[" + line(id).rstrip() + b"]\n"],
    "no_result": lambda id: [f'{{"jsonrpc":"2.0","id":{id}}}\n'.encode()],
    "both": lambda id: [f'{{"jsonrpc":"2.0","id":{id},"result":{FINE},"error":{ERROR}}}\n'.encode()],
    # It is for nobody
    "wrong_id": lambda id: [line("987654321")],
    "null_id": lambda id: [line("null")],
    "string_id": lambda id: [line(f'"{id}"')],
    # The reply itself is fine
    "twice": lambda id: [line(id), line(id)],
    "garbage_before": lambda id: [b"Debugger listening on port 9229\n", line(id)],
    "cr": lambda id: [line(id).replace(b',"result"', b',\r"result"')],
    "id_last": lambda id: [f'{{"result":{FINE},"id":{id},"jsonrpc":"2.0"}}\n'.encode()],
    "byte_by_byte": lambda id: [bytes([byte]) for byte in line(id)],
}
