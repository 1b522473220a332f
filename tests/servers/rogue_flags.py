"""Every flag of `rogue.py`, as a table: an attribute here, its default, and what it does.

`page_size = 0` is `--page-size N`; a flag whose default is `False` takes no value. -1 and "" are "no".
"""

from __future__ import annotations

import argparse


class Flags(argparse.Namespace):
    """One command line. The type of a flag is the type of its default."""

    # What it speaks
    era = "legacy"  # legacy: `initialize`; modern: `server/discover`; dual: what comes first
    protocol = "2025-11-25"  # what `initialize` answers
    bad_version = False  # `initialize` answers 1999-01-01
    no_capabilities = False  # declares none
    serial = False  # serves one call at a time instead of a thread for each
    crlf = False  # its lines end in \r\n

    # Its lists
    page_size = 0  # pages of so many; 0 is one page
    empty_cursor = False  # the second page has the cursor ""
    endless_pages = False  # the last page names the first one as the next
    shuffle = False  # a new order each time a list is begun
    ttl_ms = 60_000  # of cacheable results, modern era
    cache_scope = "public"

    # How it starts, in this order
    start_file = ""  # appends "pid starttime\n" to this file
    ignore_sigterm = False  # so do the processes it leaves
    start_delay = 0.0  # seconds in which it prints and reads nothing
    hold_mib = 0  # holds so much memory until its end
    stderr_at_start = ""  # one line
    exit_at_start = -1  # exits with this status
    fork_at_start = ""  # leaves a descendant as the tool `spawn` does
    banner = ""  # one line on stdout that is no JSON
    flood_stderr = False  # writes lines to stderr for ever
    flood_stdout = False  # writes log notifications to stdout for ever
    endless_line = 0  # writes so many bytes to stdout, no line end, and never another byte

    # The handshake
    silent = False  # reads and never answers anything
    exit_on_discover = -1  # exits with this status when probed
    silent_on_discover = False  # never answers the probe; answers `initialize`
    die_in_handshake = False  # exits with 1 at `initialize` or `server/discover`

    # Later. The Nth request, handshake and refused ones included, is answered first.
    exit_after = 0  # exits with 1 after N requests
    close_stdout_after = 0  # closes stdout after N requests and reads on
    close_stdin_after = 0  # closes stdin after N requests and lives on
    ignore_eof = False  # lives on when stdin ends or nobody reads stdout


CHOICES = {
    "era": ("legacy", "modern", "dual"),
    "cache_scope": ("public", "private"),
    "fork_at_start": ("", "child", "setsid", "double_fork", "bare", "bare_setsid", "bare_double_fork"),
}


def parse(arguments: list[str]) -> Flags:
    """The flags of a command line; exits with 2 where it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    for name, default in vars(Flags).items():
        option = "--" + name.replace("_", "-")
        if default is False:
            parser.add_argument(option, action="store_true")
        elif not name.startswith("_"):
            parser.add_argument(option, type=type(default), default=default, choices=CHOICES.get(name))
    return parser.parse_args(arguments, namespace=Flags())
