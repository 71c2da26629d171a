"""Trains for a given time, on a machine that has torch and a bare copy of this tree.

    PYTHONPATH=. python scripts/train_timed.py PARTS... --out RUN --seconds 1500 --device cuda

PARTS are files of `pack_dataset.py` or folders of pictures. The number of steps follows from the
speed measured, so that the learning rate has come down when the time is up. The run folder is that
of `diveq train`: `last.safetensors` appears in it every few minutes (`log.checkpoint_minutes`), and
with `--resume` a later call goes on from it, also after this one was killed. At the end the
averaged weights are there too, in files of at most 16 MB (`weights-1-of-4.safetensors`, ...), of
which `diveq export RUN` makes a weights file wherever they are copied to.
"""

import argparse
import json
import logging
import math
import tempfile
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from diveqcodec.errors import DiveqError
from diveqcodec.train import checkpoint, data, run, settings
from diveqcodec.train.loop import Trainer
from diveqcodec.train.schedule import is_linear
from scripts.pack_dataset import unpack

_EVERY = 10  # steps between measurements of the speed; the first ones are not measured
_LATE = 0.97  # share of the time after which the number of steps stays


def main() -> None:
    """Read the command line, train, write the weights."""
    parser = argparse.ArgumentParser(description="Train for a given time.")
    parser.add_argument("parts", type=Path, nargs="+", help="packed parts or folders of pictures")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--seconds", type=float, required=True, help="for everything")
    parser.add_argument("--reserve", type=float, default=30.0, help="seconds of it for writing")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("-c", "--config", type=Path, help="TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--init", type=Path, help="weights file to start from")
    parser.add_argument("--resume", action="store_true", help="go on with the run in RUN")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite the run in RUN")
    parser.add_argument("--part-bytes", type=int, default=16_000_000, help="of a file of weights")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        _train(options, time.monotonic())
    except (DiveqError, ValueError) as error:
        parser.exit(1, f"Error: {error}\n")


def _train(options: argparse.Namespace, started: float) -> None:
    resumed = options.out if options.resume else None
    pace = Pace(started + options.seconds - options.reserve)
    with tempfile.TemporaryDirectory() as folder:
        result = run(
            settings(options.config, tuple(options.set), resumed=resumed),
            _gather(options.parts, Path(folder)),
            options.out,
            device=torch.device(options.device),
            resume=options.resume,
            force=options.force,
            init=options.init,
            progress=pace.note,
            pace=pace,
        )
    weights = checkpoint.load_average(options.out)
    for path in checkpoint.save_parts(options.out, *weights, options.part_bytes):
        print(f"{path}  {path.stat().st_size:,} bytes")
    print(f"{result.step} steps, {time.monotonic() - started:.0f} s in all")


def _gather(parts: list[Path], target: Path) -> Path:
    """One folder with the pictures of all parts; a single folder is used where it lies."""
    if len(parts) == 1 and parts[0].is_dir():
        return parts[0]
    archives = [part for part in parts if not part.is_dir()]
    unpack(archives, target)
    for number, part in enumerate(part for part in parts if part.is_dir()):
        for path in data.find(part):
            link = target / f"of-{number}" / path.relative_to(part)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    return target


class Pace:
    """Adapts the number of steps to the time that is left, from the speed of late.

    That is the speed of as many steps as lie between two validations, so that one is among them.
    When the networks of the transform begin to be trained, steps get slower: it is measured anew.

    Args:
        end: when the time is up, by the monotonic clock.
    """

    def __init__(self, end: float) -> None:
        self.end = end
        self.late = math.inf  # when the number of steps is not changed any more
        self.steps = 0
        self._marks: deque[tuple[int, float]] = deque()  # steps made, and when
        self._next = 0  # step of the next measurement
        self._was_linear: bool | None = None

    def __call__(self, trainer: Trainer) -> bool:
        """Called before every step: keeps the schedule up to date; true when time is up."""
        now, step = time.monotonic(), trainer.step
        if now >= self.end:
            return True
        if self._was_linear is None:  # the first call: time is up before the steps are
            self.late = now + _LATE * (self.end - now)
            self._set(trainer, max(trainer.config.optim.steps, step + 1))
        resting = is_linear(step, trainer.config)
        if resting != self._was_linear:
            self._was_linear = resting
            self._marks.clear()
            self._next = step + _EVERY  # the first steps of a phase are slower
        if step >= self._next and now < self.late:
            self._next = step + _EVERY
            self._measure(trainer)
        return False

    def note(self, step: int, line: dict[str, Any]) -> None:
        """Print a line of the log."""
        keys = ("loss", "bpp", "psnr", "hyper_bpp", "crops_per_second", "0.0067")
        shown = {key: line[key] for key in keys if key in line}
        print(f"{step}/{self.steps} {json.dumps(shown)}", flush=True)

    def _measure(self, trainer: Trainer) -> None:
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)
        now, step = time.monotonic(), trainer.step
        self._marks.append((step, now))
        while self._marks[0][0] < step - max(trainer.config.log.validate_every, 10 * _EVERY):
            self._marks.popleft()
        first, then = self._marks[0]
        if step > first:
            left = math.floor((self.end - now) * (step - first) / (now - then))
            self._set(trainer, step + max(left, 1))

    def _set(self, trainer: Trainer, steps: int) -> None:
        config = trainer.config
        if self._was_linear is False and config.optim.linear:  # what is trained does not rest again
            steps = min(steps, math.floor(trainer.step / config.optim.linear))
        trainer.config = replace(config, optim=replace(config.optim, steps=steps))
        self.steps = steps


if __name__ == "__main__":
    main()
