"""The `mcp-broker` command and `python -m broker`. In the thin install, which has the command but not what it
runs on, this says what to install; so it needs the standard library only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.util import find_spec

from broker.words import language

DAEMON_PACKAGES = ("click", "json5", "msgspec", "rich", "tomli", "tomlkit", "trio")
"""What the extra `daemon` of pyproject.toml brings; a test holds the two together."""

_HINT = (
    """\
mcp-broker: this Python ({prefix}) has the client shim only; the command also needs: {missing}
Install it, with the path of its checkout or wheel in front of the brackets (the mcp-broker of the package
index is another project):

    pip install 'mcp-broker[daemon]'
""",
    """\
mcp-broker：此 Python（{prefix}）只安装了客户端 shim；运行该命令还需要：{missing}
请执行以下命令安装，方括号前写它的源码目录或 wheel 的路径（软件包索引中的 mcp-broker 是另一个项目）：

    pip install 'mcp-broker[daemon]'
""",
)
"""English, Chinese."""


def main() -> int:
    """Run the command line; where the extra is not installed, say how to install it and return status 2."""
    missing = [name for name in DAEMON_PACKAGES if find_spec(name) is None]
    if missing:
        sys.stderr.write(hint(missing))
        return 2
    from broker.cli import main as command

    return command()


def hint(missing: Iterable[str]) -> str:
    """What to install, in the language of the reader."""
    return _HINT[language()].format(prefix=sys.prefix, missing=", ".join(missing))


if __name__ == "__main__":
    sys.exit(main())
