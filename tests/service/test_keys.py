"""The clients that may connect: what the files of their keys and their tables say together."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.config.loading import MAX_PROBLEMS, ConfigError
from broker.service.config_file import read
from tests.e2e.harness import Table, toml
from tests.network.place import Keys


def faults(folder: Path, broker: Table, keys: dict[str, Table] | None = None) -> list[str]:
    """What is wrong with the keys of a config with these tables `[keys.NAME]`."""
    config = folder / "broker.toml"
    tables = {f'keys."{name}"': table for name, table in (keys or {}).items()}
    config.write_text(toml({"broker": broker, "servers.a": {"command": "x"}, **tables}), encoding="utf-8")
    return list(read(config, {}).authorized.faults)


def test_a_table_that_limits_nobody_is_a_fault(tmp_path: Path) -> None:
    """Law 9: where its name is mistyped, the client that it is for may use every server."""
    keys = Keys(tmp_path)
    keys.new("laptop")
    assert not faults(tmp_path, keys.table(), {"laptop": {"servers": ["a"]}})
    (fault,) = faults(tmp_path, keys.table(), {"laptop": {}, "lap top": {"servers": ["a"]}})
    assert fault.startswith('keys."lap top": no client has a key of this name')
    assert "`mcp-broker keys list`" in fault
    keys.revoke("laptop")
    assert len(faults(tmp_path, keys.table(), {"laptop": {}})) == 1


@pytest.mark.parametrize("missing", ["server_key", "authorized_keys"])
def test_a_table_without_any_keys_is_a_fault(tmp_path: Path, missing: str) -> None:
    """Everybody who reaches the socket or the loopback port may do everything, whatever the table says."""
    keys = Keys(tmp_path)
    keys.new("laptop")
    broker = {key: value for key, value in keys.table().items() if key != missing}
    assert not faults(tmp_path, broker)
    (fault,) = faults(tmp_path, broker, {"laptop": {"servers": ["a"]}})
    assert fault.startswith("keys.laptop: [broker] lacks server_key or authorized_keys")
    assert "`mcp-broker keys new NAME`" in fault


def test_not_more_faults_are_kept_than_an_operator_reads(tmp_path: Path) -> None:
    """Law 6: each is a line of the log and a part of the answer to a reload."""
    tables: dict[str, Table] = {f"c{number}": {} for number in range(MAX_PROBLEMS + 50)}
    assert len(faults(tmp_path, {}, tables)) == MAX_PROBLEMS


def test_two_tables_of_one_client_are_refused(tmp_path: Path) -> None:
    """é is one character or two; the grant of one table would hold, and nobody would know of which."""
    with pytest.raises(ConfigError, match="two tables have this name"):
        faults(tmp_path, {}, {"caf\u00e9": {"servers": ["a"]}, "cafe\u0301": {}})
