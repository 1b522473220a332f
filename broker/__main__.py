"""The `mcp-broker` command and `python -m broker`.

Hosts start hundreds of `mcp-broker connect`: until it is known that it is another command, nothing is loaded.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command that the arguments name; return the exit status."""
    if sys.argv[1:2] == ["connect"] and not {"-h", "--help"} & {*sys.argv[2:]}:
        from broker.gateway.stdio.connect import main as connect

        return connect(sys.argv[2:])
    from broker.command.entry import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
