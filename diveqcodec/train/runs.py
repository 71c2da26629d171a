"""A training run from the outside: where it starts, how it is stopped.

Knows nothing of what happens in a step (see `loop`) or of what is in its folder (see `runfolder`),
nor of the command line: who calls tells the user how it ended.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType

import torch

from diveqcodec.errors import ConfigError, TrainingError
from diveqcodec.exact.metadata import read_info
from diveqcodec.exact.tensorfile import load_for_training
from diveqcodec.model.config import ModelConfig
from diveqcodec.model.dvq import DvqModel
from diveqcodec.train import data, runfolder
from diveqcodec.train.config import TrainConfig
from diveqcodec.train.loop import NotANumberError, Progress, Trainer
from diveqcodec.train.pace import Pace
from diveqcodec.train.processes import Processes, join
from diveqcodec.train.statistics import Interval

log = logging.getLogger(__name__)

_LONGEST = 1e6  # hours: a century

Start = tuple[DvqModel, list[str]]  # a model to go on from, and the history of its weights


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
    """What a run would be: counts, memory of the pictures, and the mean of its steps' seconds."""

    config: TrainConfig
    parameters: int
    pictures: int
    held_out: int
    skipped: tuple[str, ...]
    megabytes: float
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
    hours: float | None = None,
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
        force: overwrite what an earlier run left in the folder, and nothing else, as soon as there
            is something to write.
        init: weights file to start from instead of cosines. All of its networks are
            trained from the first step on.
        progress: called with the step and every line of the log.
        hours: how long this session shall take: the number of steps is adapted to it, so that the
            learning rate has come down when the time is up.

    Raises:
        TrainingError: folder, pictures or checkpoint are not usable, another training is writing
            into the folder, or this one failed.
        ConfigError: the model differs from that of `init`, or nothing can take so many hours.
        ModelError: `init` is not a weights file.
    """
    if resume and init is not None:
        raise TrainingError(f"{init}: a run is either resumed or started from weights, not both")
    if hours is not None and not 0 < hours <= _LONGEST:
        raise ConfigError(f"hours: {hours:g} is not above 0, and {_LONGEST:g} at most")
    processes = join(device or torch.device("cpu"))
    with ExitStack() as stack:
        if processes.is_first:
            stack.enter_context(runfolder.held(folder, resume=resume, force=force))
        config, start = _weights(config, init)
        trainer, pictures = _prepare(config, dataset, folder, device, processes)
        if resume:
            _resume(trainer, folder, hours)
        else:
            _start(trainer, start)
        step = trainer.step if resume else None
        trainer.begin = partial(runfolder.begin, folder, trainer.config, step, force=force)
        pace = None if hours is None else Pace(3600 * hours, config.log.validate_every)
        try:
            with _interruptions() as interrupted:
                trainer.run(progress=progress, stop=interrupted.is_set, pace=pace)
        except NotANumberError as error:
            raise TrainingError(f"{error}; {_remedy(trainer, resume, force)}") from error
        if processes.is_first:
            runfolder.write_config(folder, trainer.config)  # with the steps that the pace found
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
    """Time steps of each phase and write nothing.

    Raises:
        TrainingError, ConfigError, ModelError: as `run`.
    """
    config, start = _weights(config, init)
    trainer, pictures = _prepare(config, dataset, Path(), device)
    _start(trainer, start)
    resting = config.optim.linear  # share of the steps in which the networks rest
    seconds = 0.0
    if resting > 0:
        seconds += resting * _seconds_of_step(trainer, 0)
    if resting < 1:
        seconds += (1 - resting) * _seconds_of_step(trainer, config.optim.steps)
    return DryRun(
        config=config,
        parameters=sum(p.numel() for p in trainer.model.parameters()),
        pictures=len(trainer.pictures.names),
        held_out=len(trainer.held_out.names),
        skipped=tuple(pictures.skipped),
        megabytes=pictures.megabytes,
        seconds_per_step=seconds,
        crops_per_second=config.data.batch / max(seconds, 1e-9),
    )


def _prepare(
    config: TrainConfig,
    dataset: Path,
    folder: Path,
    device: torch.device | None,
    processes: Processes | None = None,
) -> tuple[Trainer, data.Pictures]:
    """A trainer, and the pictures it was given."""
    device = device or torch.device("cpu")
    size, long_side, smallest = config.data.crop, config.data.long_side, config.smallest_crop
    pictures = data.load(dataset, size, device, long_side, smallest=smallest)
    trainer = Trainer(config, pictures, folder, processes)
    log.info(
        "%d pictures to train on, %d held out, %d left out; %.0f MB in memory",
        len(trainer.pictures.names),
        len(trainer.held_out.names),
        len(pictures.skipped),
        pictures.megabytes,
    )
    return trainer, pictures


def _remedy(trainer: Trainer, resume: bool, force: bool) -> str:
    """What to do when training has left the numbers."""
    smaller = f"--set optim.lr={trainer.config.optim.lr / 2:g}"
    has_begun = trainer.begin is None
    if resume or (has_begun and (trainer.folder / "last.safetensors").exists()):
        return f"{trainer.folder} keeps the last good checkpoint: go on with --resume {smaller}"
    if has_begun:
        return f"there is no checkpoint yet: start again with -f {smaller}"
    return f"nothing was written: start again with {'-f ' if force else ''}{smaller}"


def _start(trainer: Trainer, start: Start | None) -> None:
    """Put the weights in place that a run begins with."""
    if start is None:
        trainer.start()
    else:
        trainer.start_from(*start)


def _resume(trainer: Trainer, folder: Path, hours: float | None) -> None:
    """Go on from the last checkpoint; a session of so many `hours` makes steps of its own."""
    trainer.resume(folder / "last.safetensors")
    optim = trainer.config.optim
    if hours is not None:
        # A timed run that was killed has made more steps than its configuration says.
        steps = max(optim.steps, trainer.step + 1)
        trainer.config = replace(trainer.config, optim=replace(optim, steps=steps))
    elif optim.steps < trainer.step:
        raise TrainingError(
            f"{folder}: is at step {trainer.step} already, of {optim.steps}; "
            "give more in all with --steps, or --hours"
        )


def _seconds_of_step(trainer: Trainer, step: int) -> float:
    """How long the second of two steps takes that are made as the ones at `step` are."""
    interval = Interval(trainer.model, trainer.device)
    trainer.step = step
    trainer.advance(interval)
    interval.line()  # waits for the device
    trainer.step = step
    started = time.monotonic()
    trainer.advance(interval)
    interval.line()
    return time.monotonic() - started


def _weights(config: TrainConfig, path: Path | None) -> tuple[TrainConfig, Start | None]:
    """The configuration for going on from the weights file `path`, if any, and what is in it.

    The networks must not rest: that is how a model starts from nothing, and would undo what this
    one has learned.
    """
    if path is None:
        return config, None
    model, provenance = load_for_training(path)
    shapes = ModelConfig(), model.config
    more = tuple(replace(shape, predistortion=True) for shape in shapes)
    if config.model not in shapes + more:
        raise TrainingError(
            f"{path}: its model differs from the configuration; leave model.* out of it, "
            "but for model.predistortion"
        )
    history = [str(line) for line in provenance.get("history", [])]
    steps = provenance.get("steps", "unknown")
    history.append(f"{path.name}, model {read_info(path)['id']}, {steps} steps")
    optim = replace(config.optim, linear=0.0)
    shape = more[1] if config.model.predistortion else model.config
    return replace(config, model=shape, optim=optim), (model, history)


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
