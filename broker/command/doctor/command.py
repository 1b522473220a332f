"""The command `mcp-broker doctor`. It imports what it needs when it runs: every command imports it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from broker.command.common import BAD, fail_by
from broker.command.output import echo, echo_json
from broker.command.words import language
from client_shim.errors import BrokerError

if TYPE_CHECKING:
    from broker.command.doctor.examination import Examination
    from broker.command.doctor.old_way import OldWay
    from broker.command.doctor.report import Report
    from broker.command.doctor.texts import Say, Tell

COMPARED_PAGES = 5
"""At most so many pages are opened the old way: it starts every server once for each of them."""

_LANGUAGES = ("en", "zh")
_TERMINATED = 143


@click.command()
@click.option("--endpoint", metavar="ADDRESS", help="Where the broker listens.")
@click.option(
    "--cycles", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many pages to open."
)
@click.option(
    "--compare",
    is_flag=True,
    help=f"Open up to {COMPARED_PAGES} pages the old way too, which starts every server for each of them, "
    "and ends those processes again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown, for an issue or a mail.")
@click.option("--lang", type=click.Choice(_LANGUAGES), help="English or Chinese; by the locale without it.")
def doctor(
    endpoint: str | None, cycles: int, compare: bool, as_json: bool, as_markdown: bool, lang: str | None
) -> None:
    """Open pages as a backend does, count processes, and give a verdict.

    A: fixed; exit status 0. B: partly, with what is to be mended; C: not fixed, with the likely cause;
    both exit status 1. Every second page is left without closing its client.
    """
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown cannot both be had; leave one out.")
    from broker.command.doctor.texts import markdown_speaker, speaker

    speaks = _LANGUAGES.index(lang) if lang else language()
    say = (markdown_speaker if as_markdown else speaker)(speaks)
    try:
        report = _examine(endpoint, cycles, COMPARED_PAGES if compare else 0, say)
    except BrokerError as error:
        fail_by(error, speaks)
    _print(report, say, as_json=as_json, as_markdown=as_markdown)
    if report.verdict.grade != "A":
        sys.exit(BAD)


def _print(report: Report, say: Say, *, as_json: bool, as_markdown: bool) -> None:
    from broker.command.doctor import report as of

    if as_json:
        echo_json(of.as_json(report, say))
    elif as_markdown:
        echo(of.as_markdown(report, say))
    else:
        from broker.command.doctor import drawing

        drawing.show(report, say)


def _examine(endpoint: str | None, cycles: int, compared: int, say: Say) -> Report:
    import asyncio

    from broker.command.doctor.examination import examination
    from broker.command.doctor.progress import progress

    try:
        with progress(say) as tell, examination(endpoint, tell) as broker:
            return asyncio.run(_course(broker, cycles, compared, say, tell))
    except asyncio.CancelledError:
        sys.exit(_TERMINATED)


async def _course(broker: Examination, cycles: int, compared: int, say: Say, tell: Tell) -> Report:
    """The examination and, where it is asked for, the old way after it, so that neither slows the other."""
    from broker.command.doctor.examination import Unreadable
    from broker.command.doctor.report import Report, masked
    from broker.command.doctor.verdict import judge

    _end_well_on_signals()
    evidence, old_way, why_not = await broker.run(cycles), None, None
    if compared:
        try:
            old_way = await _old_way(broker, min(cycles, compared), tell)
        except Unreadable as error:
            why_not = say(error.word, **error.facts)
    mask = await broker.mask()
    evidence = masked(evidence, mask)
    return Report(
        endpoint=broker.endpoint,
        broker_version=broker.version,
        evidence=evidence,
        verdict=judge(evidence),
        old_way=None if old_way is None else masked(old_way, mask),
        no_comparison=why_not and mask(why_not),
    )


async def _old_way(broker: Examination, pages: int, tell: Tell) -> OldWay:
    from broker.command.doctor.old_way import open_pages

    configs, folder, environ = await broker.configs()
    return await open_pages(configs, pages, folder=folder, environ=environ, tell=tell)


def _end_well_on_signals() -> None:
    """A closed terminal or a `kill` ends the course as Ctrl-C does: with every process of its own."""
    import asyncio
    import signal

    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
