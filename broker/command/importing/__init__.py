"""`mcp-broker import`: the files of other hosts become a `broker.toml`.

`files` reads and writes. `reading` makes a document of a text (`jsonc`, `commands`), `hosts` finds the
servers in it, and `plan` with `entry` makes a table of each; these never touch the machine.
"""
