"""The folder of a run: whether one may be made in it, and what is there when it begins.

Knows what training leaves there by name and by content, nothing of how it comes to be.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diveqcodec.atomic import leftovers, replacing
from diveqcodec.errors import ConfigError, TrainingError
from diveqcodec.locks import lock
from diveqcodec.train import checkpoint
from diveqcodec.train.config import TrainConfig, load, to_toml

_OURS = (  # patterns of what a run and the commands about it leave in its folder
    "config.toml",
    "log.jsonl",
    "last.safetensors",
    "best.safetensors",
    "samples/step-[0-9]*.png",
    "curves.png",
)

_HOUR = 3600.0  # seconds; no file takes so long to write
_LOCK = ".diveq-train.lock"  # there while a run is, and after one that was killed


@contextmanager
def held(folder: Path, *, resume: bool, force: bool) -> Iterator[None]:
    """Within this, a run may write to the folder, and no other may.

    The folder is made; if nothing has come of it, it goes again. However a process ends, the system
    takes its lock away; the file of one that was killed means nothing.

    Raises:
        TrainingError: as `check`; another training holds it; it cannot be written.
    """
    check(folder, resume=resume, force=force)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held_file = _locked(folder / _LOCK)
    except BlockingIOError as error:
        raise TrainingError(
            f"{folder}: another training is writing into it; wait for its end, or name another"
        ) from error
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error.strerror})") from error
    try:
        check(folder, resume=resume, force=force)  # as whoever held it until now has left it
        yield
    finally:
        with suppress(OSError):
            (folder / _LOCK).unlink()  # still held: whoever has opened it will see that it is gone
        os.close(held_file)
        for path in made:
            with suppress(OSError):
                path.rmdir()


def _locked(path: Path) -> int:
    """The open file `path`, locked.

    Raises:
        BlockingIOError: another process has locked it.
        OSError: it cannot be written.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            lock(file)
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        except FileNotFoundError:
            pass  # it was removed, between opening and locking it, by a run that ended
        except OSError:
            os.close(file)
            raise
        os.close(file)


def check(folder: Path, *, resume: bool, force: bool) -> None:
    """Before any work: is there something to resume, or would something be overwritten.

    Raises:
        TrainingError: nothing to resume, or it would.
    """
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder}: is a file; name a folder for the run")
    if resume:
        if not (folder / "last.safetensors").exists():
            raise TrainingError(f"{folder}: has no last.safetensors to resume from")
    elif not folder.exists() or _is_empty(folder):
        return
    elif not _is_run(folder):
        raise TrainingError(f"{folder}: is not empty, and no run; name another folder")
    elif not force:
        on = "go on with --resume, " if (folder / "last.safetensors").exists() else ""
        raise TrainingError(f"{folder}: is not empty; {on}overwrite with -f, or name another")


def begin(folder: Path, config: TrainConfig, step: int | None, *, force: bool = False) -> None:
    """Clear what is out of date, write the resolved configuration.

    Args:
        folder: it is made if it is not there.
        config: of the run.
        step: of the checkpoint that the run goes on from; None: it is a new one.
        force: remove what an earlier run has left, once a file could be written.

    Raises:
        TrainingError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        if step is not None:
            _cut_log(folder / "log.jsonl", step)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error.strerror})") from error
    write_config(folder, config, force=force)


def write_config(folder: Path, config: TrainConfig, *, force: bool = False) -> None:
    """Write the resolved configuration; `force` as in `begin`.

    Raises:
        TrainingError: it cannot be written.
    """
    try:
        with replacing(folder / "config.toml") as path:
            path.write_text(to_toml(config), "utf-8")
            if force:
                _clear(folder)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error.strerror})") from error


def _clear(folder: Path) -> None:
    for path in [found for pattern in _OURS for found in folder.glob(pattern)]:
        path.unlink()
    with suppress(OSError):  # it is not there, or has more than ours
        (folder / "samples").rmdir()


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left half written, which may be a checkpoint each time.

    What is younger may be an export of this moment.
    """
    for path in (*leftovers(folder), *leftovers(folder / "samples")):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _HOUR:
                path.unlink()


def _is_empty(folder: Path) -> bool:
    """Whether there is nothing but what a run that was killed at its start has left."""
    return not {*folder.iterdir()} - {folder / _LOCK, *leftovers(folder)}


def _is_run(folder: Path) -> bool:
    """Whether training has written here: told by what is in the files, not by their names."""
    return (
        checkpoint.is_checkpoint(folder / "last.safetensors")
        or _is_log(folder / "log.jsonl")
        or _is_resolved(folder / "config.toml")  # all that there is before the first line of a log
    )


def _is_log(path: Path) -> bool:
    """Whether a file begins as the log of a run does."""
    try:
        with path.open(encoding="utf-8") as file:
            line = json.loads(file.readline())
    except (OSError, ValueError):
        return False
    return isinstance(line, dict) and "step" in line and ("slices" in line or "validation" in line)


def _is_resolved(path: Path) -> bool:
    """Whether a configuration is one as runs write it, letter by letter."""
    try:
        return path.read_text("utf-8") == to_toml(load(path))
    except (OSError, ValueError, ConfigError):
        return False


def _cut_log(path: Path, step: int) -> None:
    """Leave out the lines of steps after the checkpoint, which will be made again."""
    if not path.exists():
        return
    kept = []
    for text in path.read_text("utf-8", errors="replace").splitlines():
        try:
            is_kept = json.loads(text)["step"] <= step
        except (ValueError, KeyError):
            is_kept = False  # cut short when the machine went down
        if is_kept:
            kept.append(text + "\n")
    with replacing(path) as temporary:
        temporary.write_text("".join(kept), "utf-8")
