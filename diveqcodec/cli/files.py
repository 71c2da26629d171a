"""Reading inputs and writing outputs whole: files atomically, `-` for the standard streams.

Knows nothing of what is in the bytes.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from diveqcodec.atomic import followed, replacing
from diveqcodec.cli.console import Misuse, OutputError, reason, stdout_error
from diveqcodec.errors import DiveqError
from diveqcodec.store import Place, Remote, place

__all__ = [
    "STREAM",
    "OutputError",
    "check_folder",
    "check_stdout",
    "check_target",
    "identity",
    "is_folder",
    "is_pipe",
    "read_remote",
    "read_stdin",
    "write_atomic",
    "write_new",
    "write_stdout",
]

STREAM = "-"


def is_folder(name: str) -> bool:
    """Whether this is a folder; a name that no file can have is none."""
    try:
        return place(name).is_dir()
    except OSError:
        return False


def read_stdin() -> bytes:
    """All of standard input.

    Raises:
        Misuse: it is a terminal, or closed.
    """
    if sys.stdin is None:
        raise Misuse("standard input is closed; pipe a file into it")
    if sys.stdin.isatty():
        raise Misuse("standard input is a terminal; pipe a file into it")
    return sys.stdin.buffer.read()


def is_pipe(path: Path) -> bool:
    """Whether a path is a pipe, as `<(command)` of a shell: it has no size, and is read once."""
    try:
        return path.is_fifo()
    except OSError:  # a name that is too long
        return False


def read_remote(source: Remote) -> bytes:
    """All of a file of a store.

    Raises:
        DiveqError: it cannot be read.
    """
    try:
        return source.read_bytes()
    except OSError as error:
        said = reason(error)
        text = said if isinstance(error, FileNotFoundError) else f"cannot be read: {said}"
        raise DiveqError(f"{source}: {text}") from error


def check_stdout() -> None:
    """Refuse to write binary data where a person would see it.

    Raises:
        Misuse: standard output is a terminal, or closed.
    """
    if sys.stdout is None:
        raise Misuse("standard output is closed; use -o FILE")
    if sys.stdout.isatty():
        raise Misuse("will not write binary data to a terminal; redirect it, or use -o FILE")


def write_stdout(data: bytes) -> None:
    """Write to standard output; a closed pipe is BrokenPipeError, which click turns into exit 1.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise stdout_error(error) from error


def check_target(
    target: Place, source: Place | None, is_forced: bool, *, in_place: bool = False
) -> None:
    """Refuse an output that would destroy something, before any work is done.

    Args:
        target: The output.
        source: What it is made of, if that is a file.
        is_forced: It may be overwritten.
        in_place: A file that is there may be written where it lies, if its folder is closed.

    Raises:
        OutputError: it exists, if only as a link to what does not, and `is_forced` is False; or it
            is the input itself; or no file can be written there.
    """
    try:
        if not _is_or_will_be_file(target):
            if target.is_dir():
                raise OutputError(f"{target}: is a folder")
            return
        if not _is_there(target):
            if isinstance(target, Path):
                check_folder(target.parent, target)
            return
        is_input = source is not None and _are_same(target, source)
        is_open = isinstance(target, Path) and not _linked(target).exists()
    except OSError as error:  # a name that is too long
        raise OutputError(f"{target}: cannot be written: {reason(error)}") from error
    if is_input:
        raise OutputError(f"{target}: is the input itself; name another output with -o")
    if not is_forced and is_open:
        raise OutputError(f"{target}: is a link to a file that is not there; use -f to write it")
    if not is_forced:
        raise OutputError(f"{target}: already exists; use -f to overwrite")
    if isinstance(target, Path) and not in_place:
        check_folder(_linked(target).parent, target)  # a new file takes the place of the old one


def check_folder(folder: Path, output: Path | None = None) -> None:
    """Refuse a folder that is none, or cannot be made or written to, before any work is done.

    Args:
        folder: The folder, which may not exist yet.
        output: What is to be written there, for the message; by default the folder itself.

    Raises:
        OutputError: as said.
    """
    output = output or folder
    try:
        nearest = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
        if not nearest.is_dir():
            raise OutputError(f"{output}: cannot be written: {nearest.name} is no folder")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise OutputError(f"{output}: cannot be written: permission denied")
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {reason(error)}") from error


def identity(path: Path) -> object:
    """What all names of one file share, whether it exists or not.

    None for what many may write to, such as a device or a pipe.
    """
    try:
        found = path.stat()
    except OSError:  # it is not there
        return os.path.normcase(os.path.realpath(path))
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _are_same(target: Place, source: Place) -> bool:
    if isinstance(target, Path) and isinstance(source, Path):
        return identity(target) == identity(source) is not None
    return str(target) == str(source)


def _is_there(target: Place) -> bool:
    """As `--skip-existing` has it: a link is, wherever it leads."""
    return os.path.lexists(target) if isinstance(target, Path) else target.exists()


def write_atomic(
    target: Place,
    data: bytes,
    source: Place | None = None,
    *,
    keeps_times: bool = False,
    check: Callable[[bytes], None] | None = None,
) -> None:
    """Write a file, making its folders: after a crash there is the old file or the new one.

    It gets the permissions of the file it replaces, else those of `source`, else those of any new
    file. A device or a pipe (`/dev/null`) is written to, never replaced; a link stays, and the file
    that it leads to is written.

    Args:
        target: The file.
        data: All of it.
        source: What it was made from.
        keeps_times: Give it the times of `source`.
        check: Called with what was read back, before the file takes its place: raises if it is bad.

    Raises:
        OutputError: it cannot be written; an old file is as it was.
    """
    if isinstance(target, Remote) or not _is_or_will_be_file(target):
        try:
            if isinstance(target, Remote):
                target.write_whole(data, check)
            else:
                target.write_bytes(data)
        except OSError as error:
            raise OutputError(f"{target}: cannot be written: {reason(error)}") from error
        return
    source = source if isinstance(source, Path) else None  # of stores there are no permissions
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        permissions = _permissions(target, source)
        with replacing(_linked(target), permissions or 0o666) as temporary:
            temporary.write_bytes(data)
            if check is not None:
                check(temporary.read_bytes())
            if keeps_times and source is not None:
                times = source.stat()
                os.utime(temporary, ns=(times.st_atime_ns, times.st_mtime_ns))
            if permissions is not None:
                with contextlib.suppress(PermissionError):  # some systems of files have none
                    temporary.chmod(permissions)
    except FileExistsError as error:  # of the folder to be made
        where = Path(error.filename or target.parent).name  # a worker's path would be another
        raise OutputError(f"{target}: cannot be written: {where} is no folder") from error
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {reason(error)}") from error


def write_new(target: Path, data: bytes, is_forced: bool) -> Path:
    """As `write_atomic`, but never over a file that came to be there since `check_target`.

    Then a file beside it is written, for what took hours to find shall not be lost either.

    Returns:
        The file that was written: r.json, or the first free one of r-2.json, r-3.json, ...

    Raises:
        OutputError: it cannot be written.
    """
    is_device = target.exists() and not (target.is_file() or target.is_dir())
    if is_forced or is_device:
        write_atomic(target, data)
        return target
    check_folder(target.parent, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        path = _taken(target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {reason(error)}") from error
    try:
        write_atomic(path, data)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()  # it is empty
        raise
    return path


def _taken(target: Path) -> Path:
    """A name that nobody has but an empty file, now made: the target's or one made from it."""
    path, number = target, 1
    while True:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            number += 1
            path = target.with_stem(f"{target.stem}-{number}")
        else:
            return path


def _linked(target: Path) -> Path:
    """The file that an output means, through links; of these no folders are made.

    Raises:
        OutputError: links lead into a folder that is not there.
        OSError: they lead in a circle.
    """
    file = followed(target)
    if file is not target and not file.parent.is_dir():
        problem = f"links to {file}, whose folder is not there"
        raise OutputError(f"{target}: cannot be written: {problem}")
    return file


def _permissions(target: Path, source: Path | None) -> int | None:
    """The permissions that an output is to have; None: those of any new file."""
    for model in (target, source):
        if model is not None and model.exists():
            return stat.S_IMODE(model.stat().st_mode) & 0o666
    return None


def _is_or_will_be_file(target: Place) -> bool:
    if isinstance(target, Remote):  # a store has no devices
        return not target.is_dir()
    return target.is_file() or not target.exists()
