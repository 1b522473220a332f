"""A container engine for a test: its containers are processes of its own, as those of docker are.

The command that speaks to it is `tests/servers/engine/docker`.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.harness import PATIENCE_S, SERVERS

COMMANDS = SERVERS / "engine"


class Engine:
    """Containers by their ids.

    `beside` counts the containers that were started while another one of their image was there; `removals`
    are the commands that removed one.
    """

    def __init__(self, path: Path) -> None:
        self.address = f"unix://{path}"
        self.beside = 0
        self.started = 0
        self.removals: list[list[str]] = []
        self._path = path
        self._images: dict[str, str] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._plug: socket.socket | None = None

    @property
    def environ(self) -> dict[str, str]:
        """What a broker needs in its environment to find it."""
        return {"PATH": f"{COMMANDS}:{os.environ['PATH']}", "DOCKER_HOST": self.address}

    def running(self, image: str) -> list[str]:
        """The ids of the containers of an image."""
        return [id for id in self._running if self._images[id] == image]

    def leave(self, image: str) -> str:
        """Start a container that is no broker's; its id."""
        id = str(self._answer({"create": image})["id"])
        self._answer({"start": id})
        return id

    def go_up(self) -> None:
        """Answer from now on."""
        self._plug = socket.socket(socket.AF_UNIX)
        self._path.unlink(missing_ok=True)
        self._plug.bind(str(self._path))
        self._plug.listen()
        threading.Thread(target=self._serve, args=(self._plug,), daemon=True).start()

    def go_down(self) -> None:
        """Answer nothing any more; what runs goes on, as with the `live-restore` of docker."""
        if self._plug is not None:
            self._plug.shutdown(socket.SHUT_RDWR)
            self._plug.close()
            self._plug = None
        self._path.unlink(missing_ok=True)

    def end(self) -> None:
        """Nothing is left of it."""
        self.go_down()
        for id in [*self._running]:
            self._kill(id)

    def _serve(self, plug: socket.socket) -> None:
        while True:
            try:
                asked, _ = plug.accept()
            except OSError:
                return
            with asked, asked.makefile("rw") as lines:
                lines.write(json.dumps(self._answer(json.loads(lines.readline()))) + "\n")

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if "create" in request:
            id = secrets.token_hex(32)
            self._images[id] = request["create"]
            return {"id": id}
        if "start" in request:
            self.beside += bool(self.running(self._images[request["start"]]))
            self.started += 1
            nothing = subprocess.DEVNULL
            self._running[request["start"]] = subprocess.Popen(
                ["sleep", "300"], env={}, stdin=nothing, stdout=nothing, stderr=nothing
            )
            return {}
        self.removals.append(request["words"])
        if request["remove"] not in self._running:
            return {"error": f"No such container: {request['remove']}"}
        self._kill(request["remove"])
        return {}

    def _kill(self, id: str) -> None:
        process = self._running.pop(id)
        process.kill()
        process.wait(PATIENCE_S)


@contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """An engine that answers, for the length of a `with`."""
    engine = Engine(folder / "engine.sock")
    engine.go_up()
    try:
        yield engine
    finally:
        engine.end()
