"""Checks of `systemctl reload`: what changed, what is refused, and what is said about it, and where."""

from __future__ import annotations

from tests.e2e.harness import is_alive
from tests.systemd.host import (
    CONFIG,
    ROGUE,
    configure,
    journal,
    last_words,
    main_pid,
    server_pids,
    sh,
    show,
    status,
    until,
    until_ready,
)


def a_reload_changes_what_changed_and_nothing_else() -> None:
    """`systemctl reload`: when it comes back it is done; who did not change has the same process."""
    configure({"fine": ROGUE, "other": ROGUE, "gone": ROGUE})
    sh("systemctl restart mcp-broker")
    until_ready()
    broker, before = main_pid(), server_pids()
    configure({"fine": ROGUE, "other": {**ROGUE, "env": {"ROUND": "2"}}, "new": ROGUE})
    sh("systemctl reload mcp-broker")
    done = status()["broker"]["reload"]
    assert done["servers"] == {"gone": "removed", "new": "added", "other": "restarted"}, done
    until_ready()
    after = server_pids()
    assert (main_pid(), after["fine"]) == (broker, before["fine"])
    assert after["other"] != before["other"]
    assert not [name for name in ("other", "gone") if is_alive(before[name])]
    assert show("ActiveState") == "active"


def a_mistake_changes_nothing_and_is_said_everywhere() -> None:
    """A bad config: `systemctl reload` fails, and STATUS=, the journal, `status` and `reload` say why."""
    broker, before, whole = main_pid(), server_pids(), CONFIG.read_text(encoding="utf-8")
    mistake = "servers.fine.comand: there is no such key; did you mean command?"
    CONFIG.write_text('[servers.fine]\ncomand = "typo"\n', encoding="utf-8")
    said = sh("systemctl reload mcp-broker", status=1)
    assert "Job for mcp-broker.service failed" in said, said
    assert show("ActiveState") == "active"
    told = "3 of 3 servers ready; config not reloaded: servers.fine.comand"
    assert show("StatusText").startswith(told), last_words()
    assert mistake in journal()
    errors = sh("journalctl --quiet --output cat --unit mcp-broker --priority err")
    assert "config.refused" in errors, errors
    assert mistake in " ".join(sh("COLUMNS=200 mcp-broker status").split())
    said = sh("mcp-broker reload", status=1)
    assert mistake in said, said
    assert "nothing changed" in said, said
    assert (main_pid(), server_pids()) == (broker, before)
    CONFIG.write_text(whole, encoding="utf-8")
    sh("systemctl reload mcp-broker")
    assert show("StatusText") == "3 of 3 servers ready"
    assert (main_pid(), server_pids()) == (broker, before)


def what_waits_for_a_restart_is_said() -> None:
    """What can only change with a restart: `systemctl reload` succeeds, and STATUS= names the key."""
    whole = CONFIG.read_text(encoding="utf-8")
    CONFIG.write_text(f"{whole}[limits]\nconnections = 100\n", encoding="utf-8")
    sh("systemctl reload mcp-broker")
    assert show("StatusText") == "3 of 3 servers ready; without effect until a restart: limits.connections"
    CONFIG.write_text(whole, encoding="utf-8")
    sh("systemctl reload mcp-broker")
    assert show("StatusText") == "3 of 3 servers ready"


def a_sighup_reloads_too() -> None:
    """`systemctl kill -s HUP` does the same, without waiting for what comes of it."""
    broker, before = main_pid(), server_pids()
    configure({"fine": ROGUE, "other": ROGUE})
    sh("systemctl kill --kill-whom=main --signal=HUP mcp-broker")
    until(lambda: show("StatusText") == "2 of 2 servers ready", last_words)
    assert (main_pid(), server_pids()["fine"]) == (broker, before["fine"])


CHECKS = (
    a_reload_changes_what_changed_and_nothing_else,
    a_mistake_changes_nothing_and_is_said_everywhere,
    what_waits_for_a_restart_is_said,
    a_sighup_reloads_too,
)
