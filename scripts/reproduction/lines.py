"""Runs and their results: one JSON line a run, appended as soon as the run is done.

A run is what was asked (`Run`, the key) and a line what came of it. A line is never changed; what
is in the file is not run again, so that any number of short calls add up to the whole.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diveqcodec.errors import DiveqError

Value = str | int | float | None


@dataclass(frozen=True, slots=True)
class Run:
    """One run: an experiment, `scale` ("quick" or "full"), and its settings by name."""

    experiment: str
    scale: str
    settings: tuple[tuple[str, Value], ...]

    @staticmethod
    def of(experiment: str, scale: str, **settings: Value) -> Run:
        """A run whose settings are in alphabetical order."""
        return Run(experiment, scale, tuple(sorted(settings.items())))

    def __getitem__(self, name: str) -> Any:
        return dict(self.settings)[name]


DIVERGED = "diverged"  # the only key of a result whose training ended in NaN or infinity


@dataclass(frozen=True, slots=True)
class Line:
    """A run, what it measured, and how long it took.

    `seconds` are of the clock, which other work on the machine lengthens; `processor_seconds` are
    of the processor, None in lines from before it was measured.
    """

    run: Run
    result: dict[str, Any]
    seconds: float
    processor_seconds: float | None = None

    @property
    def has_diverged(self) -> bool:
        """Whether the training ended in NaN or infinity: then nothing could be measured."""
        return DIVERGED in self.result

    def to_json(self) -> str:
        """One line, without the line break."""
        content = {
            "experiment": self.run.experiment,
            "scale": self.run.scale,
            "settings": dict(self.run.settings),
            "result": self.result,
            "seconds": round(self.seconds, 2),
        }
        if self.processor_seconds is not None:
            content["processor_seconds"] = round(self.processor_seconds, 2)
        return json.dumps(content, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Line:
        """The inverse of `to_json`.

        Raises:
            ValueError, KeyError, TypeError: it is no such line.
        """
        content = json.loads(text)
        run = Run.of(content["experiment"], content["scale"], **content["settings"])
        hash(run)  # a list among the settings is none
        times = content["seconds"], content.get("processor_seconds")
        numbers = [time for time in times if time is not None]
        if not isinstance(content["result"], dict) or not all(map(math.isfinite, numbers)):
            raise ValueError("no result, or no time")
        return Line(run, content["result"], *times)


class Lines:
    """The lines of one file, and the way to add to it.

    Args:
        path: a file of lines; need not exist.

    Raises:
        DiveqError: a line that is not the last cannot be read. A last line that a kill cut off is
            dropped, and its run is made again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.by_run: dict[Run, Line] = {}
        self._whole = 0  # bytes up to the end of the last whole line
        self._size = 0  # bytes that were there when this object last looked
        content = path.read_bytes() if path.exists() else b""
        pieces = content.split(b"\n")
        for number, text in enumerate(pieces[:-1], start=1):
            try:
                line = Line.from_json(text.decode("utf-8"))
            except (ValueError, KeyError, TypeError) as error:
                raise DiveqError(
                    f"{path}, line {number}: not a run ({error}); delete the line to run it again"
                ) from None
            self.by_run[line.run] = line
        self._size = len(content)
        self._whole = self._size - len(pieces[-1])

    def __iter__(self) -> Iterator[Line]:
        return iter(self.by_run.values())

    def add(self, line: Line) -> None:
        """Appends one line, and makes sure that it is on the disk.

        Raises:
            DiveqError: someone else wrote to the file meanwhile; nothing of it is lost.
        """
        if (self.path.stat().st_size if self.path.exists() else 0) != self._size:
            raise DiveqError(
                f"{self.path}: another call adds lines to it; let one finish, then go on"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.truncate(self._whole)
            file.seek(self._whole)
            file.write(line.to_json().encode("utf-8") + b"\n")
            self._whole = self._size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        self.by_run[line.run] = line

    def of(self, experiment: str, **settings: Value) -> list[Line]:
        """The lines of an experiment whose settings are these (and any others)."""
        return [
            line
            for line in self
            if line.run.experiment == experiment
            and settings.items() <= dict(line.run.settings).items()
        ]
