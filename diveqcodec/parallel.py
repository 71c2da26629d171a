"""Tiles on several cores: threads that each run torch on one core.

torch's own threads help little with a tile: its matrices are small and there is Python between
them. Knows nothing of what is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch

from diveqcodec import threads

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int, int], None]  # steps of one picture that are done, and all: tiles, rounds

_lock = threading.Lock()
_pools = 0  # that are at work, in whatever thread
_threads = 1  # that torch used before the first of them


def ordered_map(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """As `diveqcodec.threads.ordered_map`, each thread with one core for what torch does."""
    with _one_core_each() if workers > 1 else nullcontext():
        yield from threads.ordered_map(function, items, workers)


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
