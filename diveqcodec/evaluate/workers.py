"""Measuring pictures in several processes at once, of this machine or of a cluster's.

Every process makes the codec once and measures whole pictures. Times are then those of a busy
machine. Knows nothing of what the codec is: it is given a function that makes one.
"""

import functools
import pickle
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from diveqcodec.cluster import threads_here
from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.results import Measurement
from diveqcodec.evaluate.run import Folders, ImageCodec, Task, measure_picture
from diveqcodec.processes import Died, Engine

Maker = Callable[[], ImageCodec]


class Workers:
    """Processes that measure with one codec.

    Args:
        make: Makes the codec; it is pickled, so it is a function of a module with its arguments.
        engine: Runs them.
        threads: Of torch in each of them; None for those that a worker of a cluster has.
    """

    def __init__(self, make: Maker, engine: Engine, threads: int | None = 1) -> None:
        self._order = _Order(secrets.token_hex(8), make, threads)
        self._engine = engine

    def measure(
        self, tasks: Sequence[Task], folders: Folders
    ) -> Iterator[tuple[Task, list[Measurement] | Exception]]:
        """What was measured of every task, or why nothing was, in the order in which they are done.

        A picture that kills whatever works on it has no rows either.
        """
        anywhere = (_on_any_machine(task) for task in tasks)
        decoded = None if folders.decoded is None else folders.decoded.absolute()
        work = functools.partial(_work, self._order, replace(folders, decoded=decoded))
        given = {task.name: task for task in tasks}
        for task, found in self._engine.map(work, anywhere):
            yield given[task.name], DiveqError(found.text) if isinstance(found, Died) else found


@dataclass(frozen=True, slots=True)
class _Order:
    """What a process is to measure with; the name tells it from earlier ones."""

    name: str
    make: Maker
    threads: int | None


@dataclass(slots=True)
class _State:
    """What a process keeps from picture to picture."""

    name: str | None = None
    codec: ImageCodec | None = None
    is_warm: bool = False


_state = _State()
_one_at_a_time = threading.Lock()  # a worker of a cluster may have threads; measuring takes time


def _work(order: _Order, folders: Folders, task: Task) -> list[Measurement] | Exception:
    with _one_at_a_time, tempfile.TemporaryDirectory() as own:
        torch.set_num_threads(order.threads or threads_here() or torch.get_num_threads())
        if _state.codec is None or _state.name != order.name:
            _state.codec, _state.name, _state.is_warm = order.make(), order.name, False
        if not folders.coded.is_dir():  # it is on another machine
            folders = replace(folders, coded=Path(own))
        try:
            found = list(measure_picture(_state.codec, task, folders, _state.is_warm))
        except Exception as error:  # whatever it is, the other pictures are not to blame
            return _portable(error)
        _state.is_warm = True
        return found


def _portable(error: Exception) -> Exception:
    """An exception that reaches the other process, whatever it was made of."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _on_any_machine(task: Task) -> Task:
    return replace(task, path=task.path.absolute()) if isinstance(task.path, Path) else task
