"""One input, its output, and what becomes of it; what processes of a batch exchange."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from diveqcodec.cli.console import Misuse, OutputError, describe
from diveqcodec.cli.files import write_atomic, write_stdout
from diveqcodec.errors import DiveqError
from diveqcodec.store import Place, Remote

if TYPE_CHECKING:
    from diveqcodec.cli.options import Session


@dataclass(frozen=True, slots=True)
class Source:
    """An input.

    Attributes:
        name: As messages call it.
        path: None for standard input.
        folder: The folder given on the command line that it was found in, or None.
        problem: Why it cannot be read, if that is known already.
    """

    name: str
    path: Place | None
    folder: Place | None = None
    problem: str | None = None

    @property
    def relative(self) -> PurePath:
        """Where an output tree has it: below the folder it was found in."""
        path = self.path or Path("stdin")
        if isinstance(path, Remote):
            folder = self.folder
            return path.relative_to(folder) if isinstance(folder, Remote) else PurePath(path.name)
        return path.relative_to(self.folder) if isinstance(self.folder, Path) else Path(path.name)


@dataclass(frozen=True, slots=True)
class Job:
    """An input and its output.

    Attributes:
        source: The input.
        target: The output; None for standard output.
        problem: Why it cannot be done, if that is known already.
        label: As messages call the output, if not as it is called here.
        is_new: The output was not there before the job was handed out. What is there now is from
            a try of which nothing more was heard.
        notice: What to say once it is done.
    """

    source: Source
    target: Place | None
    problem: str | None = None
    label: str | None = None
    is_new: bool = False
    notice: str | None = None

    @property
    def target_name(self) -> str:
        """As messages call the output."""
        return self.label or ("<stdout>" if self.target is None else str(self.target))

    def on_any_machine(self) -> Job:
        """The same with names that do not depend on the current folder; messages stay."""
        source, target = self.source, self.target
        if isinstance(source.path, Path):
            source = replace(source, path=source.path.absolute())
        if isinstance(target, Path):
            target = target.absolute()
        return replace(self, source=source, target=target, label=self.target_name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job that was done.

    Attributes:
        line: A sentence for people.
        record: The same for programs.
        notices: What the user may not expect.
        bytes_in: Size of the input.
        bytes_out: Size of the output.
    """

    line: str
    record: dict[str, Any]
    notices: tuple[str, ...] = ()
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job could not be done.

    Attributes:
        text: One line, without the name of the input.
        names_output: The line begins with the name of the output.
        trace: For those who said -vv.
    """

    text: str
    names_output: bool = False
    trace: str = ""


Work = Callable[[Job, "Session"], Outcome]


@dataclass(frozen=True, slots=True)
class Writing:
    """How outputs are written: over old ones, with the times of their inputs."""

    is_forced: bool = False
    keeps_times: bool = False


def attempt(work: Work, job: Job, session: Session) -> Outcome | Failure:
    """Do a job.

    Raises:
        Misuse: wrong usage, which ends the batch.
        BrokenPipeError: who read our output is gone, which ends it too.
    """
    try:
        if problem := job.source.problem or job.problem:
            raise DiveqError(problem)
        return work(job, session)
    except (Misuse, BrokenPipeError):
        raise
    except Exception as error:  # whatever it is, the other files are not to blame
        trace = "".join(traceback.format_exception(error)).rstrip()
        text = _as_given(job, describe(error))
        if isinstance(error, OutputError):
            return Failure(text, True, trace)
        return Failure(text.removeprefix(f"{job.source.name}: "), False, trace)


def _as_given(job: Job, text: str) -> str:
    """A message with the job's names as the user gave them; a process elsewhere knows others."""
    for where, name in ((job.target, job.target_name), (job.source.path, job.source.name)):
        if where is not None:
            text = text.replace(f"{where}: ", f"{name}: ")
    return text


def store(
    job: Job,
    data: bytes,
    writing: Writing,
    check: Callable[[bytes], None] | None = None,
) -> None:
    """Write a job's output.

    Args:
        job: Whose.
        data: All of it.
        writing: How.
        check: Raises if what it is given, read back from the disk, is not what it should be; an
            old output is kept then.

    Raises:
        OutputError: it cannot be written.
    """
    if job.target is None:
        if check is not None:
            check(data)
        write_stdout(data)
    else:
        keeps_times = writing.keeps_times
        write_atomic(job.target, data, job.source.path, keeps_times=keeps_times, check=check)
