"""`mcp-broker add` and `remove`: one server into or out of `broker.toml`, and nothing else."""

from __future__ import annotations

import pytest

from tests.command.attach.home import Home

CONFIG = """\
# mine
[servers.time] # the clock
command = "clock" # why

[servers.time.doctor]
tool = "now"

# the other
[servers.other]
command = "x"

[limits]
calls = 5 # few
"""


def test_a_server_is_added_and_the_rest_stays(home: Home) -> None:
    """Whatever follows -- is the server's, options as well."""
    path = home.write("broker.toml", CONFIG)
    done = home.run(
        "add", "new", "-e", "API_KEY=sk-live-0123456789", "--", "uvx", "mcp-server-x", "-e", "--cwd"
    )
    assert done.exit_code == 0, done.output
    assert path.read_text().startswith(CONFIG)
    expected = {
        "command": "uvx",
        "args": ["mcp-server-x", "-e", "--cwd"],
        "env": {"API_KEY": "sk-live-0123456789"},
    }
    assert home.servers()["new"] == expected
    assert "sk-live" not in done.output


def test_the_first_server_makes_the_file(home: Home) -> None:
    """Without a broker and without a file: ./broker.toml, and how to start a broker on it."""
    done = home.run("add", "时间", "--", "uvx", "mcp-server-time")
    assert (done.exit_code, list(home.servers())) == (0, ["时间"])
    assert "mcp-broker serve --config broker.toml" in done.stderr


def test_a_command_that_is_not_found_here_is_said(home: Home) -> None:
    """It is added nevertheless: the broker's own PATH may be another."""
    said = "there is no command no-such-command in your PATH"
    done = home.run("add", "new", "--", "no-such-command")
    assert (done.exit_code, said in done.stderr, "new" in home.servers()) == (0, True, True), done.output
    assert "in your PATH" not in home.run("add", "other", "--", "sh").stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("time", "--", "x"), "has a server time already"),
        (("a/b", "--", "x"), "cannot be a server's name"),
        (("a", "-e", "=x", "--", "x"), "write NAME=VALUE"),
        (("a",), "COMMAND"),
    ],
)
def test_what_cannot_be_added(args: tuple[str, ...], words: str, home: Home) -> None:
    """Exit status 2 with what to do; the file stays."""
    path = home.write("broker.toml", CONFIG)
    done = home.run("add", *args)
    assert (done.exit_code, words in done.stderr, path.read_text()) == (2, True, CONFIG), done.output


def test_a_server_is_removed_and_the_rest_stays(home: Home) -> None:
    """All of its tables; comments of others, and the lines between them."""
    path = home.write("broker.toml", CONFIG)
    assert home.run("remove", "time", "--dry-run").exit_code == 0
    assert path.read_text() == CONFIG
    done = home.run("remove", "time")
    assert done.exit_code == 0, done.output
    assert (
        path.read_text()
        == '# mine\n\n# the other\n[servers.other]\ncommand = "x"\n\n[limits]\ncalls = 5 # few\n'
    )
    assert home.run("remove", "other").exit_code == 0
    assert path.read_text() == "# mine\n\n# the other\n\n[limits]\ncalls = 5 # few\n"


def test_added_and_removed_is_as_before(home: Home) -> None:
    """Apart from the comment that says where it came from."""
    path = home.write("broker.toml", CONFIG)
    home.run("add", "new", "--", "uvx")
    assert home.run("remove", "new").exit_code == 0
    assert path.read_text().replace("# Added by `mcp-broker add`", "").rstrip() + "\n" == CONFIG


@pytest.mark.parametrize("text", ['servers = { a = { command = "x" } }\n', '[servers]\na.command = "x"\n'])
def test_a_server_that_is_not_a_table_is_left_to_its_author(text: str, home: Home) -> None:
    """It cannot be cut without changing more."""
    path = home.write("broker.toml", text)
    done = home.run("remove", "a")
    assert (done.exit_code, "remove it by hand" in done.stderr, path.read_text()) == (2, True, text), (
        done.output
    )


def test_an_unknown_server(home: Home) -> None:
    """Exit status 2, with the file in which it was looked for."""
    home.write("broker.toml", CONFIG)
    done = home.run("remove", "tiem")
    assert (done.exit_code, "broker.toml has no server tiem" in done.stderr) == (2, True)
