"""Trains for a given time, on a machine that has torch and a bare copy of this tree.

    PYTHONPATH=. python scripts/train_timed.py PARTS... --out RUN --seconds 1500 --device cuda

PARTS are files of `pack_dataset.py` or folders of pictures. The number of steps follows from the
speed measured, so that the learning rate has come down when the time is up. `last.safetensors`
appears in the run folder every few minutes: with `--resume` a later call goes on from it. At the
end the averaged weights are there too, in files of at most 16 MB (`weights-1-of-4.safetensors`,
...), of which `diveq export RUN` makes a weights file wherever they are copied to.
"""

import argparse
import json
import logging
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from diveqcodec.errors import DiveqError
from diveqcodec.train import checkpoint, data, settings
from diveqcodec.train.config import TrainConfig, to_toml
from diveqcodec.train.loop import Trainer
from diveqcodec.weightfile import load_for_training
from scripts.pack_dataset import unpack

_WARM = 10  # steps before the speed is measured
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
    parser.add_argument("--resume", action="store_true", help="go on from RUN/last.safetensors")
    parser.add_argument("--checkpoint-minutes", type=float, default=3.0)
    parser.add_argument("--part-bytes", type=int, default=16_000_000, help="of a file of weights")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        _train(options, time.monotonic())
    except (DiveqError, ValueError) as error:
        parser.exit(1, f"Error: {error}\n")


def _train(options: argparse.Namespace, started: float) -> None:
    minutes = f"log.checkpoint_minutes={options.checkpoint_minutes}"
    resumed = options.out if options.resume else None
    config = settings(options.config, (*options.set, minutes), resumed=resumed)
    model = None
    history: list[str] = []
    if options.init is not None:
        model, provenance = load_for_training(options.init)
        config = replace(config, model=model.config)
        steps = provenance.get("steps", "unknown")
        history = [*provenance.get("history", []), f"{options.init.name}, {steps} steps"]
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        pictures = data.load(_gather(options.parts, Path(folder)), config.data.crop, device)
    trainer = Trainer(config, pictures, options.out)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.resume:
        trainer.resume(options.out / "last.safetensors")
    elif model is not None:
        trainer.start_from(model, history)
    else:
        trainer.start()
    print(f"{len(pictures.names)} pictures, {time.monotonic() - started:.0f} s to load", flush=True)
    pace = _Pace(trainer, started + options.seconds - options.reserve)
    trainer.run(progress=pace.note, stop=pace.is_over)
    (options.out / "config.toml").write_text(to_toml(trainer.config), "utf-8")
    for path in checkpoint.save_parts(
        options.out, trainer.model, trainer.average, trainer.info(), options.part_bytes
    ):
        print(f"{path}  {path.stat().st_size:,} bytes")
    print(f"{trainer.step} steps, {time.monotonic() - started:.0f} s in all")


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


class _Pace:
    """Adapts the number of steps to the time that is left, from the speed so far."""

    def __init__(self, trainer: Trainer, end: float) -> None:
        self.trainer, self.end = trainer, end
        self.first = trainer.step
        self.marked = time.monotonic()
        self.late = self.marked + _LATE * (end - self.marked)
        self.warm: int | None = None
        self._set(max(trainer.config.optim.steps, trainer.step + 1))

    def is_over(self) -> bool:
        """Called before every step: keeps the schedule up to date; true when time is up."""
        now, step = time.monotonic(), self.trainer.step
        if now >= self.end:
            return True
        if self.warm is None:
            if step - self.first >= _WARM:
                self._wait()
                self.warm, self.marked = step, time.monotonic()
        elif step > self.warm and (step - self.warm) % _WARM == 0 and now < self.late:
            self._wait()
            now = time.monotonic()
            pace = (now - self.marked) / (step - self.warm)
            left = math.floor((self.end - now) / pace)
            self._set(step + max(left, 1))
        return False

    def note(self, step: int, line: dict[str, Any]) -> None:
        """Print a line of the log."""
        keys = ("loss", "bpp", "psnr", "hyper_bpp", "crops_per_second", "0.0067")
        shown = {key: line[key] for key in keys if key in line}
        print(f"{step}/{self.trainer.config.optim.steps} {json.dumps(shown)}", flush=True)

    def _wait(self) -> None:
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize(self.trainer.device)

    def _set(self, steps: int) -> None:
        config: TrainConfig = self.trainer.config
        self.trainer.config = replace(config, optim=replace(config.optim, steps=steps))


if __name__ == "__main__":
    main()
