"""`mcp-broker import`: the file that is written, what was there before, and the secrets in it."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest
import tomli
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from broker.command.importing.files import new_text
from tests.command.importing.asking import Run, Write, one, servers

SECRET = "sk-live-0123456789"

OLD = """\
# mine
[servers.time] # the clock
command = "/usr/bin/clock" # why
restart = "never"
env = { TZ = "UTC" }

[servers.time.doctor]
tool = "now"

# how much
[limits]
calls = 5

[servers.other]
command = "x"
# the end"""


def mode(path: Path | str = "broker.toml") -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_an_existing_file_is_never_lost(run: Run, write: Write, tmp_path: Path) -> None:
    """Without a word it is refused, with exit status 2, the file, and what can be done."""
    old = write("broker.toml", OLD)
    done = run(write("a.json", one()))
    assert done.exit_code == 2
    assert all(word in done.stderr for word in ("broker.toml", "--force", "--merge", "--output", "--dry-run"))
    assert old.read_text() == OLD
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "bin", "broker.toml"]


def test_what_is_to_be_imported_is_read_first(run: Run, write: Write, tmp_path: Path) -> None:
    """Who mistypes its name hears of that, and not of the file that would have been written."""
    write("broker.toml", OLD)
    for wrong, told in (
        (tmp_path / "nope.json", "nope.json cannot be read"),
        (write("a.json", "{"), "not JSON"),
    ):
        done = run(wrong)
        assert (done.exit_code, told in done.stderr, "--force" in done.stderr) == (2, True, False), (
            done.stderr
        )


def test_by_force_it_is_kept_beside(run: Run, write: Write, tmp_path: Path) -> None:
    """Each old one under a name of its own; the new one has its mode."""
    old = write("broker.toml", OLD)
    old.chmod(0o640)
    assert (
        f"{tmp_path}/broker.toml.bak: backup of the old file" in run(write("a.json", one()), "--force").stderr
    )
    first = old.read_text()
    assert f"{tmp_path}/broker.toml.bak2: backup of the old file" in run("a.json", "--force").stderr
    kept = [tmp_path / "broker.toml.bak", tmp_path / "broker.toml.bak2"]
    assert [path.read_text() for path in kept] == [OLD, first]
    assert [mode(path) for path in (old, *kept)] == [0o640] * 3
    assert list(servers()) == ["it"]


def test_a_link_stays_a_link(run: Run, write: Write, tmp_path: Path) -> None:
    """The file that it leads to is written."""
    there = write("etc/broker.toml", OLD)
    (tmp_path / "broker.toml").symlink_to(there)
    assert run(write("a.json", one()), "--force").exit_code == 0
    assert (tmp_path / "broker.toml").is_symlink()
    assert list(servers(there)) == ["it"]


def test_merging_keeps_all_that_is_there(run: Run, write: Write) -> None:
    """Every character of it; doing it again changes nothing."""
    old = write("broker.toml", OLD)
    path = write("a.json", {"mcpServers": {"it": {"command": "npx"}, "github.com": {"command": "uvx"}}})
    assert run(path, "--merge").exit_code == 0
    text = old.read_text()
    assert text.startswith(OLD)
    assert list(servers()) == ["time", "other", "it", "github.com"]
    done = run(path, "--merge")
    assert (done.exit_code, "nothing to write" in done.stderr, old.read_text()) == (0, True, text)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_merging_into_what_an_editor_of_windows_wrote(run: Run, write: Write, mark: str, end: str) -> None:
    """It is read as `serve` reads it; the ends of its lines stay."""
    old = OLD.replace("\n", end)
    path = write("broker.toml", "")
    path.write_bytes(f"{mark}{old}".encode())
    assert run(write("a.json", one()), "--merge").exit_code == 0
    assert path.read_bytes().decode().startswith(old)
    assert list(servers()) == ["time", "other", "it"]


def test_merging_into_what_is_no_config_is_refused(run: Run, write: Write) -> None:
    """With the words of `serve`."""
    Path("broker.toml").write_bytes(OLD.encode("utf-16"))
    done = run(write("a.json", one()), "--merge")
    assert (done.exit_code, "not UTF-8" in done.stderr, "save it as UTF-8" in done.stderr) == (2, True, True)


def test_merging_another_definition(run: Run, write: Write, bin_folder: Path) -> None:
    """Refused, or taken by `--prefer last`: then only what an import writes changes, and comments stay."""
    old = write("broker.toml", OLD)
    path = write("a.json", {"mcpServers": {"time": {"command": "uvx", "args": ["clock"]}}})
    done = run(path, "--merge")
    assert (done.exit_code, "differ in command, args, env" in done.stderr) == (2, True)
    assert (run(path, "--merge", "--prefer", "first").exit_code, old.read_text()) == (0, OLD)
    assert run(path, "--merge", "--prefer", "last").exit_code == 0
    assert servers()["time"] == {
        "command": f"{bin_folder}/uvx",
        "args": ["clock"],
        "restart": "never",
        "doctor": {"tool": "now"},
    }
    assert all(
        comment in old.read_text() for comment in ("# mine", "# the clock", "# why", "# how much\n[limits]")
    )


@pytest.mark.parametrize(
    ("old", "told"),
    [
        ("[servers", "is not a broker.toml"),
        ("servers = 1\n", "is not a broker.toml"),
        ("[servers]\na = 1\n", "is not a broker.toml"),
        ('servers = { a = { command = "x" } }\n', "cannot add to the file"),
        ('[servers.a]\ncomand = "x"\n', "servers.a.comand: there is no such key; did you mean command?"),
    ],
)
def test_what_cannot_be_merged_into_is_left_alone(run: Run, write: Write, old: str, told: str) -> None:
    """Exit status 2 with every mistake in it."""
    path = write("broker.toml", old)
    done = run(write("a.json", one()), "--merge")
    assert (done.exit_code, told in done.stderr, path.read_text()) == (2, True, old), done.stderr


def test_wrong_use_is_2(run: Run, write: Write, tmp_path: Path) -> None:
    """And nothing is written."""
    path = write("a.json", one())
    for args, told in (
        ((path, "--force", "--merge"), "give one of them"),
        ((path, "--output", tmp_path, "--force"), "not a regular file"),
        ((path, "--output", "/dev/null", "--force"), "not a regular file"),
        ((path, "--output", "none/broker.toml"), "cannot be written: No such file"),
        ((), "<stdin> is empty"),
        ((path, "--prefer", "both"), "Invalid value"),
    ):
        done = run(*args)
        assert (done.exit_code, told in done.stderr) == (2, True), done.stderr
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.json", "bin"]


def test_a_full_disk_costs_nothing(run: Run, write: Write, tmp_path: Path) -> None:
    """The old file stays as it is, and no half of a new one is left behind."""
    old = write("broker.toml", OLD)
    path = write("a.json", one())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(OLD), limits[1]))
    try:
        done = run(path, "--merge")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (done.exit_code, "cannot be written: File too large" in done.stderr) == (2, True)
    assert old.read_text() == OLD
    assert not list(tmp_path.glob(".broker*"))


def test_a_dry_run_prints_what_it_would_write(run: Run, write: Write, tmp_path: Path) -> None:
    """On stdout alone, also where there is a file; with `--merge` the whole of it."""
    write("broker.toml", OLD)
    path = write("a.json", one())
    alone, merged = run(path, "--dry-run"), run(path, "--dry-run", "--merge")
    assert (alone.exit_code, merged.exit_code) == (0, 0)
    assert list(tomli.loads(alone.stdout)["servers"]) == ["it"]
    assert merged.stdout.startswith(OLD)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.json", "bin", "broker.toml"]


# --- secrets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "secret"),
    [
        ("OPENAI_API_KEY", "abcdef", True),
        ("GITHUB_PERSONAL_ACCESS_TOKEN", "abcdef", True),
        ("clientSecret", "abcdef", True),
        ("DB_PASSWORD", "1234567", True),
        ("SMTP_PASS", "abcdef", True),
        ("DATABASE_URL", "postgres://me:pw@host/db", True),
        ("ANYTHING", SECRET, True),
        ("OPENAI_API_KEY", "${OPENAI_API_KEY}", False),
        ("OPENAI_API_KEY", "", False),
        ("MAX_TOKENS", "4096", False),
        ("USE_AUTH", "true", False),
        ("KEY_FILE", "/etc/key.pem", False),
        ("KEYBOARD", "us", False),
        ("PWD", "/srv", False),
        ("HOME_PAGE", "https://example.com/a", False),
    ],
)
def test_what_is_a_secret(run: Run, write: Write, key: str, value: str, secret: bool) -> None:
    """By its name or its look. With one in it the file is its owner's alone, and that is told."""
    umask = os.umask(0o022)
    try:
        done = run(write("a.json", one(env={key: value})))
    finally:
        os.umask(umask)
    assert mode() == (0o600 if secret else 0o644)
    assert ("mode 0600" in done.stderr, f"secrets in plain text: it {key}" in done.stderr) == (secret, secret)
    assert servers()["it"]["env"] == {key: value}
    run("a.json", "--force", "--secrets-as-variables")
    assert (servers()["it"]["env"] == {key: value}) is not secret


def test_a_file_that_is_written_over_gets_no_wider(run: Run, write: Write) -> None:
    """It has the mode of the old one, but where there is a secret in it nobody else reads it."""
    write("broker.toml", OLD).chmod(0o644)
    run(write("a.json", one(env={"API_KEY": SECRET})), "--merge")
    assert (mode(), mode("broker.toml.bak")) == (0o600, 0o644)
    run("a.json", "--force", "--secrets-as-variables")
    assert (mode(), mode("broker.toml.bak2")) == (0o600, 0o600)  # in the backup the secret is still there


def test_a_secret_never_reaches_the_terminal_nor_a_file(run: Run, write: Write) -> None:
    """With `--secrets-as-variables` the names are printed, with whose they are."""
    env = {"API_KEY": SECRET, "LEVEL": "info"}
    done = run(write("a.json", one(env=env)), "--secrets-as-variables")
    assert servers()["it"]["env"] == {"API_KEY": "${API_KEY}", "LEVEL": "info"}
    assert "set these variables where the broker is started: API_KEY (it)" in done.stderr
    assert SECRET not in done.output + Path("broker.toml").read_text()


def test_a_variable_never_stands_for_two_secrets(run: Run, write: Write) -> None:
    """Servers that share a secret share the variable; another secret, and what is set already, do not."""
    env = {"same": {"TOKEN": SECRET}, "again": {"TOKEN": SECRET}, "b-2": {"TOKEN": "other", "KEY": "k" * 9}}
    entries = {name: {"command": "npx", "env": env[name]} for name in env}
    entries["asks"] = {"command": "npx", "env": {"X": "${env:KEY}"}}
    run(write("a.json", {"mcpServers": entries}), "--secrets-as-variables")
    written = {name: table["env"] for name, table in servers().items()}
    assert written == {
        "same": {"TOKEN": "${TOKEN}"},
        "again": {"TOKEN": "${TOKEN}"},
        "b-2": {"TOKEN": "${B_2_TOKEN}", "KEY": "${B_2_KEY}"},
        "asks": {"X": "${KEY}"},
    }


def test_merging_again_keeps_the_variables(run: Run, write: Write) -> None:
    """A secret that the file has as a variable is not a new definition, and another server gets another."""
    path = write("a.json", one(env={"API_KEY": SECRET}))
    run(path, "--secrets-as-variables")
    done = run(path, "--secrets-as-variables", "--merge")
    assert (done.exit_code, "it: the same in" in done.stderr) == (0, True), done.stderr
    other = write("b.json", {"mcpServers": {"b": {"command": "npx", "env": {"API_KEY": "another"}}}})
    run(other, "--secrets-as-variables", "--merge")
    assert servers()["b"]["env"] == {"API_KEY": "${B_API_KEY}"}


@pytest.mark.parametrize(
    ("args", "secret"),
    [
        (["--api-key", "abcdef"], True),
        (["--token=abcdef"], True),
        (["run", "-e", "API_KEY=abcdef"], True),
        (["postgresql://me:pw@host/db"], True),
        (["--token"], False),
        (["--token", "--verbose"], False),
        (["-e", "API_KEY"], False),
        (["-y", "@acme/token-server", "https://example.com"], False),
    ],
    ids=str,
)
def test_a_secret_in_an_argument_is_told(run: Run, write: Write, args: list[str], secret: bool) -> None:
    """The broker fills nothing there, and `ps` shows it to everybody."""
    done = run(write("a.json", one(args=args)), "--secrets-as-variables")
    assert ("an argument looks like a secret" in done.stderr, mode() == 0o600) == (secret, secret)
    assert "abcdef" not in done.stderr


# --- any text ------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
tables = st.fixed_dictionaries(
    {"command": texts.filter(bool)},
    optional={
        "args": st.lists(texts),
        "env": st.dictionaries(texts.filter(lambda key: key and "=" not in key), texts),
        "cwd": texts,
        "timeout": st.floats(0, 31_536_000, exclude_min=True),
        "enabled": st.booleans(),
    },
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example({"a": {"command": "x", "env": {"A": "${\\1}"}}}, "", OLD)
@given(st.dictionaries(names, tables, min_size=1), texts, st.sampled_from(["", OLD]))
def test_whatever_it_is_the_file_says_it(
    servers: dict[str, dict[str, object]], header: str, old: str
) -> None:
    """No quote, control character or script of a definition gets lost on the way into TOML."""
    written = tomli.loads(new_text(old, servers, header))["servers"]
    assert {name: written[name] | table for name, table in servers.items()} == {
        n: written[n] for n in servers
    }
    assert written.keys() - servers.keys() <= {"time", "other"}
