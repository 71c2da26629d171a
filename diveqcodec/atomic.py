"""A file is the old one or the new one, whenever a machine goes down. Knows no contents."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(target: Path, temporary: Path | None = None) -> Iterator[Path]:
    """A path to write to: what is there takes the place of `target` if the block ends well.

    Otherwise what was written is removed, and the old file stays.

    Args:
        target: the file.
        temporary: the path, in the same folder. By default its name is the target's and `.tmp`, so
            that of a process that is killed again and again one file is left, not many.

    Raises:
        OSError: it cannot be written.
    """
    temporary = temporary or target.with_name(target.name + ".tmp")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have a file on the disk: else a system may put its new name there before its bytes."""
    with (
        contextlib.suppress(PermissionError),  # one that may not be opened again
        path.open("rb+" if os.name == "nt" else "rb") as file,
    ):
        os.fsync(file.fileno())
