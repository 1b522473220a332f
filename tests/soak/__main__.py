"""`python -m tests.soak [PART ...]`: run parts at their stated counts, and keep what they find in docs/."""

from __future__ import annotations

import sys
import time

import click

from docs import generate
from tests.soak import report
from tests.soak.parts import PARTS

SAY_S = 10.0
"""A line of progress at least so many seconds apart."""


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--few", is_flag=True, help="The counts of the tests, and nothing is written.")
def main(parts: tuple[str, ...], few: bool) -> None:
    """Run the parts one after the other; all of them where none is named."""
    missed = 0
    for name in parts or PARTS:
        part = PARTS[name]
        count = part.few if few else part.stated
        if not count:
            continue  # another test has it
        click.echo(f"{name}: {count} {part.unit}")
        begun, load = time.monotonic(), report.load()
        lines = part.run(count, Saying(name, count))
        for line in lines:
            bound = "" if line.bound is None else f" (at most {line.bound:g})"
            mark = "  " if line.holds else "! "
            click.echo(f"  {mark}{line.what}: {line.measured:g} {line.unit}{bound}")
            missed += not line.holds
        click.echo(f"  {time.monotonic() - begun:.0f} s")
        if not few:
            report.write(name, count, part.unit, report.Took(time.monotonic() - begun, load), lines)
    generate.main([])
    sys.exit(missed > 0)


class Saying:
    """Says how far a part has come, not too often."""

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count
        self._begun = self._said_at = time.monotonic()

    def __call__(self, done: int) -> None:
        """So much is done."""
        now = time.monotonic()
        if now - self._said_at >= SAY_S:
            self._said_at = now
            click.echo(f"  {self._name} {done}/{self._count}, {now - self._begun:.0f} s")


if __name__ == "__main__":
    main()
