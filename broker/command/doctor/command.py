"""The command `mcp-broker doctor`. It imports its modules when it runs, because every command imports it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from broker.command.common import BAD, fail_by
from broker.command.output import echo, echo_json
from broker.command.texts.language import language
from client_shim.errors import BrokerError

if TYPE_CHECKING:
    from broker.command.doctor.comparison import Comparison
    from broker.command.doctor.examination import Examination
    from broker.command.doctor.report import DoctorReport
    from broker.command.doctor.texts import OnProgress, Say

COMPARED_PAGES = 5
"""The maximum number of pages opened without the broker, because each of them starts every server."""

_LANGUAGES = ("en", "zh")
_TERMINATED = 143


@click.command()
@click.option("--endpoint", metavar="ADDRESS", help="Where the broker listens.")
@click.option(
    "--cycles", type=click.IntRange(1, 1000), default=10, show_default=True, help="Number of pages to open."
)
@click.option(
    "--compare",
    is_flag=True,
    help=f"Also open up to {COMPARED_PAGES} pages the old way: each starts every server. "
    "These processes are ended afterwards.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown, for an issue or a mail.")
@click.option("--lang", type=click.Choice(_LANGUAGES), help="English or Chinese. Default: the locale.")
def doctor(
    endpoint: str | None, cycles: int, compare: bool, as_json: bool, as_markdown: bool, lang: str | None
) -> None:
    """Open pages as a backend does, count processes, and give a verdict.

    A: fixed; exit status 0. B: partly fixed, with the problems to solve; C: not fixed, with the likely cause;
    both exit status 1. Every second page is left without closing its client.
    """
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown exclude each other; leave one out.")
    from broker.command.doctor.texts import markdown_speaker, speaker

    speaks = _LANGUAGES.index(lang) if lang else language()
    say = (markdown_speaker if as_markdown else speaker)(speaks)
    try:
        report = _examine(endpoint, cycles, COMPARED_PAGES if compare else 0, say)
    except BrokerError as error:
        fail_by(error, speaks)
    _print(report, say, json=as_json, markdown=as_markdown)
    if report.verdict.grade != "A":
        sys.exit(BAD)


def _print(report: DoctorReport, say: Say, *, json: bool, markdown: bool) -> None:
    from broker.command.doctor.report import as_json, as_parts

    if json:
        echo_json(as_json(report, say))
    elif markdown:
        from broker.command.doctor.markdown import as_markdown

        echo(as_markdown(report, say))
    else:
        from broker.command.tables import show

        show(as_parts(report, say))


def _examine(endpoint: str | None, cycles: int, compared: int, say: Say) -> DoctorReport:
    import asyncio

    from broker.command.doctor.examination import examination
    from broker.command.doctor.progress import progress

    try:
        with progress(say) as on_progress, examination(endpoint, on_progress) as broker:
            return asyncio.run(_run(broker, cycles, compared, say, on_progress))
    except asyncio.CancelledError:
        sys.exit(_TERMINATED)


async def _run(
    broker: Examination, cycles: int, compared: int, say: Say, on_progress: OnProgress
) -> DoctorReport:
    """Run the examination, then the comparison if wanted, so that neither slows the other."""
    from broker.command.doctor.examination import Unreadable
    from broker.command.doctor.report import DoctorReport, masked
    from broker.command.doctor.verdict import judge

    _cancel_on_signals()
    evidence, comparison, no_comparison = await broker.run(cycles), None, None
    if compared:
        try:
            comparison = await _compare(broker, min(cycles, compared), on_progress)
        except Unreadable as error:
            no_comparison = say(error.word, **error.facts)
    mask = await broker.mask()
    evidence = masked(evidence, mask)
    return DoctorReport(
        endpoint=broker.endpoint,
        broker_version=broker.version,
        evidence=evidence,
        verdict=judge(evidence),
        comparison=None if comparison is None else masked(comparison, mask),
        no_comparison=no_comparison and mask(no_comparison),
    )


async def _compare(broker: Examination, pages: int, on_progress: OnProgress) -> Comparison:
    from broker.command.doctor.comparison import open_pages

    configs, folder, environ = await broker.configs()
    return await open_pages(configs, pages, folder=folder, environ=environ, on_progress=on_progress)


def _cancel_on_signals() -> None:
    """Cancel on SIGTERM and SIGHUP as on Ctrl-C, so that every process of the comparison is ended."""
    import asyncio
    import signal

    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
