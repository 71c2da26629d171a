"""Folders as every command sees them: files below one, and the user's own. Knows no contents."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def home() -> Path | None:
    """The user's own folder; None for a user whom the system does not know, as in a container."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def files_below(
    folder: Path,
    refused: Callable[[OSError], None],
    linked: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Files below `folder`, recursively, in the order of their paths.

    Hidden files and folders are left out, and so are devices and pipes; a link that leads nowhere
    is kept, for whoever opens it will say so. Links to folders are not followed.

    Args:
        folder: where to look.
        refused: called with the error of every folder that cannot be read.
        linked: called with every link to a folder.
    """
    found = []
    for root, folders, names in os.walk(folder, onerror=refused):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if linked is not None and (path := Path(root, name)).is_symlink():
                linked(path)
        paths = [Path(root, name) for name in names if not name.startswith(".")]
        found += [path for path in paths if path.is_file() or not path.exists()]
    return sorted(found)
