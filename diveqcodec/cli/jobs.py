"""One input, its output, and what becomes of it; what processes of a batch exchange."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diveqcodec.cli.console import Misuse, OutputError, describe
from diveqcodec.cli.files import write_atomic, write_stdout
from diveqcodec.errors import DiveqError

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
    path: Path | None
    folder: Path | None = None
    problem: str | None = None

    @property
    def relative(self) -> Path:
        """Where an output tree has it: below the folder it was found in."""
        path = self.path or Path("stdin")
        return path.relative_to(self.folder) if self.folder is not None else Path(path.name)


@dataclass(frozen=True, slots=True)
class Job:
    """An input and its output.

    Attributes:
        source: The input.
        target: The output; None for standard output.
        problem: Why it cannot be done, if that is known already.
    """

    source: Source
    target: Path | None
    problem: str | None = None

    @property
    def target_name(self) -> str:
        """As messages call the output."""
        return "<stdout>" if self.target is None else str(self.target)


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
        if isinstance(error, OutputError):
            return Failure(describe(error), True, trace)
        return Failure(describe(error).removeprefix(f"{job.source.name}: "), False, trace)


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
