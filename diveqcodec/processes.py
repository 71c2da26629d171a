"""Many things done by several processes of this machine; one that dies costs what killed it.

Processes, because the entropy coder and much of the rest hold Python's lock. They are spawned, not
forked: a fork of a process that has started threads of torch may hang. Knows nothing of what is
done. `diveqcodec.cluster` does the same on many machines.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_AHEAD: Final = 2  # items handed out for every process, so that none waits for the next one


@dataclass(frozen=True, slots=True)
class Died:
    """In place of a result: whatever worked on this died, again and again.

    Attributes:
        text: One line, with what may be done.
    """

    text: str


class Engine(Protocol):
    """What does many things at once."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R | Died]]:
        """Do all of them; each comes back once.

        Args:
            function: Of a module, with its arguments: it is pickled, and so are its results. It may
                be called twice for an item, if what did it died before it could tell.
            items: Pulled as there is room.

        Raises:
            Exception: whatever `function` raises.
        """


class LocalProcesses:
    """Processes of this machine; results come in the order of the items.

    At Ctrl-C those of items that were being worked on still come, before KeyboardInterrupt.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R | Died]]:
        """As `Engine.map`."""
        numbered = enumerate(items)
        waiting = deque[tuple[int, T]]()  # that a death has cost, to be handed out again
        taken: dict[int, T] = {}
        done: dict[int, R | Died] = {}
        following, is_over = 0, False
        while not is_over:
            suspects: list[int] = []
            with _stopping(_executor(self._count)) as executor:
                running: dict[Future[R], int] = {}
                try:
                    while True:
                        room = _AHEAD * self._count - len(running)
                        for index, item in itertools.islice(_either(waiting, numbered), room):
                            taken[index] = item
                            try:
                                running[executor.submit(function, item)] = index
                            except BrokenProcessPool:
                                waiting.append((index, item))
                                break
                        is_over = not running and not waiting
                        finished, _ = wait(running, return_when=FIRST_COMPLETED)
                        for future in finished:
                            index = running.pop(future)
                            try:
                                done[index] = future.result()
                            except BrokenProcessPool:
                                suspects.append(index)
                        while following in done:
                            yield taken.pop(following), done.pop(following)
                            following += 1
                        if is_over or (not running and (suspects or waiting)):  # they are dead
                            break
                except KeyboardInterrupt:
                    executor.shutdown(cancel_futures=True)
                    done |= {running[future]: future.result() for future in _whole(running)}
                    for index in sorted(done.keys() & taken.keys()):
                        yield taken.pop(index), done.pop(index)
                    raise
            if not suspects and waiting:  # nothing was at work: which of these it is shows
                suspects = [waiting.popleft()[0]]
            for index in suspects:  # one of them did it: each on its own now
                done[index] = _alone(function, taken[index])
            while following in done:
                yield taken.pop(following), done.pop(following)
                following += 1
            is_over = is_over and not suspects


def _whole(futures: Iterable[Future[R]]) -> Iterator[Future[R]]:
    """Those that have a result."""
    for future in futures:
        if future.done() and not future.cancelled() and future.exception() is None:
            yield future


def _either(waiting: deque[T], others: Iterator[T]) -> Iterator[T]:
    """First what waits, then the others."""
    while waiting:
        yield waiting.popleft()
    yield from others


@contextlib.contextmanager
def _stopping(executor: ProcessPoolExecutor) -> Iterator[ProcessPoolExecutor]:
    """Within this, whatever happens, only items that are being worked on are still done."""
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _alone(function: Callable[[T], R], item: T) -> R | Died:
    with _executor(1) as executor:
        try:
            return executor.submit(function, item).result()
        except BrokenProcessPool:
            return Died(
                "the process at work on it died; there may be too little memory, try a smaller -j"
            )


def _executor(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start)


def _start() -> None:
    """Make a process ready: Ctrl-C is for the parent, and without a parent there is nothing to do.

    The parent lets them finish what they are at when it is interrupted.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
