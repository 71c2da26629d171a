"""A file is the old one or the new one, whenever a machine goes down. Knows no contents."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def followed(path: Path) -> Path:
    """The file that a path means: links are followed, also to a file that is not there yet.

    Raises:
        OSError: they lead in a circle.
    """
    if not path.is_symlink():
        return path
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return real


@contextlib.contextmanager
def replacing(target: Path, permissions: int = 0o666) -> Iterator[Path]:
    """An empty file to write to: what is there takes the place of `target` if the block ends well.

    Otherwise what was written is removed, and the old file stays. Of a link, the file that it
    leads to is replaced. Only a process that is killed leaves what it wrote; see `leftovers`.

    It is hidden, so that a folder's other files are never taken for it, and its name is short,
    because the target's may be as long as the system of files allows. A number that comes again,
    such as a process's in a container, would meet what a crash has left.

    Args:
        target: the file.
        permissions: Which nobody who lacks them is to have meanwhile either; less what a process
            gives no file. It may be written here whatever they are.

    Raises:
        OSError: it cannot be written.
    """
    target = followed(target)
    temporary = target.with_name(f".diveq-{secrets.token_hex(8)}.tmp")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, permissions | 0o200))
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def leftovers(folder: Path) -> Iterator[Path]:
    """Files in a folder that `replacing` has begun and not ended: by now, or ever."""
    return folder.glob(f".diveq-{'[0-9a-f]' * 16}.tmp")


def _sync(path: Path) -> None:
    """Have a file on the disk: else a system may put its new name there before its bytes."""
    with (
        contextlib.suppress(PermissionError),  # one that may not be opened again
        path.open("rb+" if os.name == "nt" else "rb") as file,
    ):
        os.fsync(file.fileno())
