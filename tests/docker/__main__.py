"""`python -m tests.docker [CHECK ...]`: run the checks under a real engine, and keep what they find in docs/.

The engine is the one that the command `docker` reaches, Podman's too if it stands behind that name or behind
`DOCKER_HOST`; else one that `with-docker` starts, as root on Debian. With the names of checks only these run,
and nothing is written.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import tomlkit

from docs import generate
from tests.docker.texts import in_language

ROOT = Path(__file__).resolve().parents[2]
FOUND = ROOT / "docs/docker.toml"
WITH_DOCKER = ROOT / "tests/docker/with-docker"
HEAD = "What `make docker-test` found: docs/generate.py puts it into docs/docker*.md."
LIMIT_S = 1800


def chosen() -> list[str] | str:
    """Return the words before a Python that sees an engine; or why there is no engine, for the reader."""
    missing = []
    for command in (("docker", "version"), ("docker", "compose", "version")):
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except FileNotFoundError:
            missing.append(in_language("there is no docker", "没有 docker 命令"))
            break
        if said.returncode:
            failed = in_language(f"{' '.join(command)} failed", f"{' '.join(command)} 执行失败")
            missing.append((said.stderr.strip().splitlines() or [failed])[-1])
            break
    else:
        return [sys.executable]
    probe = subprocess.run([WITH_DOCKER, "-p"], capture_output=True, text=True, timeout=60, check=False)
    if probe.returncode == 0:
        return [str(WITH_DOCKER), "python3"]
    lacks = probe.stdout.strip() or probe.stderr.strip()
    return in_language(
        f"the image cannot be run here: {missing[0]}; and for tests/docker/with-docker: {lacks}",
        f"无法在这里运行镜像：{missing[0]}；tests/docker/with-docker 也不可用：{lacks}",
    )


def write(found: dict[str, Any]) -> None:
    """Keep what was found, and renew the pages."""
    document = tomlkit.document()
    document.add(tomlkit.comment(HEAD))
    document["about"] = {**found["about"], "date": datetime.date.today().isoformat()}
    rows = tomlkit.aot()
    for check in found["checks"]:
        figures = [
            {key: value for key, value in one.items() if value is not None} for one in check["figures"]
        ]
        rows.append(
            tomlkit.item(
                {
                    "name": check["name"],
                    "held": not check["failed"],
                    "seconds": check["seconds"],
                    "figures": figures,
                }
            )
        )
    document["checks"] = rows
    FOUND.write_text(tomlkit.dumps(document), encoding="utf-8")
    generate.main([])


def main(wanted: list[str]) -> int:
    """Run the checks; return the exit status."""
    python = chosen()
    if isinstance(python, str):
        print(python)
        return 1
    command = [*python, "-B", "-m", "tests.docker.checks", *wanted]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False)
    if done.stdout and not wanted:
        write(json.loads(done.stdout.splitlines()[-1]))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
