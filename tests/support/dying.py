"""An engine whose workers die at the worst moment, and one whose command is interrupted."""

import functools
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from diveqcodec.processes import Died, Engine

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Dying:
    """An engine one worker of which is killed once, between the end of a thing and telling of it.

    Attributes:
        engine: Does the work, in other processes of this machine.
        folder: Where they tell each other what was done; each kill has an empty one.
        after: Things that are done before.
    """

    engine: Engine
    folder: Path
    after: int = 2

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R | Died]]:
        """As `Engine.map`."""
        return self.engine.map(functools.partial(_do, self.folder, self.after, function), items)

    def killed(self) -> list[int]:
        """The processes that were killed."""
        return [int(path.name.removeprefix("killed ")) for path in self.folder.glob("killed *")]


@dataclass(frozen=True, slots=True)
class Interrupted:
    """An engine with a person who presses Ctrl-C when so many things are done."""

    engine: Engine
    after: int

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R | Died]]:
        """As `Engine.map`."""
        yield from islice(self.engine.map(function, items), self.after)
        raise KeyboardInterrupt


def _do(folder: Path, after: int, function: Callable[[T], R], item: T) -> R:
    result = function(item)
    done = len(list(folder.glob("done *")))
    (folder / f"done {os.getpid()} {done}").touch()
    if done >= after:
        try:
            (folder / "kill").touch(exist_ok=False)  # of several processes one
        except FileExistsError:
            return result
        (folder / f"killed {os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return result
