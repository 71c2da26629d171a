"""Reading inputs and writing outputs whole: files atomically, `-` for the standard streams.

Knows nothing of what is in the bytes, but for the head of a `.dvq` file.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from diveqcodec.cli.console import Misuse, reason
from diveqcodec.errors import DiveqError

STREAM = "-"


class OutputError(DiveqError):
    """An output cannot be written; the message names the output."""


def read_stdin() -> bytes:
    """All of standard input.

    Raises:
        Misuse: it is a terminal.
    """
    if sys.stdin.isatty():
        raise Misuse("standard input is a terminal; pipe a file into it")
    return sys.stdin.buffer.read()


def check_stdout() -> None:
    """Refuse to write binary data where a person would see it.

    Raises:
        Misuse: standard output is a terminal.
    """
    if sys.stdout.isatty():
        raise Misuse("will not write binary data to a terminal; redirect it, or use -o FILE")


def write_stdout(data: bytes) -> None:
    """Write to standard output; a closed pipe is BrokenPipeError, which click turns into exit 1."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def check_target(target: Path, source: Path | None, is_forced: bool) -> None:
    """Refuse an output that would destroy something, before any work is done.

    Raises:
        OutputError: it exists and `is_forced` is False, or it is the input itself.
    """
    if not _is_or_will_be_file(target):
        if target.is_dir():
            raise OutputError(f"{target}: is a folder")
        return
    if not target.exists():
        return
    if source is not None and source.exists() and target.samefile(source):
        raise OutputError(f"{target}: is the input itself; name another output with -o")
    if not is_forced:
        raise OutputError(f"{target}: already exists; use -f to overwrite")


def write_atomic(target: Path, data: bytes) -> None:
    """Write a file, making its folders: after a crash there is the old file or the new one.

    A device or a pipe (`/dev/null`) is written to, never replaced.

    Raises:
        OutputError: it cannot be written; an old file is as it was.
    """
    if not _is_or_will_be_file(target):
        try:
            target.write_bytes(data)
        except OSError as error:
            raise OutputError(f"{target}: cannot be written: {reason(error)}") from error
        return
    # Hidden, so that a folder's other files are never taken for it should it be left by a crash.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        _remove(temporary)
        raise OutputError(f"{target}: cannot be written: {reason(error)}") from error
    except BaseException:
        _remove(temporary)
        raise


def _is_or_will_be_file(target: Path) -> bool:
    return target.is_file() or not target.exists()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
