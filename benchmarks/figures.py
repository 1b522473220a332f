"""Writes the figures of a run that the documentation shows: `figures.json`, which docs/generate.py reads."""

from __future__ import annotations

import math

import msgspec

from benchmarks.steps import STEPS
from benchmarks.summary import Summary
from benchmarks.targets import TARGETS

PARTS = {
    "pipe": "the bare pipe: encode, write, the server, read, decode",
    "zmq": "two hops of ZeroMQ and the process in between, in the barest loops",
    "loops": "asyncio in the client and trio in the broker instead",
    "ours": "the shim and the broker: all that the table of steps has, and what is colder for it",
}
"""The parts of one call, from one way to the next."""


def figures(run: Summary) -> bytes:
    """Write the figures as JSON, which people can compare too."""
    targets = [
        {
            "what": target.text,
            "limit": target.wanted,
            "reached": target.show(measured),
            "met": None if math.isnan(measured) else target.met(measured),
        }
        for target, measured in ((target, target.measure(run)) for target in TARGETS)
    ]
    steps = [
        {"what": what, "where": where, "us": round(run.results.steps[name] * 1e6, 1)}
        for name, (what, where) in STEPS.items()
    ]
    parts = [{"what": PARTS[name], "us": round(took * 1e6)} for name, took in run.parts().items()]
    load = round(run.results.load_before, 2)
    about = {"date": run.results.date, "plan": run.results.plan, "load_before": load, **run.results.machine}
    document = {"about": about, "targets": targets, "parts": parts, "steps": steps}
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
