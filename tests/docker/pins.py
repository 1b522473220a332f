"""The versions in the image and the package: `examples/docker/constraints.txt`, from the tests' environment.

python -m tests.docker.pins      write the file anew, after a test said that it is out of date
"""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PATH = Path(__file__).resolve().parents[2] / "examples/docker/constraints.txt"
WANTED = ("mcp-shared-broker[daemon,gateway,metrics,examples]", "hatchling", "uv")
"""What the Dockerfile and systemd/package install by pip."""

_HEAD = """\
# The versions of what the Dockerfile and the Debian package install by pip: those that the tests ran with.
# After a test has said that they are out of date: python -m tests.docker.pins
# 镜像和 Debian 软件包中各 Python 包的版本，与测试所用的相同。测试提示过期时，运行 python -m tests.docker.pins
"""
_IMAGE = {"python_version": "3.12", "python_full_version": "3.12.0"}


def installed() -> dict[str, str]:
    """Return the version of every distribution that they need, as this environment has it."""
    found: dict[str, str] = {}
    todo = [Requirement(text) for text in WANTED]
    while todo:
        needed = todo.pop()
        about = distribution(needed.name)
        name = canonicalize_name(about.metadata["Name"])
        if name in found and not needed.extras:
            continue
        found[name] = about.version
        for text in about.requires or ():
            further = Requirement(text)
            extras = needed.extras or {""}
            if further.marker is None or any(
                further.marker.evaluate({**_IMAGE, "extra": extra}) for extra in extras
            ):
                todo.append(further)
    del found["mcp-shared-broker"]
    return dict(sorted(found.items()))


def pinned() -> dict[str, str]:
    """Return the versions in the file."""
    lines = PATH.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return dict(pairs)


if __name__ == "__main__":
    pins = "".join(f"{name}=={version}\n" for name, version in installed().items())
    PATH.write_text(_HEAD + pins, encoding="utf-8")
