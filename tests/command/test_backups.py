"""The backups of a file that a command replaces: their names, and their number."""

from __future__ import annotations

import os
from pathlib import Path

from broker.command.backups import KEPT, backup_name


def test_their_number_is_bounded_and_the_first_one_stays(tmp_path: Path) -> None:
    """The first is the file as it was before any command changed it; of the others the newest stay."""
    folder = os.open(tmp_path, os.O_PATH)
    try:
        for number in range(3 * KEPT):
            (tmp_path / backup_name("a.toml", folder)).write_text(str(number))
    finally:
        os.close(folder)
    names = ["a.toml.bak", *(f"a.toml.bak{number}" for number in range(2, KEPT + 1))]
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    newest = [str(number) for number in range(3 * KEPT)][1 - KEPT :]
    assert [(tmp_path / name).read_text() for name in names] == ["0", *newest]


def test_a_link_takes_a_name(tmp_path: Path) -> None:
    """A backup is never written through a link, also if that leads nowhere."""
    (tmp_path / "a.bak").symlink_to("nowhere")
    folder = os.open(tmp_path, os.O_PATH)
    try:
        assert backup_name("a", folder) == "a.bak2"
    finally:
        os.close(folder)
