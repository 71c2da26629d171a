"""The jobs of a batch in several processes, which load the model once each.

Processes, because the entropy coder and much of the rest hold Python's lock. They are spawned, not
forked: a fork of a process that has started threads of torch may hang. A process that dies costs
the file that killed it, and no other.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from diveqcodec.cli.console import Console
from diveqcodec.cli.jobs import Failure, Job, Outcome, Work, attempt
from diveqcodec.cli.options import Session

_AHEAD = 2  # jobs handed out for every process, so that none waits for the next one
_DIED = Failure("the process at work on it died; there may be too little memory, try a smaller -j")

_session: Session | None = None  # of a worker
_lifelong = contextlib.ExitStack()  # what a worker keeps as long as it lives


def results(
    jobs: Sequence[Job], work: Work, session: Session, processes: int
) -> Iterator[tuple[Job, Outcome | Failure]]:
    """Do jobs in several processes; in the order of the jobs, whichever is done first.

    Raises:
        Misuse: wrong usage, which ends the batch.
    """
    done: dict[int, Outcome | Failure] = {}
    waiting = deque(range(len(jobs)))
    following = 0
    while following < len(jobs):
        suspects: list[int] = []
        with _stopping(_executor(session, processes)) as executor:
            running: dict[Future[Outcome | Failure], int] = {}
            while waiting or running:
                while waiting and len(running) < _AHEAD * processes:
                    try:
                        running[executor.submit(_do, work, jobs[waiting[0]])] = waiting[0]
                    except BrokenProcessPool:
                        break
                    waiting.popleft()
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    index = running.pop(future)
                    try:
                        done[index] = future.result()
                    except BrokenProcessPool:
                        suspects.append(index)
                while following in done:
                    yield jobs[following], done.pop(following)
                    following += 1
                if not running and (suspects or waiting):  # the processes are dead
                    suspects = suspects or [waiting.popleft()]
                    break
        for index in suspects:  # one of them did it: each on its own now
            done[index] = _alone(jobs[index], work, session, processes)
        while following in done:
            yield jobs[following], done.pop(following)
            following += 1


@contextlib.contextmanager
def _stopping(executor: ProcessPoolExecutor) -> Iterator[ProcessPoolExecutor]:
    """Within this, whatever happens, only files that are being worked on are still done."""
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _alone(job: Job, work: Work, session: Session, processes: int) -> Outcome | Failure:
    with _executor(session, processes, 1) as executor:
        try:
            return executor.submit(_do, work, job).result()
        except BrokenProcessPool:
            return _DIED


def _executor(session: Session, processes: int, workers: int | None = None) -> ProcessPoolExecutor:
    threads = session.threads or max(1, (os.cpu_count() or 1) // processes)
    console = session.console
    return ProcessPoolExecutor(
        workers or processes,
        multiprocessing.get_context("spawn"),
        _start,
        (console.is_quiet, console.verbosity, session.device_name, threads),
    )


def _start(is_quiet: bool, verbosity: int, device: str, threads: int) -> None:
    """Make a worker ready: Ctrl-C is for the parent, and without a parent there is nothing to do.

    The parent lets workers finish their files when it is interrupted.
    """
    global _session
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    console = Console(is_quiet, verbosity)
    _lifelong.enter_context(console.listening())
    _session = Session(console, device, threads)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _do(work: Work, job: Job) -> Outcome | Failure:
    assert _session is not None
    return attempt(work, job, _session)
