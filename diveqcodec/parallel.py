"""Tiles on several cores: threads that each run torch on one core.

torch's own threads help little with a tile: its matrices are small and there is Python between
them. Knows nothing of what is done.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int, int], None]  # steps of one picture that are done, and all: tiles, rounds

_lock = threading.Lock()
_pools = 0  # that are at work, in whatever thread
_threads = 1  # that torch used before the first of them


def ordered_map(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Results in the order of the items, of which up to `workers` are worked on at once.

    No more results wait than there are workers, so memory does not grow with the items. An error
    of one is raised where its result would be.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    with _one_core_each(), ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _one_core_each() -> Iterator[None]:
    """Within this torch uses one thread for what it is asked."""
    global _pools, _threads
    with _lock:
        if not _pools:
            _threads = torch.get_num_threads()
            torch.set_num_threads(1)
        _pools += 1
    try:
        yield
    finally:
        with _lock:
            _pools -= 1
            if not _pools:
                torch.set_num_threads(_threads)
