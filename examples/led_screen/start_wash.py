"""Starts a washer, and asks the person at this terminal what the washing machine wants to know.

    python examples/led_screen/start_wash.py [MACHINE]

An empty line takes the default, `n` declines, and the end of the input (Ctrl-D) closes the question. A
question can be withdrawn while the person thinks, when nobody waits for the answer; then nothing is read.
"""

from __future__ import annotations

import asyncio
import sys
from io import FileIO
from typing import Any

from client_shim import BrokerClient, Question, QuestionRefused

METHOD_NOT_FOUND = -32601

STDIN = FileIO(0, closefd=False)  # without a buffer: it takes no more than the line


async def read_line(prompt: str) -> str:
    """Read a line without blocking the loop, so that the question can be withdrawn; empty at the end."""
    print(prompt, end=" ", flush=True)
    loop = asyncio.get_running_loop()
    line: asyncio.Future[bytes] = loop.create_future()
    loop.add_reader(STDIN, lambda: line.set_result(STDIN.readline()))
    try:
        return (await line).decode()
    finally:
        loop.remove_reader(STDIN)


async def answer(question: Question) -> dict[str, Any]:
    """Ask the person for each field of the form; return the answer as MCP has it."""
    if question.method != "elicitation/create":
        raise QuestionRefused(METHOD_NOT_FOUND, "there is a person here, and no model")
    print(f"{question.server} asks: {question.params['message']}")
    content = {}
    for name, field in question.params["requestedSchema"]["properties"].items():
        choices = " | ".join(field.get("enum", ["any text"]))
        line = await read_line(f"{field.get('title', name)}: {choices} [{field.get('default', '')}]")
        if not line:
            return {"action": "cancel"}
        if line.strip() == "n":
            return {"action": "decline"}
        if line.strip():
            content[name] = line.strip()
    return {"action": "accept", "content": content}


async def main(machine_id: str = "W1") -> None:
    """Make the call. With `on_question` it declares that forms are answered here."""
    async with BrokerClient("start wash", on_question=answer) as broker:
        result = await broker.call_tool("washing-machine", "start_wash", {"machine_id": machine_id})
        print(result.content[0].text)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
