"""laundry-assistant: the washers and dryers of a laundromat, their cycles and prices.

What it knows stands in laundry.json beside this file: machines with the runs of a day, cycles with their
price by machine size, advice by fabric. A reported problem is kept in memory, until the process ends.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from mcp.server.caching import CacheHint
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

T = TypeVar("T")
Names = dict[Literal["ja", "zh", "en"], str]
Kind = Literal["washer", "dryer"]
Size = Literal["S", "M", "L"]
Fabric = Literal["cotton", "synthetic", "denim", "towel", "wool", "silk", "down"]
Soil = Literal["light", "normal", "heavy"]
Clock = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="HH:MM, in Japan.")]
MachineId = Annotated[str, Field(description="As list_machines gives it, for example W1.")]
CycleId = Annotated[str, Field(description="As recommend_cycle gives it, for example standard.")]
Problem = Annotated[str, Field(min_length=1, max_length=200, description="What the visitor saw.")]


class Machine(BaseModel):
    kind: Kind
    size: Size
    capacity_kg: int
    name: Names
    runs: dict[Clock, str] = Field(description="The cycles of the day, by their start.")
    problem: str | None = None
    state: Literal["free", "running", "out of order"] = "free"
    free_at: str | None = None


class Cycle(BaseModel):
    kind: Kind
    minutes: int
    temperature_c: int
    price_yen: dict[Size, int]
    name: Names


class Advice(BaseModel):
    wash: dict[Soil, str]
    dry: str | None
    note: Names


class Laundry(BaseModel):
    machines: dict[str, Machine]
    cycles: dict[str, Cycle]
    advice: dict[Fabric, Advice]


class Recommendation(BaseModel):
    wash: str = Field(description="The cycle of the washer.")
    dry: str | None = Field(description="The cycle of the dryer; null: not into the dryer.")
    note: Names


class Estimate(BaseModel):
    starts_at: str
    finishes_at: str
    price_yen: int


LAUNDRY = Laundry.model_validate_json(Path(__file__).with_name("laundry.json").read_bytes())
READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
REPORTS = READS.model_copy(update={"read_only_hint": False, "destructive_hint": False})

server = MCPServer(
    "laundry-assistant",
    version="0.1.0",
    instructions="Washers and dryers of this laundromat: which is free, which cycle to take, when it ends.",
    log_level="WARNING",
    cache_hints={"tools/list": CacheHint(ttl_ms=3_600_000, scope="public")},
)


def now() -> str:
    """The time of day in Japan, wherever the host's own clock is set."""
    return datetime.now(timezone(timedelta(hours=9))).strftime("%H:%M")


def later(clock: str, minutes: int) -> str:
    return (datetime.strptime(clock, "%H:%M") + timedelta(minutes=minutes)).strftime("%H:%M")


def pick(what: str, known: dict[str, T], key: str) -> T:
    if key in known:
        return known[key]
    raise ToolError(f"No {what} {key!r}. There are {', '.join(known)}.")


def as_of(at: str, machine: Machine) -> Machine:
    """A copy of the machine with its state at a time of day. No run goes on past midnight."""
    if machine.problem:
        return machine.model_copy(update={"state": "out of order"})
    for start, cycle in machine.runs.items():
        end = later(start, LAUNDRY.cycles[cycle].minutes)
        if start <= at < end:
            return machine.model_copy(update={"state": "running", "free_at": end})
    return machine


@server.tool(annotations=READS)
def list_machines(kind: Kind | None = None, at: Clock | None = None) -> dict[str, Machine]:
    """All washers and dryers by id, or those of one kind: capacity, whether free, and when they will be."""
    return {key: as_of(at or now(), it) for key, it in LAUNDRY.machines.items() if kind in (None, it.kind)}


@server.tool(annotations=READS)
def machine_status(machine_id: MachineId, at: Clock | None = None) -> Machine:
    """One machine: free, running (and until when), or out of order (and why)."""
    return as_of(at or now(), pick("machine", LAUNDRY.machines, machine_id))


@server.tool(annotations=READS)
def list_cycles() -> dict[str, Cycle]:
    """All cycles by id: minutes, temperature, and the price in yen by the size of the machine."""
    return LAUNDRY.cycles


@server.tool(annotations=READS)
def recommend_cycle(fabric: Fabric, soil: Soil = "normal") -> Recommendation:
    """The cycle to wash a fabric with, the cycle to dry it with, and a word of care."""
    advice = LAUNDRY.advice[fabric]
    return Recommendation(wash=advice.wash[soil], dry=advice.dry, note=advice.note)


@server.tool(annotations=READS)
def estimate_finish(machine_id: MachineId, cycle_id: CycleId, at: Clock | None = None) -> Estimate:
    """When a cycle would start and end on a machine, waiting for the run that occupies it, and its price."""
    at = at or now()
    machine = as_of(at, pick("machine", LAUNDRY.machines, machine_id))
    fitting = {key: cycle for key, cycle in LAUNDRY.cycles.items() if cycle.kind == machine.kind}
    cycle = pick(f"{machine.kind} cycle", fitting, cycle_id)
    if machine.problem:
        raise ToolError(f"{machine_id} is out of order: {machine.problem}. list_machines names the others.")
    start = machine.free_at or at
    finish = later(start, cycle.minutes)
    return Estimate(starts_at=start, finishes_at=finish, price_yen=cycle.price_yen[machine.size])


@server.tool(annotations=REPORTS)
def report_problem(machine_id: MachineId, problem: Problem) -> Machine:
    """Report what is wrong with a machine. From then on it counts as out of order, for every visitor."""
    machine = pick("machine", LAUNDRY.machines, machine_id)
    machine.problem = problem
    return as_of(now(), machine)


if __name__ == "__main__":
    server.run()
