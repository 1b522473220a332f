"""Names the backups of a file that a command replaces, and bounds their number."""

from __future__ import annotations

import os
from itertools import pairwise

KEPT = 10
"""The number of backups of one file."""


def backup_name(name: str, folder_fd: int) -> str:
    """Return the name of the next backup of a file: `NAME.bak`, `NAME.bak2`, and so on up to `KEPT`.

    If all of them exist, the second is removed and the later ones take each the place before it. The first
    one stays: it is the file as it was before any command changed it.

    Raises:
        OSError: they cannot be renamed.
    """
    first, *later = [f"{name}.bak", *(f"{name}.bak{number}" for number in range(2, KEPT + 1))]
    free = next((one for one in (first, *later) if not _exists(one, folder_fd)), None)
    if free is not None:
        return free
    for older, newer in pairwise(later):
        os.rename(newer, older, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
    return later[-1]


def _exists(name: str, folder_fd: int) -> bool:
    try:
        os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
