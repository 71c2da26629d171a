"""A training run from the outside: its folder, where it starts, how it is stopped.

Knows nothing of what happens in a step (see `loop`), nor of the command line: who calls tells the
user how it ended.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import torch

from diveqcodec.errors import TrainingError
from diveqcodec.model import DvqModel, ModelConfig
from diveqcodec.train import data
from diveqcodec.train.config import TrainConfig, to_toml
from diveqcodec.train.loop import Progress, Trainer
from diveqcodec.train.statistics import Interval
from diveqcodec.weightfile import load_for_training, read_info

log = logging.getLogger(__name__)

_OURS = ("config.toml", "log.jsonl", "last.safetensors", "best.safetensors", "samples")


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended: `step` of `steps` done, `seconds` of all its sessions.

    `is_finished` is false if it was interrupted: `resume=True` goes on. `best` is the lowest
    validation loss so far, None before the first validation; `skipped` are "name: reason" lines.
    """

    folder: Path
    step: int
    steps: int
    seconds: float
    is_finished: bool
    best: float | None
    pictures: int
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would be: counts, and the seconds of the second of two steps."""

    config: TrainConfig
    parameters: int
    pictures: int
    held_out: int
    skipped: tuple[str, ...]
    seconds_per_step: float
    crops_per_second: float


def run(
    config: TrainConfig,
    dataset: Path,
    folder: Path,
    *,
    device: torch.device | None = None,
    resume: bool = False,
    force: bool = False,
    init: Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Train on the pictures below `dataset` in the run folder `folder`.

    SIGINT and SIGTERM (in the main thread) end the run after the step, with a checkpoint; a second
    one does what it did before.

    Args:
        config: all settings; when resuming, best those of `settings(resumed=folder)`.
        dataset: folder of pictures.
        folder: where everything is written; empty or missing unless `resume` or `force`.
        device: where to train, the CPU by default.
        resume: go on from `last.safetensors`.
        force: overwrite what an earlier run left in the folder.
        init: weights file to start from instead of principal components.
        progress: called with the step and every line of the log.

    Raises:
        TrainingError: folder, pictures or checkpoint are not usable, or training failed.
        ConfigError: the model differs from that of `init`.
        ModelError: `init` is not a weights file.
    """
    if resume and init is not None:
        raise TrainingError(f"{init}: a run is either resumed or started from weights, not both")
    _check_folder(folder, resume=resume, force=force)
    device = device or torch.device("cpu")
    start: tuple[DvqModel, list[str]] | None = None
    if init is not None:
        config, start = _weights(config, init)
    pictures = data.load(dataset, config.data.crop, device)
    trainer = Trainer(config, pictures, folder)
    if resume:
        trainer.resume(folder / "last.safetensors")
    elif start:
        trainer.start_from(*start)
    else:
        trainer.start()
    _open_folder(folder, trainer, resume=resume)
    with _interruptions() as interrupted:
        trainer.run(progress=progress, stop=interrupted.is_set)
    return Result(
        folder=folder,
        step=trainer.step,
        steps=trainer.config.optim.steps,
        seconds=trainer.seconds,
        is_finished=trainer.step >= trainer.config.optim.steps,
        best=trainer.info()["best"],
        pictures=len(pictures.names),
        skipped=tuple(pictures.skipped),
    )


def dry_run(
    config: TrainConfig,
    dataset: Path,
    *,
    device: torch.device | None = None,
    init: Path | None = None,
) -> DryRun:
    """Make two steps and write nothing.

    Raises:
        TrainingError, ConfigError, ModelError: as `run`.
    """
    device = device or torch.device("cpu")
    start: tuple[DvqModel, list[str]] | None = None
    if init is not None:
        config, start = _weights(config, init)
    pictures = data.load(dataset, config.data.crop, device)
    trainer = Trainer(config, pictures, Path())
    if start:
        trainer.start_from(*start)
    else:
        trainer.start()
    interval = Interval(trainer.model, device)
    trainer.advance(interval)
    interval.line()  # waits for the device
    started = time.monotonic()
    trainer.advance(interval)
    interval.line()
    seconds = time.monotonic() - started
    return DryRun(
        config=config,
        parameters=sum(p.numel() for p in trainer.model.parameters()),
        pictures=len(trainer.pictures.names),
        held_out=len(trainer.held_out.names),
        skipped=tuple(pictures.skipped),
        seconds_per_step=seconds,
        crops_per_second=config.data.batch / max(seconds, 1e-9),
    )


def _weights(config: TrainConfig, path: Path) -> tuple[TrainConfig, tuple[DvqModel, list[str]]]:
    """The configuration with the model of the weights file `path`, that model, and its history."""
    model, provenance = load_for_training(path)
    if config.model not in (ModelConfig(), model.config):
        raise TrainingError(
            f"{path}: its model differs from the configuration; leave model.* out of it"
        )
    history = [str(line) for line in provenance.get("history", [])]
    steps = provenance.get("steps", "unknown")
    history.append(f"{path.name}, model {read_info(path)['id']}, {steps} steps")
    return replace(config, model=model.config), (model, history)


def _check_folder(folder: Path, *, resume: bool, force: bool) -> None:
    """Before any work: is there something to resume, or would something be overwritten."""
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder}: is a file; name a folder for the run")
    if resume:
        if not (folder / "last.safetensors").exists():
            raise TrainingError(f"{folder}: has no last.safetensors to resume from")
    elif not force and folder.exists() and any(folder.iterdir()):
        raise TrainingError(
            f"{folder}: is not empty; go on with --resume, overwrite with -f, or name another"
        )


def _open_folder(folder: Path, trainer: Trainer, *, resume: bool) -> None:
    """Clear what is out of date, write the resolved configuration."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if resume:
            _cut_log(folder / "log.jsonl", trainer.step)
        else:
            for name in _OURS:
                path = folder / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        (folder / "config.toml").write_text(to_toml(trainer.config), "utf-8")
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error.strerror})") from error


def _cut_log(path: Path, step: int) -> None:
    """Leave out the lines of steps after the checkpoint, which will be made again."""
    if not path.exists():
        return
    kept = []
    for text in path.read_text("utf-8").splitlines():
        try:
            is_kept = json.loads(text)["step"] <= step
        except (ValueError, KeyError):
            is_kept = False  # cut short when the machine went down
        if is_kept:
            kept.append(text + "\n")
    path.write_text("".join(kept), "utf-8")


@contextmanager
def _interruptions() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second acts as before."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        log.info("%s: saving after this step", signal.Signals(number).name)
        event.set()
        restore()

    for number in signals:
        signal.signal(number, note)
    try:
        yield event
    finally:
        restore()
