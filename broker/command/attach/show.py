"""Shows what `attach`, `detach`, `add` and `remove` change, with secrets masked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import unified_diff
from pathlib import Path
from typing import Any, NamedTuple

from broker.base.secrets import Mask, secrets_among
from broker.command.attach.files import HostFile
from broker.command.attach.hosts import Host
from broker.command.attach.plan import HostDocument, Plan, parsed
from broker.command.attach.restore import value_of
from broker.command.attach.texts import say
from broker.command.importing import texts
from broker.command.importing.secrets import env_of
from broker.command.importing.shapes import Table, flat
from broker.command.output import echo


class Attachment(NamedTuple):
    """A host with its file, and what an attach changes in it."""

    host: Host
    file: HostFile
    document: HostDocument
    plan: Plan


def show_plan(one: Attachment) -> None:
    """Show the entries that change, then those that stay as they are, with the reason."""
    host, file, document, plan = one
    new = parsed(host, plan.text, file.path)
    values = {name: value_of(host, document.section, name, one.before) for name, one in plan.records.items()}
    mask = mask_of(values.values())
    for name, record in plan.records.items():
        show_entry(file.path, name, record.before, new.text[new.places[name]], mask)
    for left in plan.left:
        remark: Any = left.facts.get("remark")
        facts = {**left.facts, "name": left.name}
        why = say(left.word, **facts)
        if remark:
            why = texts.say(remark.word, **{**remark.facts, "server": ""}).lstrip(":： ")
        echo(mask(say("attach_stays", name=left.name, why=why)), err=True)
    for note in plan.remarks:
        echo(mask(texts.say(note.word, **note.facts)), err=True, colour="yellow")
    if not plan.records:
        echo(say("attach_nothing", host=host.title, path=file.path), err=True)


def show_entry(path: Path, name: str, before: str, after: str, mask: Mask) -> None:
    """Show the text of an entry before and after."""
    echo(f"{path}: {name}")
    for text, sign, colour in ((before, "-", "red"), (after, "+", "green")):
        for line in text.splitlines():
            echo(f"  {sign} {mask(line)}", colour=colour)


def show_config(path: Path, old: str, new: str, tables: Mapping[str, Table]) -> None:
    """Show the lines that are new in `broker.toml`."""
    mask = mask_of(tables.values())
    for number, line in enumerate(unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")):
        if number == 0:
            echo(f"{path}:")
        if not line.startswith(("---", "+++", "@@")):
            echo(f"  {line[:1]} {mask(line[1:])}", colour="green" if line.startswith("+") else "red")


def mask_of(entries: Iterable[Any]) -> Mask:
    """Return the mask of the secrets of these entries: all of `env`, and secrets among the arguments."""
    values: list[str] = []
    for entry in map(flat, entries):
        args = entry.get("args")
        values += env_of(entry).values()
        values += secrets_among(
            [arg for arg in args if isinstance(arg, str)] if isinstance(args, list) else []
        )
    return Mask(values)
