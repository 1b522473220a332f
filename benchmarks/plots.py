"""Draws the plots of a report as SVG. It needs matplotlib, of the extra `bench`, so it is imported late."""

from __future__ import annotations

import statistics
from pathlib import Path

import matplotlib as mpl

from benchmarks.summary import OURS, Summary

mpl.use("svg")
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "mcp-broker", "font.size": 9})

from matplotlib import pyplot  # noqa: E402 - the backend is chosen first
from matplotlib.figure import Figure  # noqa: E402

_OURS, _OTHERS = "#1f77b4", "#9aa5b1"
_WINDOW = 100


def draw(run: Summary, folder: Path) -> None:
    """Write all plots into this folder."""
    latency = {way: run.latency(way, 0.5) * 1e6 for way in run.bare.latency}
    _bars(latency, "one call at a time, p50 in µs (logarithmic)", folder / "latency.svg", log=True)
    rates = {way: run.rate(way, 64) for way in run.bare.rates}
    _bars(rates, "calls per second with 64 in flight", folder / "rates.svg")
    _cycles(run.results.cycles, folder / "cycles.svg")


def _bars(values: dict[str, float], label: str, path: Path, *, log: bool = False) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 0.4 * len(values) + 1))
    ways = list(values)
    colours = [_OURS if way in OURS else _OTHERS for way in ways]
    bars = axes.barh(ways, list(values.values()), color=colours, log=log)
    axes.bar_label(bars, fmt="{:.0f}", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _cycles(cycles: list[float], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 2.5))
    starts = range(0, len(cycles), _WINDOW)
    medians = [statistics.median(cycles[start : start + _WINDOW]) * 1e6 for start in starts]
    axes.plot(starts, medians, color=_OURS)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"cycle (medians of {_WINDOW})")
    axes.set_ylabel("open, call, drop in µs")
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
