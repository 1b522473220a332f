"""The config file, as a file: whatever stands at its path, it is read at once, or refused with the mend."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.config.loading import ConfigError
from broker.service.config_file import MAX_BYTES, read

GOOD = b'[servers.a]\ncommand = "x"\n'


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf" + GOOD, GOOD.replace(b"\n", b"\r\n"), GOOD + b"#".ljust(MAX_BYTES - len(GOOD))],
    ids=["byte-order mark", "CRLF", "as large as it may be"],
)
def test_what_an_editor_makes_of_it_is_read(tmp_path: Path, content: bytes) -> None:
    """Editors of Windows begin a file with a mark, which TOML has no place for, and end lines their way."""
    path = tmp_path / "broker.toml"
    path.write_bytes(content)
    assert list(read(path, {}).servers) == ["a"]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (os.mkfifo, "this is a pipe or a device, not a file; name the file itself"),
        (lambda path: path.symlink_to("/dev/zero"), "this is a pipe or a device, not a file"),
        (os.mkdir, "Is a directory"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.write_bytes(b"#" * (MAX_BYTES + 1)), f"this has more than {MAX_BYTES} bytes"),
        (lambda path: path.write_bytes(GOOD.decode().encode("utf-16")), "save it as UTF-8"),
    ],
    ids=["FIFO", "without an end", "folder", "loop", "too large", "UTF-16"],
)
def test_what_is_no_config_file_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], object], problem: str
) -> None:
    """Laws 6 and 10: a FIFO would hold a reload, and all after it, until somebody writes."""
    path = tmp_path / "broker.toml"
    make(path)
    with pytest.raises(ConfigError) as caught:
        read(path, {})
    (only,) = caught.value.problems
    assert str(only).startswith(f"{path}: ")
    assert problem in str(only)
