"""Inputs -> jobs -> outputs: what compress, decompress and info share.

Plans which input goes to which output before any work is done, then runs the jobs: a bad file is
reported and the rest goes on. Knows no codec: the work itself is a function of the command.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diveqcodec.cli.console import Console, Misuse, describe
from diveqcodec.cli.files import (
    STREAM,
    OutputError,
    check_stdout,
    check_target,
    write_atomic,
    write_stdout,
)
from diveqcodec.cli.kinds import Kind
from diveqcodec.errors import DiveqError

PICTURE_SUFFIXES = {  # of outputs -> the format; what is read is recognised by content
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".ppm": "ppm",
    ".pgm": "ppm",
}


@dataclass(frozen=True, slots=True)
class Source:
    """An input.

    Attributes:
        name: As messages call it.
        path: None for standard input.
        folder: The folder given on the command line that it was found in, or None.
    """

    name: str
    path: Path | None
    folder: Path | None = None

    @property
    def relative(self) -> Path:
        """Where an output tree has it: below the folder it was found in."""
        path = self.path or Path("stdin")
        return path.relative_to(self.folder) if self.folder is not None else Path(path.name)


@dataclass(frozen=True, slots=True)
class Job:
    """An input and its output; `target` is None for standard output."""

    source: Source
    target: Path | None

    @property
    def target_name(self) -> str:
        """As messages call the output."""
        return "<stdout>" if self.target is None else str(self.target)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: a human line, the JSON record, notices for the user."""

    line: str
    record: dict[str, Any]
    notices: tuple[str, ...] = ()


def expand(inputs: Sequence[str], kind: Kind, console: Console) -> list[Source]:
    """The inputs with folders replaced by their files of one kind.

    Folders are walked recursively and sorted; hidden files are left out, and so are, with a note,
    those of another kind. Files that do not exist are kept: they fail when their turn comes.

    Raises:
        Misuse: `-` beside other inputs, or an empty name.
        DiveqError: a folder holds nothing of that kind.
    """
    if STREAM in inputs and len(inputs) > 1:
        raise Misuse("- (standard input) cannot be combined with other inputs")
    if "" in inputs:  # an unset variable of a script; Path("") would be the current folder
        raise Misuse("an input is an empty name; give a file, a folder, or -")
    sources = []
    for name in inputs:
        path = Path(name)
        if name == STREAM:
            sources.append(Source("<stdin>", None))
        elif path.is_dir():
            files = _files_below(path)
            chosen = [file for file in files if kind.is_one(file)]
            if not chosen:
                raise DiveqError(f"{name}: contains no {kind.plural}")
            if others := len(files) - len(chosen):
                console.note(f"{name}: skipped {others} of {len(files)} files, not {kind.plural}")
            sources += [Source(str(file), file, path) for file in chosen]
        else:
            sources.append(Source(name, path))
    return sources


def plan(
    inputs: Sequence[str], sources: Sequence[Source], output: str | None, suffix: str
) -> list[Job]:
    """Give every source its output.

    Args:
        inputs: As the user gave them: files, folders, or `-` alone.
        sources: What `expand` made of them.
        output: `-o`: a file, a folder (the tree of a folder given as input is mirrored below it),
            `-` for standard output, or None: beside the input.
        suffix: Of outputs that are not named, with the dot.

    Raises:
        Misuse: several inputs for one output, or standard output is a terminal.
    """
    is_several = are_several(inputs)
    if output == STREAM or (output is None and list(inputs) == [STREAM]):
        if is_several:
            raise Misuse("-o - takes one input; name a folder with -o for several")
        check_stdout()
        return [Job(source, None) for source in sources]
    jobs = [Job(source, _target(source, output, is_several, suffix)) for source in sources]
    _check_distinct(jobs)
    return jobs


def check_json(jobs: Sequence[Job], console: Console) -> None:
    """Refuse to mix records and a picture on standard output.

    Raises:
        Misuse: both are asked for.
    """
    if console.is_json and any(job.target is None for job in jobs):
        raise Misuse("--json writes to stdout, and so does the picture; name a file with -o")


def run(jobs: Sequence[Job], work: Callable[[Job], Outcome], console: Console) -> int:
    """Do the jobs, whatever happens to each; the exit status, 0 or 1."""
    is_done = True
    with console.counter(len(jobs), "file") as advance:
        for job in jobs:
            is_done &= _run_one(job, work, console)
            advance(1)
    return 0 if is_done else 1


def store(job: Job, data: bytes) -> None:
    """Write a job's output.

    Raises:
        OutputError: it cannot be written.
    """
    if job.target is None:
        write_stdout(data)
    else:
        write_atomic(job.target, data)


def check(job: Job, is_forced: bool) -> None:
    """Refuse a job whose output would destroy something (see `check_target`)."""
    if job.target is not None:
        check_target(job.target, job.source.path, is_forced)


def hint_output(inputs: Sequence[str], source: Source, suffixes: Sequence[str]) -> str:
    """What to add to `no such file` when the last input looks like a forgotten `-o`."""
    is_last = len(inputs) > 1 and source.name == inputs[-1]
    if is_last and Path(source.name).suffix.lower() in suffixes:
        return f". To name the output, use -o {source.name}"
    return ""


def _run_one(job: Job, work: Callable[[Job], Outcome], console: Console) -> bool:
    """Do a job; whether it succeeded."""
    try:
        outcome = work(job)
    except (Misuse, BrokenPipeError):
        raise  # wrong usage ends the batch, and so does a reader that closed the pipe
    except Exception as error:  # whatever it is, the other files are not to blame
        _report(job, error, console)
        return False
    if outcome.line:
        console.line(outcome.line)
    if not console.is_json:
        for notice in outcome.notices:
            console.note(f"{job.source.name}: {notice}")
    console.record(outcome.record)
    return True


def _report(job: Job, error: Exception, console: Console) -> None:
    name, text = job.source.name, describe(error)
    bare = text.removeprefix(f"{name}: ")
    full = text if isinstance(error, OutputError) else f"{name}: {bare}"
    console.error(full, error)
    console.record({"input": name, "output": job.target_name, "error": bare})


def _target(source: Source, output: str | None, is_several: bool, suffix: str) -> Path:
    if output is None:
        assert source.path is not None  # standard input goes to standard output
        return source.path.with_suffix(suffix)
    if _is_folder(output, is_several):
        return Path(output) / source.relative.with_suffix(suffix)
    return Path(output)


def are_several(inputs: Sequence[str]) -> bool:
    """Whether inputs may make several outputs: there are two or more, or one is a folder."""
    return len(inputs) > 1 or Path(inputs[0]).is_dir()


def is_folder_name(output: str) -> bool:
    """Whether `-o` means a folder, whatever the inputs: it is one, or its name says so."""
    separators = ("/", "\\") if sys.platform == "win32" else "/"
    return Path(output).is_dir() or output.endswith(separators)


def _is_folder(output: str, is_several: bool) -> bool:
    path = Path(output)
    if is_folder_name(output):
        return True
    if not is_several:
        return False
    looks_like_file = path.suffix.lower() in {".dvq", *PICTURE_SUFFIXES}
    if path.exists() or looks_like_file:
        raise Misuse("-o must be a directory when there are several inputs")
    return True


def _check_distinct(jobs: Sequence[Job]) -> None:
    seen: dict[Path, Job] = {}
    for job in jobs:
        assert job.target is not None
        first = seen.setdefault(job.target.absolute(), job)
        if first is not job:
            raise Misuse(
                f"{first.source.name} and {job.source.name} would both be written to "
                f"{job.target}; do them apart, with -o"
            )


def _files_below(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
