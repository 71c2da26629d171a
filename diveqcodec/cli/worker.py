"""The jobs of a batch in other processes, of this machine or of a cluster's.

A process keeps its session, and so every model that it has loaded, from job to job. What the
library says there is said here: only one process talks to the user.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from diveqcodec import __version__
from diveqcodec.cli.console import Console, Misuse
from diveqcodec.cli.jobs import Failure, Job, Outcome, Work, attempt
from diveqcodec.cli.options import Session
from diveqcodec.cluster import threads_here
from diveqcodec.errors import DiveqError
from diveqcodec.processes import Died, Engine
from diveqcodec.store import Present, Remote

# Of a process: by device and threads. A worker of a cluster serves one command after the other, and
# may have threads that do jobs at the same time; torch's threads are shared out within one job.
_sessions: dict[tuple[str, int | None], Session] = {}
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class Setup:
    """What a process has to know of the command.

    Attributes:
        verbosity: The number of -v.
        device: Of `--device`.
        threads: Of torch; None for those that a worker of a cluster has.
        version: Of the program, which is to be the same everywhere.
    """

    verbosity: int
    device: str
    threads: int | None
    version: str = __version__


@dataclass(frozen=True, slots=True)
class _Done:
    """What comes back: the result, and lines that the library said."""

    result: Outcome | Failure
    said: tuple[str, ...]


class _Listening(Console):
    """A console that keeps what would be said."""

    def __init__(self, verbosity: int) -> None:
        super().__init__(False, verbosity)
        self.said: list[str] = []

    @contextlib.contextmanager
    def counter(self, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """No bar: the command has one for all files."""
        yield lambda _more: None

    def _write(self, text: str) -> None:
        self.said.append(text)


def check_places(jobs: Sequence[Job]) -> None:
    """Refuse what other processes cannot read or write.

    Raises:
        Misuse: a standard stream, or the memory of this process.
    """
    for job in jobs:
        if job.source.path is None or job.target is None:
            raise Misuse("- (a standard stream) cannot be combined with --cluster")
        for where in (job.source.path, job.target):
            if isinstance(where, Remote) and where.protocol == "memory":
                raise Misuse(f"{where}: is seen by one process only; leave out -j and --cluster")


def results(
    jobs: Sequence[Job], work: Work, session: Session, engine: Engine, threads: int | None
) -> Iterator[tuple[Job, Outcome | Failure]]:
    """Do jobs in other processes, in an order that the engine chooses.

    Args:
        jobs: What to do.
        work: Does one of them; it is pickled.
        session: Of the command.
        engine: What runs the processes.
        threads: Of torch, in each of them.

    Raises:
        Misuse: wrong usage, which ends the batch.
        DiveqError: nothing more can be done, such as without a scheduler.
    """
    console = session.console
    setup = Setup(console.verbosity, session.device_name, threads)
    present = Present()
    ready = (_ready(job, present) for job in jobs)
    for job, done in engine.map(functools.partial(_do, setup, work), ready):
        if isinstance(done, Died):
            yield job, Failure(done.text)
            continue
        for line in done.said:
            console.repeat(line)
        yield job, done.result


def _ready(job: Job, present: Present) -> Job:
    """A job to be handed out, perhaps more than once."""
    try:
        is_new = job.is_new or (job.target is not None and job.target not in present)
    except OSError:  # it is said when the output cannot be written
        is_new = job.is_new
    return replace(job.on_any_machine(), is_new=is_new)


def _do(setup: Setup, work: Work, job: Job) -> _Done:
    """Do a job here, in a process that may have done others."""
    if setup.version != __version__:
        raise DiveqError(
            f"a worker has diveqcodec {__version__}, this is {setup.version}; "
            "install the same on all machines"
        )
    console = _Listening(setup.verbosity)
    with _one_at_a_time, console.listening():
        threads = setup.threads or threads_here()
        key = setup.device, threads
        if key not in _sessions:
            _sessions[key] = Session(console, setup.device, threads)
        session = _sessions[key]
        session.console = console
        return _Done(attempt(work, job, session), tuple(console.said))
