"""Measuring pictures in several processes at once.

Every process makes the codec once and measures whole pictures. Times are then those of a busy
machine. Knows nothing of what the codec is: it is given a function that makes one.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import torch

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.results import Row
from diveqcodec.evaluate.run import Folders, ImageCodec, Task, measure_picture

Maker = Callable[[], ImageCodec]


class Workers:
    """Processes that measure with one codec.

    Args:
        make: Makes the codec; it is pickled, so it is a function of a module with its arguments.
        jobs: How many processes.
        threads: Of torch in each of them.
    """

    def __init__(self, make: Maker, jobs: int, threads: int = 1) -> None:
        self._make, self._jobs, self._threads = make, jobs, threads

    def measure(
        self, tasks: Sequence[Task], folders: Folders
    ) -> Iterator[tuple[Task, list[Row] | Exception]]:
        """The rows of every task, or why there are none, in the order in which they are done.

        Raises:
            DiveqError: a process died, as when memory runs out.
        """
        if not tasks:
            return
        pool = ProcessPoolExecutor(
            min(self._jobs, len(tasks)),
            # a fork of a process in which torch has run may hang
            multiprocessing.get_context("spawn"),
            _start,
            (self._make, self._threads),
        )
        try:
            futures: dict[Future[list[Row]], Task] = {
                pool.submit(_work, task, folders): task for task in tasks
            }
            for future in as_completed(futures):
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise DiveqError(
                        "a process that measures has died; use fewer --jobs if memory ran out"
                    ) from error
                if isinstance(error, Exception):
                    yield futures[future], error
                elif error is not None:
                    raise error
                else:
                    yield futures[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(slots=True)
class _State:
    """What a process keeps from picture to picture."""

    make: Maker | None = None
    codec: ImageCodec | None = None
    is_warm: bool = False


_state = _State()


def _start(make: Maker, threads: int) -> None:
    torch.set_num_threads(threads)
    _state.make = make


def _work(task: Task, folders: Folders) -> list[Row]:
    if _state.codec is None:
        assert _state.make is not None
        _state.codec = _state.make()
    rows = list(measure_picture(_state.codec, task, folders, _state.is_warm))
    _state.is_warm = True
    return rows
