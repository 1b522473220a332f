"""Every text that a person meets is in both languages: what the code writes in English has its Chinese."""

from __future__ import annotations

import ast
import errno
import itertools
import os
import re
from collections.abc import Iterator
from string import Formatter

import click
import pytest

from broker.command.cli import cli
from broker.command.keys import keys
from broker.command.texts.chinese import _translations, in_chinese
from broker.command.texts.filling import fill_in, texts
from broker.command.texts.words import WORDS
from broker.config.loading import ConfigError, load
from broker.core.calls.retry import NoRetry
from broker.core.servers.lifecycle import Event, State
from broker.core.servers.server import MISCONFIGURED
from broker.core.servers.start import Start
from broker.service.systemd import status_lines
from client_shim.permissions import _KINDS
from tests.e2e.harness import ROOT
from tests.project.english_texts import Search, is_prose, literal
from tests.service.test_systemd import CRASHED, _server

PACKAGES = ("broker", "client_shim")

NOT_SHOWN = {
    "BrokerFault": "the gateway answers it to MCP clients",
    "CancelCall": "the gateway's reason for the server",
    "InvalidMessage": "the gateway answers it to MCP clients",
    "Objection": "the gateway answers it to MCP clients",
    "Refused": "the gateway answers it to HTTP clients",
    "Unanswerable": "the gateway answers it to MCP clients",
    "Cancel": "the reason that the server of a question is given",
    "QuestionRefused": "the reason that the server of a question is given",
    "IllegalEvent": "a fault of the broker, which ends in its log",
    "NotKeptError": "a line of the log",
    "UnknownEngine": "a line of the log",
    "UnusableError": "a line of the log",
    "ErrorReport": "the words of the program that failed",
    "_malformed": "a client's library has to be corrected; it is logged",
    "_refuse": "the reason that the server of a question is given",
    "refused_question": "the reason that the server of a question is given",
    "_tell_container_left": "a line of the log",
}
"""Error, or function that makes it → who gets its texts. Programs and the log get English; people read all
others."""

CODE = Search(*PACKAGES)
FOUND = CODE.texts(CODE.errors() - NOT_SHOWN.keys(), NOT_SHOWN)
TEXTS = {text: f"{file}: {error}" for file, error, text in FOUND}
"""Text → the file and the error that has it."""


def sample(text: str) -> str:
    """The text with a number in each place, which may also be a count."""
    number = iter(range(101, 999))
    return re.sub(r"\{\}", lambda _: str(next(number)), text)


ENGLISH = r"[a-z]{3} [a-z]+ [a-z]{2}"
"""Three words in a row."""


def plain(text: str) -> str:
    """The text without code and quotations."""
    return re.sub(r"`[^`]*`|'[^']*'|\"[^\"]*\"", "", text)


@pytest.mark.parametrize("text", sorted(TEXTS))
def test_every_text_has_its_chinese(text: str) -> None:
    """A mistake in the config, a taken address, a server that ended: in Chinese, with its facts.

    The text is whatever an error class of the project may get, found in the code and not in a list.
    """
    english = sample(text)
    chinese = in_chinese(english)
    assert chinese != english, f"{text!r} of {TEXTS[text]} is not in broker/command/texts/chinese.toml"
    assert not re.search(ENGLISH, plain(chinese)), f"a part of {text!r} is not there: {chinese!r}"
    lost = [fact for fact in re.findall(r"\d{3}", english) if chinese.count(fact) < english.count(fact)]
    assert not lost, f"{chinese!r} has lost facts of {english!r}"


INNER = sorted(
    {
        sample(text)
        for text, place in TEXTS.items()
        if place.split(": ")[1] in {"Ending", "SpawnError", "NotRunnable"}
    }
)

OUTER = ["server 'time' is down: {}", "server 'time' ended during tools/call: {}", "config not reloaded: {}"]


@pytest.mark.parametrize("outer", [*OUTER, "server 'time' was left out, for its table has a mistake: {}"])
def test_a_text_within_a_text_is_told_as_it_is_alone(outer: str) -> None:
    """No other sentence of the catalogue takes a part of both for its own."""
    for inner in INNER:
        around = in_chinese(outer.format("REASON"))
        assert in_chinese(outer.format(inner)) == around.replace("REASON", in_chinese(inner))


@pytest.mark.parametrize(
    "parts",
    [
        (
            "it is tried again in 300 s, or by the first call in 30 s",
            "`mcp-broker status` says why, and the broker's log at `catalogue.unread`",
        ),
        (
            "it was not ready within 3 s (timeout_start_sec = 3; raise it if the server needs longer)",
            "it was sent initialize, and has not answered",
            'if it is an older server, `protocol = "legacy"` in [servers.a] may help',
            "it is being started again",
        ),
    ],
)
def test_the_parts_of_a_text_are_told_as_they_are_alone(parts: tuple[str, ...]) -> None:
    """Also those with a `; ` or `, or ` of their own."""
    assert in_chinese("; ".join(parts)) == "；".join(map(in_chinese, parts))


def test_the_texts_are_found() -> None:
    """The search finds what it is to guard, and each exemption is still needed."""
    assert len(TEXTS) > 400
    files = {place.split(":")[0] for place in TEXTS.values()}
    assert {"broker/core/refusals.py", "client_shim/trusted.py", "broker/processes/records.py"} <= files
    used_for = {error for _, error, _ in CODE.texts(CODE.errors())}
    assert not NOT_SHOWN.keys() - used_for


MISTAKES_OF_EACH_KIND = {
    "args": "x",
    "env": ["x"],
    "enabled": 1,
    "timeout": "x",
    "timeout_start_sec": 0,
    "max_in_flight": 0.5,
    "serialized": "x",
    "restart": "x",
    "start_limit_burst": -1,
    "cwd": 1,
    "doctor": {"arguments": 1},
    "tools": {"hide": [""], "only": ["x" * 300] * 200},
}
"""Keys of a server with wrong values: what msgspec says about each is a text, too."""


def of_the_config() -> Iterator[str]:
    """The mistakes of a config that the reader of msgspec's types finds."""
    for table in (MISTAKES_OF_EACH_KIND, {"cwd": 5, "command": 1, "watchdog_sec": 1e99}):
        with pytest.raises(ConfigError) as caught:
            load(
                {
                    "broker": {"endpoint": []},
                    "servers": {"a": table},
                    "limits": {"calls": 10**12, "connections": 0},
                },
                {},
            )
        yield from map(str, caught.value.problems)
    config = load({"servers": {"a": {"command": "x", **MISTAKES_OF_EACH_KIND}}}, {}, leave_out=True)
    yield from config.servers["a"].faults
    with pytest.raises(ConfigError) as caught:
        load({f"key{number}": 1 for number in range(200)}, {})
    yield str(caught.value.problems[-1])


def of_a_start() -> Iterator[str]:
    """Why a start is ended: as it says so itself."""
    for runner, now, following in itertools.product((None, "npx"), (50.0, 400.0), (30.0, 60.0)):
        yield Start(0.0, 30.0, runner, 0.0).overdue(now, following)


def of_the_status() -> Iterator[str]:
    """What systemd is told of servers in each state, and of a start that failed."""
    mistake = "servers.a.x: this key is missing"
    yield from status_lines([_server("a", Event.IDLE)], [mistake], ["limits.calls"])
    yield from status_lines([_server(str(number), *CRASHED) for number in range(9)], [mistake] * 3)
    for state in {one.value for one in State} - {"ready", "idle"} | {MISCONFIGURED}:
        yield from (f"it: {state}", f"it: {state} (it exited with status 1)")
    yield fill_in(WORDS["config_bad"][0], path="broker.toml", count=1)
    yield fill_in(WORDS["config_bad"][0], path="broker.toml", count=2)
    yield fill_in(WORDS["no_config"][0], system="/etc/mcp-broker/broker.toml")
    yield fill_in(WORDS["config_of_others"][0], path="/srv/broker.toml")


MISTYPED = [
    *("statsu", "xyz", "call", "status --jsn", "status --wathc", "status --zz", "status a b c", "status a b"),
    *("status --endpoint", "status --json=1", "call a b --timeout x", "call a b --timeout -1"),
    *("doctor --cycles 0", "doctor --cycles x", "serve --log-level x", "doctor --json --markdown"),
    *("call a b --timeout nan", "doctr", "serve --log-lebel x", "status --broker --watch"),
]
"""Command lines with a mistake."""


def of_click(line: str) -> str:
    """What click says about a command line."""
    with pytest.raises(click.UsageError) as caught:
        cli.main(line.split(), standalone_mode=False)
    return caught.value.format_message()


COMMANDS = (cli, *cli.commands.values(), *keys.commands.values())
HELPS = {text for one in COMMANDS for text in (one.help or "").split("\n\n")} | {
    str(getattr(option, "help", "") or "") for one in COMMANDS for option in one.params
}


OTHER_TEXTS = [
    *(os.strerror(number) for number in errno.errorcode),
    *(words for _, words in _KINDS),
    *("a device", "everybody", "group backend"),
    *of_the_config(),
    *of_a_start(),
    *of_the_status(),
    *(f"the call was not sent again, because {why.words}; it is safe to repeat" for why in NoRetry),
    *map(of_click, MISTYPED),
    *("it is wrong; then `mcp-broker reload`", "`tools` is no list, but 5", "Show this message and exit."),
]
"""Texts of the system, of libraries, and those that objects put together."""


@pytest.mark.parametrize("text", sorted(set(OTHER_TEXTS[len(errno.errorcode) :])))
def test_a_text_that_is_put_together_has_its_chinese(text: str) -> None:
    """No English word is left beside names, values and code."""
    assert not re.search(ENGLISH, plain(in_chinese(text))), in_chinese(text)


OTHER_CLICK = {
    "No such option: {option}": "8.1",
    "No such option: {option} Did you mean {other}?": "8.1",
    "No such option: {option} (Possible options: {others})": "8.1",
    "No such option {option}": "8.2",
    "No such option {option}. (Did you mean one of: {others}?)": "no two options are so similar",
    "Missing option {name}.": "no command has an option that must be given",
}
"""Key of the catalogue → the release of click that says it."""


def used(text: str) -> Iterator[str]:
    """The keys of the catalogue that a text is recognised by, those of its facts and parts included."""
    for translation in _translations():
        found = translation.facts_in(text)
        if found is not None:
            yield translation.key
            for fact in found.values():
                yield from used(fact)
            break
    for match in re.finditer("; |: |, or ", text):
        yield from (*used(text[: match.start()]), *used(text[match.end() :]))


def test_no_key_of_the_catalogue_is_dead() -> None:
    """A text that was changed leaves no Chinese behind that nobody reads."""
    said = {*map(sample, TEXTS), *(" ".join(text.split()) for text in HELPS), *OTHER_TEXTS}
    alive = {key for text in said for key in used(text)}
    dead = {translation.key for translation in _translations()} - alive - OTHER_CLICK.keys()
    assert not dead, "\n".join(sorted(dead))


@pytest.mark.parametrize("text", sorted(HELPS - {""}))
def test_every_help_has_its_chinese(text: str) -> None:
    """Each paragraph of a command, and each option."""
    chinese = in_chinese(" ".join(text.split()))
    assert re.search("[\u4e00-\u9fff]", chinese), f"{text!r} is not in broker/command/texts/chinese.toml"


SPOKEN = {"echo", "fail", "give_up", "confirm"}
"""Calls that print their argument"""

UNSPOKEN: dict[str, str] = {
    "mcp-broker: {}": "the name before a message that is translated already",
    "mcp-broker connect: {}\n": "the log of an MCP host",
    "mcp-broker, version {}": "a name",
}
"""Literal that a command prints → why it is no text"""


def test_the_commands_print_no_text_of_one_language() -> None:
    """What a command prints itself comes from the texts in both languages, not from a literal."""
    spoken = {literal(argument) for call in printing() for argument in call.args} - {None}
    assert {text for text in spoken if re.search("[A-Za-z]{2}", str(text))} == UNSPOKEN.keys()


def printing() -> Iterator[ast.Call]:
    """The calls that print: those of the commands, and wherever something is written to the terminal."""
    for module in CODE.modules:
        commands = "command" in module.file.parts
        for call in (node for node in ast.walk(module.tree) if isinstance(node, ast.Call)):
            written = ast.unparse(call.func)
            name = written.rpartition(".")[2]
            if written in {"print", "sys.stderr.write", "sys.stdout.write"} or (commands and name in SPOKEN):
                yield call


def pairs() -> Iterator[tuple[str, tuple[str, str]]]:
    """The texts that are kept in both languages: in TOML files, and in tables anywhere in the code."""
    for file in sorted((ROOT / "broker").rglob("*.toml")):
        yield from texts(file).items()
    for module in CODE.modules:
        for node in (node for node in ast.walk(module.tree) if isinstance(node, ast.Tuple)):
            match [literal(one) for one in node.elts]:
                case [str(english), str(chinese)] if re.search("[\u4e00-\u9fff]", chinese):
                    yield f"{module.file.name}:{node.lineno}", (english, chinese)


PAIRS = dict(pairs())


@pytest.mark.parametrize("name", PAIRS)
def test_both_languages_have_the_same_facts(name: str) -> None:
    """What is filled in stands in both, and the Chinese is Chinese."""
    english, chinese = PAIRS[name]
    assert facts_in(english) - facts_in(chinese) == set()
    assert facts_in(chinese) <= facts_in(english)
    assert re.search("[\u4e00-\u9fff]", chinese) or english == chinese or not is_prose(english)


def facts_in(text: str) -> set[str]:
    """The names of the facts in a text."""
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_the_pairs_are_found() -> None:
    """In the TOML files and in the code."""
    assert len(PAIRS) > 250
    assert any(name.startswith("words.py:") for name in PAIRS)


def test_no_word_of_the_commands_is_dead() -> None:
    """Each is printed, by its name or by a name that is put together."""
    code = "".join(
        module.file.read_text(encoding="utf-8") for module in CODE.modules if module.file.name != "words.py"
    )
    named = re.compile(r"""["']([a-z_-]+)["']|f["']([a-z_]+_)\{""")
    said = {match[1] or match[2] for match in named.finditer(code)}
    begun = tuple(name for name in said if name.endswith("_"))
    assert not [word for word in WORDS if word not in said and not word.startswith(begun)]
