"""What stands in the place of an output: all of it, a part of it, or something else.

`--skip-existing` passes over the first. A part, which a machine that went down or a copy that was
stopped leaves, is made again; but never one that may be older than the input, and so what the input
was made from. Decodes nothing. Knows no commands.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from diveqcodec.cli.jobs import Job
from diveqcodec.container import bitstream
from diveqcodec.errors import DamagedError, FormatError
from diveqcodec.image.frames import state_of as picture_state
from diveqcodec.store import Place, Remote

if TYPE_CHECKING:
    from diveqcodec.image.frames import State

__all__ = ["Look", "dvq_state", "picture_state", "remaining_job"]

Look = Callable[[BinaryIO], "State"]


def dvq_state(file: BinaryIO) -> State:
    """What there is of a `.dvq` file, by the frames and checksums of its chunks."""
    data = file.read()
    if not data.strip(b"\0") or bitstream.MAGIC.startswith(data):
        return "cut"
    try:
        bitstream.read(data)
    except DamagedError:
        return "cut"
    except FormatError:  # no such file, or one of a newer version
        return "else"
    return "whole"


def remaining_job(job: Job, target: Place, looks: Look) -> Job | None:
    """What is left to do where there is something in the place of an output: None for nothing.

    Nothing is lost by writing over an empty file. Files of stores come into being whole, and are
    not looked into: that would take a request each.
    """
    try:
        if isinstance(target, Remote) or not target.is_file():
            return None
        size = target.stat().st_size
        with target.open("rb") as file:
            state = looks(file)
        is_ours = not size or _is_newer(target, job.source.path)
    except OSError:  # it is there, and may be whole
        return None
    if state == "else":
        return replace(
            job, problem=f"{target} is there, but is something else; use -f to overwrite"
        )
    if state == "whole":
        return None
    if not is_ours:
        problem = f"{target} is there, but damaged and no newer than this; use -f to overwrite"
        return replace(job, problem=problem)
    what = "was not whole" if size else "was empty"
    return replace(job, is_new=True, notice=f"{target} {what}, and was made again")


def _is_newer(target: Path, source: Place | None) -> bool:
    """Whether a file may have been made from a source: that of a store has no time to ask for."""
    if not isinstance(source, Path):
        return True
    try:
        return target.stat().st_mtime_ns > os.stat(source).st_mtime_ns
    except FileNotFoundError:  # the input is gone: that is what will be said
        return True
