"""The documentation says what is so: generated tables, links, both languages, commands and their output."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import tomli
import yaml

from broker.command.cli import cli
from broker.config.loading import load
from broker.config.schema import NO_KEYS, Config
from broker.core.calls.questions import Unanswered
from broker.core.calls.retry import NoRetry
from broker.core.servers.lifecycle import State
from broker.gateway.settings import parse
from broker.processes.environment import INHERITED
from client_shim import wire
from docs import generate
from docs.blocks import config, events, gateway, house, messages, protocol, service
from docs.blocks.markdown import TEXTS
from tests.project.console import FENCE, commands, fences, words

ROOT = Path(__file__).resolve().parents[2]
PAGES = generate.pages()
CHINESE = [page for page in PAGES if generate.language_of(page) == "zh"]
BROKER = [sys.executable, "-m", "broker"]
PATIENCE_S = 60.0
"""How long the servers may take to be ready; they need two seconds on an idle machine."""

REGISTRY = tomli.loads((ROOT / "tests" / "project" / "commands.toml").read_text(encoding="utf-8"))
"""What is run elsewhere, by which test, and what cannot be run, and why."""

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
every_chinese_page = pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.name)
every_section = pytest.mark.parametrize("section", config.SHAPES)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def every_page_with(language: str) -> pytest.MarkDecorator:
    """The pages that have a fenced block of this language."""
    found = [page for page in PAGES if fences(page, language)]
    return pytest.mark.parametrize("page", found, ids=lambda page: page.name)


_ENGLISH = [page for page in PAGES if page not in CHINESE and fences(page, "python")]
every_english_page_with_python = pytest.mark.parametrize("page", _ENGLISH, ids=lambda page: page.name)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", read(page))


def listed() -> dict[str, str]:
    """The commands of the registry, with the test that runs them or the reason why none can."""
    return {**REGISTRY["run_by"], **REGISTRY["not_run"]}


# --- what is generated ---------------------------------------------------------------------------------


@every_page
def test_every_generated_block_is_fresh(page: Path) -> None:
    """A table that the code has left behind, or a translation of an older text: the generator says which."""
    assert read(page) == generate.renewed(page), "run: python docs/generate.py"


@pytest.mark.parametrize("file", generate.FILES, ids=lambda file: file.name)
def test_every_generated_file_is_fresh(file: Path) -> None:
    """A dashboard that was changed in one language only."""
    assert read(file) == generate.renewed(file), "run: python docs/generate.py"


def test_every_block_is_on_a_page() -> None:
    """A block that stands nowhere is read by nobody, and a marker without an end would never be renewed."""
    used = [name for page in PAGES for name in generate.blocks_in(read(page))]
    assert set(used) == set(generate.BLOCKS)
    assert len(used) == sum(read(page).count("<!-- generated:") for page in PAGES)


def test_the_texts_are_those_of_the_code() -> None:
    """docs/texts.toml: nothing is missing, and nothing is left of what the code no longer has."""
    keys = {section: set(config.keys_of(section)) for section in config.SHAPES}
    assert {section: set(texts) for section, texts in TEXTS["config"].items()} == keys
    settings = {section: set(gateway.keys_of(section)) for section in gateway.SHAPES}
    assert {section: set(texts) for section, texts in TEXTS["gateway"].items()} == settings
    assert set(TEXTS["codes"]) == {code.value for code in wire.Code}
    assert set(TEXTS["unavailable"]) == {kind.default_code for kind in messages.unavailable_kinds()}
    raised = {text["raised"] for text in TEXTS["codes"].values() if "raised" in text}
    assert raised <= {kind.__name__ for kind in messages.unavailable_kinds()}
    assert set(TEXTS["events"]) == events.catalogue().keys()
    everything, hardening = service.keys()
    assert hardening <= set(TEXTS["unit"]) <= everything
    assert set(TEXTS["left_out"]) == set(service.left_out())
    rooms = {folder: " ".join(words.split()) for folder, words in house.docstrings_of_rooms().items()}
    assert {folder: text["of"] for folder, text in TEXTS["rooms"].items()} == rooms
    assert set(TEXTS["kinds"]) == {kind.name.lower() for kind in wire.Kind}
    assert set(TEXTS["states"]) == {state.value for state in State}
    assert list(TEXTS["unanswered"]) == [why.value for why in Unanswered]
    assert set(TEXTS["fates"]) == {why.value for why in NoRetry} | {
        "line",
        "memory",
        "again",
        "ends",
        "tool_again",
    }
    fields = {kind.name.lower(): set(names) for kind in wire.Kind if (names := protocol.fields_of(kind))}
    assert {kind: set(texts) for kind, texts in TEXTS["fields"].items()} == fields


def test_the_blame_is_that_of_the_code() -> None:
    """docs/messages.md says whose fault a code is: the same that the broker says in its faults."""
    files = ("core/refusals.py", "core/servers/availability.py", "management/commands.py")
    said = {pair for file in files for pair in blames(ROOT / "broker" / file)}
    assert len(said) > 10
    codes = {code for code, _ in said}
    assert {(code, blame) for code in codes for blame in TEXTS["codes"][code]["blame"]} == said


def blames(source: Path) -> Iterator[tuple[str, str]]:
    """The code and the blame of every `Refusal` in a module that names both."""
    for node in ast.walk(ast.parse(read(source))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Refusal":
            names = dict(re.findall(r"\b(Code|Blame)\.([A-Z_]+)", ast.unparse(node)))
            if "Code" in names:
                yield wire.Code[names["Code"]].value, names["Blame"].lower()


# --- links, headings, names ----------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@every_page
def test_every_fence_is_looked_at(page: Path) -> None:
    """A block of a language that no test here reads would be believed without a look."""
    known = {"console", "dockerfile", "python", "toml", "json", "yaml", "text", "abnf", "mermaid"}
    assert {match[1] for match in FENCE.finditer(read(page))} <= known, "commands are `console`, after a `$ `"


@every_page
def test_every_relative_link_resolves(page: Path) -> None:
    """A link to a file or a heading that is not there."""
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_no_link_of_the_installed_pages_is_dead(tmp_path: Path) -> None:
    """`make install` brings the pages along, and whatever they link to."""
    code = (
        f'PREFIX=/there DESTDIR="$1" && export PREFIX DESTDIR && . "{ROOT}/systemd/install" && install_share'
    )
    done = run("bash", "-c", code, "bash", str(tmp_path), cwd=tmp_path, environ=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    share = tmp_path / "there" / "share"
    pages = [*share.rglob("*.md")]
    assert len(pages) > len(PAGES)
    dead = [
        f"{page.relative_to(share)}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", prose(page))
        if not (page.parent / target).exists()
    ]
    assert dead == []
    named = {
        path for page in pages for path in re.findall(r"`(examples/[\w/.-]+)`", prose(page) + read(page))
    }
    assert [path for path in sorted(named) if not (share / path).exists()] == []


def english_of(page: Path) -> Path:
    return page.with_name(page.name.replace(generate.CHINESE, ".md"))


@every_chinese_page
def test_both_languages_have_the_same_structure(page: Path) -> None:
    """The same headings, number and level, and a link to each other at the top."""
    english, levels = english_of(page), re.compile(r"^(#+) ", re.MULTILINE)
    assert levels.findall(prose(page)) == levels.findall(prose(english))
    assert f"]({page.name})" in read(english).splitlines()[2]
    assert f"]({english.name})" in read(page).splitlines()[2]


@every_chinese_page
def test_both_languages_show_the_same(page: Path) -> None:
    """The same commands and the same Python; config differs in its comments only."""
    english = english_of(page)
    assert [shown.command for shown in commands(page)] == [shown.command for shown in commands(english)]
    assert fences(page, "python") == fences(english, "python")
    assert [*map(tomli.loads, fences(page, "toml"))] == [*map(tomli.loads, fences(english, "toml"))]


@every_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    """A file that was moved or renamed."""
    for path in re.findall(r"`((?:broker|client_shim|tests|docs|examples)/[\w/.-]+)`", read(page)):
        assert (ROOT / path).exists(), path


def names_in(source: Path) -> Iterator[str]:
    """Return every name and every word of a string in a module; a docstring does not count."""
    for node in ast.walk(ast.parse(read(source))):
        match node:
            case ast.Expr(value=ast.Constant() as docstring):
                docstring.value = None
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case (
                ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name))
            ):
                yield name
            case ast.Constant(value=str(text) | bytes(text)):
                yield from re.findall(r"[\w./]+", text if isinstance(text, str) else text.decode("latin-1"))


@pytest.mark.parametrize(
    "page", [ROOT / "docs/architecture.md", ROOT / "docs/architecture.zh-CN.md"], ids=str
)
def test_everything_that_the_architecture_names_exists(page: Path) -> None:
    """Every `module` or `room/module`, and every identifier in backticks: the page moves with the code."""
    sources = [path for package in ("broker", "client_shim") for path in (ROOT / package).rglob("*.py")]
    modules = {str(path.with_suffix("").relative_to(ROOT)) for path in sources}
    names = {name for path in sources for name in names_in(path)}
    names |= {part for module in modules for part in module.split("/")}
    text = re.sub(
        r"<!-- generated:(?:files|laws|rooms|terms).*?<!-- /generated -->", "", read(page), flags=re.DOTALL
    )
    for named in set(re.findall(r"`([\w./]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))):
        path = named.removesuffix(".py").rstrip("/")
        known = any(f"/{module}".endswith(f"/{path}") for module in modules) or (ROOT / named).exists()
        assert known or named in names or {*named.split(".")} <= names, named


@every_page
def test_every_event_of_the_log_exists(page: Path) -> None:
    """The log lines that the documentation speaks of are lines that the broker writes."""
    kinds = {event.partition(".")[0] for event in events.catalogue()}
    named = re.findall(rf"`((?:{'|'.join(kinds)})\.[a-z_.]+)(?= |`)", read(page))
    files = {"broker.toml", "gateway.toml", "server.py", "client.py", "server.key_secret"}
    assert {*named} - events.catalogue().keys() - files == set()


# --- the configuration ---------------------------------------------------------------------------------


def configuration(text: str) -> Config:
    tables = tomli.loads(text)
    return load({"servers": {"any": {"command": "any"}}, **tables}, {"API_KEY": "secret"})


def test_the_config_of_the_repository_is_that_of_the_led_screen() -> None:
    """`make run` runs six servers at the endpoint that clients find by themselves."""
    loaded = configuration(read(ROOT / "broker.toml"))
    assert set(loaded.servers) == {
        "laundry-assistant",
        "advertisement-server",
        "time",
        "weather-server",
        "fukuoka-transit",
        "washing-machine",
    }
    assert loaded.broker.endpoint is None


@every_section
def test_the_config_of_the_repository_teaches_every_key(section: str) -> None:
    """broker.toml shows every key, with its real default where it has one, and a value that is taken."""
    text = re.sub(r"^#(\w+ = |\[keys\.)", r"\1", read(ROOT / "broker.toml"), flags=re.MULTILINE)
    configuration(text)
    tables = tomli.loads(text)
    time_server = tables["servers"]["time"]
    inner = {"doctor": time_server.pop("doctor"), "filters": time_server.pop("tools")}
    inner["keys"] = tables["keys"]["laptop"]
    shown = {**tables, **inner, "servers": time_server}[section]
    assert list(shown) == config.keys_of(section)
    for field in msgspec.structs.fields(config.SHAPES[section]):
        default = config.default_of(field)
        if (section, field.name) in NO_KEYS:
            continue
        if default not in (msgspec.NODEFAULT, None, (), {}):  # they have no default to show
            as_toml = list(default) if isinstance(default, tuple) else default
            assert shown[field.name] == as_toml, field.name


@every_page_with("toml")
def test_every_config_that_is_shown_is_taken(page: Path) -> None:
    """An example that the broker would refuse."""
    take = parse if page.name.startswith("gateway") else configuration
    for text in fences(page, "toml"):
        take(text)


@every_page_with("yaml")
def test_every_yaml_that_is_shown_parses(page: Path) -> None:
    """What it has to hold, the tests of its subject say; but for what people are told, both languages have
    the same."""
    texts = fences(page, "yaml")
    assert all(isinstance(yaml.safe_load(text), dict) for text in texts)
    english = fences(english_of(page) if page in CHINESE else page, "yaml")
    assert [_TOLD.sub("", text) for text in texts] == [_TOLD.sub("", text) for text in english]


_TOLD = re.compile(r"annotations: .*")


def test_the_variables_of_mirrors_reach_the_servers() -> None:
    """docs/troubleshooting.md: what a reader writes into the service's file is what servers inherit."""
    texts = "".join(fences(ROOT / "docs" / "troubleshooting.md", "text"))
    named = re.findall(r"^(\w+)=\S", texts, re.MULTILINE)
    assert len(named) > 5
    assert {*named} - {*INHERITED} == set()


# --- commands, with a broker that runs -------------------------------------------------------------------


def run(*command: str, cwd: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=PATIENCE_S)


class Place(NamedTuple):
    """A folder with a broker's config, and the endpoint that the broker listens at."""

    folder: Path
    endpoint: str

    def run(self, *command: str, language: str = "en") -> subprocess.CompletedProcess[str]:
        """Run a command there, as a client of that broker."""
        return run(*command, cwd=self.folder, environ=self.environ(language))

    def environ(self, language: str) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MCP_BROKER_")}
        ours = {"MCP_BROKER_ENDPOINT": self.endpoint, "MCP_BROKER_LANG": language, "COLUMNS": "100"}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
        return {**kept, **ours, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}


def adapted(text: str) -> str:
    """The config of the repository for the Python that runs the tests."""
    python = json.dumps(sys.executable)
    text = text.replace('".venv/bin/python"', python).replace('".venv/bin/mcp-server-time"', python)
    return text.replace('["--local-timezone"', '["-m", "mcp_server_time", "--local-timezone"')


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """A broker with the config of the repository, ready; it ends with status 0 at Ctrl-C."""
    with tempfile.TemporaryDirectory(prefix="d-") as name:
        place = Place(Path(name), f"ipc://{name}/b.sock")
        (place.folder / "broker.toml").write_text(adapted(read(ROOT / "broker.toml")), encoding="utf-8")
        (place.folder / "examples").symlink_to(ROOT / "examples")
        environ = place.environ("en")
        with (place.folder / "log").open("wb") as log:
            broker = subprocess.Popen([*BROKER, "serve"], cwd=name, env=environ, stdout=log, stderr=log)
        try:
            wait_until_ready(place)
            yield place
            broker.send_signal(signal.SIGINT)
            assert broker.wait(PATIENCE_S) == 0, read(place.folder / "log")
        finally:
            broker.kill()
            broker.wait()


def wait_until_ready(place: Place) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while place.run(*BROKER, "status", "--json").returncode != 0:
        assert time.monotonic() < give_up, read(place.folder / "log")
        time.sleep(0.1)


@every_page
def test_every_command_that_is_shown_is_run_or_has_a_reason(page: Path) -> None:
    """Every documented command is run by a test, or named with the reason why it cannot be."""
    walked = english_of(page).stem in REGISTRY["walked"]
    unknown = [shown.command for shown in commands(page) if not walked and not is_ours(shown.command)]
    lines = [f'{json.dumps(command, ensure_ascii=False)} = "…"' for command in {*unknown} - {*listed()}]
    head = f"{page.name} shows commands that nothing runs; list them in tests/project/commands.toml:"
    assert not lines, "\n".join([head, *lines])


def is_ours(command: str) -> bool:
    """Whether it is one of `mcp-broker`, which can be run here."""
    return command.split()[0] in ("mcp-broker", ".venv/bin/mcp-broker")


@every_page
def test_every_command_does_what_is_shown(page: Path, place: Place) -> None:
    """Each ends with status 0 and prints the words that are shown, but for figures, times and paths."""
    for shown in commands(page):
        if is_ours(shown.command) and shown.command not in listed():
            arguments = shlex.split(shown.command)[1:]
            done = place.run(*BROKER, *arguments, language=generate.language_of(page))
            assert done.returncode == 0, f"{shown.command}: {done.stderr}"
            assert not shown.output or words(shown.output) == words(done.stdout), shown.command


@every_page
def test_every_command_that_the_prose_names_parses(page: Path) -> None:
    """`mcp-broker status --watch` in a sentence: the command and its options exist."""
    for text in re.findall(r"`mcp-broker ([a-z][^`]*)`", prose(page)):
        name, *arguments = text.split()
        assert name in cli.commands, text
        known = {option for one in cli.commands[name].params for option in one.opts}
        assert {word.partition("=")[0] for word in arguments if word.startswith("-")} <= known, text


TARGETS = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.MULTILINE))
"""The targets of the Makefile"""


@every_page
def test_every_target_that_the_prose_names_exists(page: Path) -> None:
    """`make soak PARTS=kills` in a sentence or a table: the Makefile has the target."""
    assert set(re.findall(r"`make ([a-z][\w-]*)", prose(page))) <= TARGETS


@every_english_page_with_python
def test_every_python_example_runs(page: Path, place: Place) -> None:
    """Each is a whole program; where it says in a comment what it prints, it prints that, and what is plain
    text to print, too. (The Chinese pages have the same: see above.)
    """
    for text in fences(page, "python"):
        done = place.run(sys.executable, "-c", text)
        assert (done.returncode, done.stderr) == (0, "")
        said = re.findall(r"print\(.*\)  # (.*)", text) + re.findall(r'print\("([^"]*)"\)', text)
        assert [line for line in said if line not in done.stdout.splitlines()] == []


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("quick\n", "W1 was started: quick, 20 minutes, 200 yen."),
        ("\n", "W1 was started: standard, 35 minutes, 300 yen."),
        ("n\n", "W1 was not started: the person declined."),
        ("", "W1 was not started: the person closed the question without an answer."),
    ],
    ids=["answer", "default", "decline", "end of the input"],
)
def test_the_example_client_asks_the_person_at_the_terminal(place: Place, typed: str, said: str) -> None:
    """docs/questions.md: the question is shown with its choices, and the server does what the person says."""
    program = (sys.executable, "examples/led_screen/start_wash.py", "W1")
    done = subprocess.run(
        program,
        cwd=place.folder,
        env=place.environ("en"),
        input=typed,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "washing-machine asks: Which programme shall W1 run?" in done.stdout
    assert "Programme: quick | standard | heavy | delicate | bulky [standard]" in done.stdout
    assert done.stdout.endswith(f"{said}\n")


def test_the_readme_example_lists_and_calls(place: Place) -> None:
    """The first Python that a reader tries: the tools of `time`, and the time in Tokyo."""
    (text,) = fences(ROOT / "README.md", "python")
    printed = place.run(sys.executable, "-c", text).stdout
    assert printed.startswith("get_current_time\nconvert_time\n")
    assert '"timezone": "Asia/Tokyo"' in printed


def test_the_status_that_is_shown_has_the_keys_that_it_has(place: Place) -> None:
    """docs/protocol.md shows the result of `status`: programs are written by it."""
    (text,) = fences(ROOT / "docs" / "protocol.md", "json")
    shown, seen = json.loads(text), json.loads(place.run(*BROKER, "status", "--json").stdout)
    assert list(shown) == list(seen)
    assert list(shown["broker"]) == list(seen["broker"])
    for rows in ("servers", "clients"):
        assert list(shown[rows][0]) == list(seen[rows][0])


@pytest.mark.parametrize("command", listed())
def test_what_is_listed_is_shown(command: str) -> None:
    """A command that no page shows any more needs no line in tests/project/commands.toml."""
    assert command in [shown.command for page in PAGES for shown in commands(page)]


@pytest.mark.parametrize("command", RUN := {**REGISTRY["run_by"], **REGISTRY["walked"]})
def test_what_is_run_elsewhere_names_its_test(command: str) -> None:
    """The test that is said to run a command, or all commands of a page, is there."""
    path, _, name = RUN[command].partition("::")
    source = read(ROOT / path)
    assert re.search(rf"^(async )?def {name}\(" if name else "^(async )?def test_", source, re.MULTILINE)


@pytest.mark.parametrize("command", [one for one in REGISTRY["not_run"] if one.startswith("make ")])
def test_a_target_that_is_not_run_parses(command: str) -> None:
    """The targets of the Makefile that the pages name are there."""
    program, *targets = command.split()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = run(program, "-n", *targets, cwd=ROOT, environ=environ)
    assert done.returncode == 0, done.stderr
