"""The training loop: one readable page. A run's folder is filled here and opened in `runs`.

Which pictures a step sees is a function of (seed, step); everything else that a step depends on is
in the checkpoint, so that going on from one gives the same bits as never having stopped.

On CUDA a step waits for the device once for every optional slice, to know which pictures code it,
and for nothing else: what it finds out is added up there and read when a line is logged. Knows
nothing of signals or of the command line.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diveqcodec.config import to_dict
from diveqcodec.errors import TrainingError
from diveqcodec.exact.tensorfile import part
from diveqcodec.model.codebook import Codebook
from diveqcodec.model.dvq import DvqModel, Output
from diveqcodec.model.layers import fast_dtype
from diveqcodec.model.recorder import TrainingRules
from diveqcodec.quantize.replacement import replace_unused
from diveqcodec.train import checkpoint, data
from diveqcodec.train.basis import cosine_basis
from diveqcodec.train.config import TrainConfig
from diveqcodec.train.encoder import encoder_loss
from diveqcodec.train.loss import balanced, weighted_distortion
from diveqcodec.train.pace import Pace
from diveqcodec.train.processes import Gradients, Processes
from diveqcodec.train.schedule import (
    average_decay,
    decoded_by_networks,
    learning_rate,
    make_optimizer,
    schedule,
)
from diveqcodec.train.statistics import Interval
from diveqcodec.train.validation import Validation

log = logging.getLogger(__name__)

Progress = Callable[[int, dict[str, Any]], None]


class NotANumberError(TrainingError):
    """Loss or gradient is none. What to do about it depends on what has been written so far."""


class Trainer:
    """A run: model, optimizer, averaged weights, pictures and its folder.

    With several `processes` each has a trainer with the same pictures; the first one writes.
    """

    def __init__(
        self,
        config: TrainConfig,
        pictures: data.Pictures,
        folder: Path,
        processes: Processes | None = None,
    ) -> None:
        self.config, self.folder = config, folder
        self.processes = processes or Processes()
        self.share = self.processes.share(config.data.batch)
        self.device = pictures.tensors[0].device
        torch.manual_seed(config.seed)
        rules = TrainingRules(
            gradient=config.quantizer.gradient,
            assignment_rate=float(config.quantizer.assignment == "rate-aware"),
            mirror=config.optim.mirror,
        )
        self.dataset = pictures.summary()
        self.pictures, self.held_out = pictures.split(config.data.validation)
        if not self.held_out.names:
            log.warning(
                "no picture of %d is held out, so validation sees what is trained on; that takes "
                "10 pictures or more, and data.validation above 0",
                len(pictures.names),
            )
        model = DvqModel(config.model, rules)
        model.analysis.requires_grad_(config.optim.encoder_factor > 0)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.refresh()
        self.average = {k: v.detach().clone() for k, v in self.model.named_parameters()}
        self.optimizer = make_optimizer(self.model, config, self.processes)
        exchange = torch.bfloat16 if config.optim.exchange == "bfloat16" else torch.float32
        self.gradients = Gradients(self.model.parameters(), exchange)
        self.begin: Callable[[], None] | None = None  # called before the first thing is written
        self.must_stop = False  # because a process was asked to
        self.step = 0
        self.seconds = 0.0  # of all sessions of this run
        self.best = math.inf  # validation loss
        self.history: list[str] = []  # provenance: what this run was initialised from
        self.bad_step = torch.full((), -1, dtype=torch.int64, device=self.device)
        fine = self.model.quantizer.fine
        self.used = torch.zeros(fine.size + 1, dtype=torch.int64, device=self.device)

    def start(self) -> None:
        """Start from cosines on the colour axes of the pictures."""
        c = self.config.model
        start = cosine_basis(self.pictures, c.channels, c.group, self.config.seed)
        self.model.set_transform(start.mean, start.axes, start.order, start.sigma)
        self._restart_average()

    def start_from(self, model: DvqModel, history: list[str]) -> None:
        """Start from the weights of another run; `history` tells where they come from.

        They may lack networks before the analysis that this run's model has.
        """
        state = model.state_dict()
        if model.predistortion is None and self.model.predistortion is not None:
            self.model.start_predistortion(model.synthesis)
            state = self.model.state_dict() | state
        self.model.load_state_dict(state)
        self.model.refresh()
        self.history = list(history)
        self._restart_average()

    def run(
        self,
        *,
        progress: Progress | None = None,
        stop: Callable[[], bool] = bool,
        pace: Pace | None = None,
    ) -> None:
        """Train to the last step, or until `stop()`; checkpoints and logs on the way.

        `pace` adapts the number of steps. A checkpoint that cannot be written on the way is a
        warning; it is tried again later.

        Raises:
            NotANumberError: the loss is not one; the last checkpoint stays.
            TrainingError: the final checkpoint cannot be written.
        """
        validation = Validation(self.config, self.held_out, self.pictures)
        interval = Interval(self.model, self.device)
        session = saved = marked = time.monotonic()
        before = self.seconds
        while not self.must_stop and self.step < self.config.optim.steps:
            config = self.config
            steps = config.optim.steps
            if pace is not None:
                phase = decoded_by_networks(self.step, len(self.share), config)
                steps = pace.steps(self.step, steps, phase)
            self.advance(interval, stop(), steps)
            is_last = self.step >= self.config.optim.steps
            if not self.processes.is_first:
                continue
            if self.step % config.log.every == 0 or is_last:
                self._prepare_to_write()
                now = time.monotonic()
                speed = interval.steps * config.data.batch / max(now - marked, 1e-9)
                line = {"step": self.step} | interval.line()
                line["lr"] = config.optim.lr * schedule(self.step - 1, config)
                line["seconds"] = round(before + now - session, 1)
                line["crops_per_second"] = round(speed, 3)
                self._report(line, progress)
                marked = now
            if self.step % config.log.validate_every == 0 or is_last:
                pause = time.monotonic()
                self._prepare_to_write()
                self._report(self.validate(validation), progress)
                marked += time.monotonic() - pause
            self.seconds = before + time.monotonic() - session
            if time.monotonic() - saved > 60 * config.log.checkpoint_minutes:
                self._try_to_save("last")
                saved = time.monotonic()
        if self.processes.is_first:
            self.save()

    def advance(
        self, interval: Interval, wants_to_stop: bool = False, steps: int | None = None
    ) -> None:
        """Make one step of training and add what happened to `interval`.

        Args:
            interval: statistics.
            wants_to_stop: asks all processes to end the run after this step.
            steps: how many steps the run shall have, if that changes; the first process says it.

        Raises:
            NotANumberError: loss or gradient is none (on CUDA noticed later, by `run`).
        """
        config, model = self.config, self.model
        # What a step draws depends on its number alone, so that resuming needs no random state.
        torch.manual_seed(
            (config.seed << 32) + self.step * self.processes.count + self.processes.rank
        )
        x = data.batch(self.pictures, config.data, config.seed, self.step, self.share)
        low, high = config.model.lambda_min, config.model.lambda_max
        lam = data.lambdas(low, high, config.data, config.seed, self.step)
        lam = data.to_device(lam[self.share.start : self.share.stop], self.device)
        output = forward(model, x, lam, decoded_by_networks(self.step, len(x), config))
        bpp = output.bits / x[0, 0].numel()
        distortion = weighted_distortion(output.x_hat, x, lam, config.loss.distortion)
        loss = balanced(bpp + distortion, lam)
        self.gradients.clear()
        loss.backward()
        if output.latent is not output.analysed and output.latent.grad is not None:
            size = x[0, 0].numel(), config.model.group
            encoder_loss(output, output.latent.grad, lam, *size).backward()
        steps = steps or config.optim.steps
        self.must_stop, steps = self.gradients.average(self.processes, wants_to_stop, steps)
        norm = self.gradients.clip(config.optim.clip)
        is_bad = ~(norm.isfinite() & loss.detach().isfinite())
        is_first = is_bad & (self.bad_step < 0)
        self.bad_step.masked_fill_(is_first, self.step)
        if self.device.type == "cpu":
            self._check_finite()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(group["kind"], self.step, config)
        self.optimizer.step()
        interval.add(loss, output, x, norm)
        with torch.no_grad():
            decay = average_decay(self.step, config.optim.ema)
            parameters = list(model.parameters())
            torch._foreach_lerp_(list(self.average.values()), parameters, 1 - decay)
        self.step += 1
        if steps != config.optim.steps:
            self.config = replace(config, optim=replace(config.optim, steps=max(steps, self.step)))
        self._replace_codewords(output)
        if self.step % config.quantizer.refresh == 0:
            model.refresh()

    def save(self, name: str = "last") -> None:
        """Write `last.safetensors` or `best.safetensors` in the run folder.

        Raises:
            TrainingError: training has left the numbers, or the file cannot be written.
        """
        self._prepare_to_write()
        extra = {f"lists.{k}": v.built.words for k, v in self._layers().items()}
        extra["used"] = self.used
        path = self.folder / f"{name}.safetensors"
        checkpoint.save(path, self.model, self.average, self.optimizer, self.info(), extra)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same model.

        Raises:
            TrainingError: not a checkpoint, or of another model.
        """
        tensors, info = checkpoint.load(path)
        if info["config"].get("model") != to_dict(self.config.model):
            raise TrainingError(
                f"{path}: its model differs from the configuration; resume without changes"
            )
        try:
            checkpoint.restore(tensors, self.model, self.average, self.optimizer)
        except ValueError as error:
            raise TrainingError(f"{path}: damaged ({error}); start a new run") from error
        self.step, self.history = info["step"], list(info["history"])
        self.seconds = float(info.get("seconds", 0.0))
        self.best = float(info.get("best") or math.inf)
        if info.get("dataset", self.dataset) != self.dataset:
            log.warning("%s: was trained on other pictures; the run goes on with these", path)
        extra = part(tensors, "extra.")
        if "used" in extra:
            self.used.copy_(extra["used"])
        for name, layer in self._layers().items():
            words = extra.get(f"lists.{name}")  # what neighbour lists were made of
            layer.refresh(None if words is None else words.to(self.device))

    def info(self) -> dict[str, Any]:
        """What a checkpoint says of itself."""
        return {
            "step": self.step,
            "config": to_dict(self.config),
            "history": self.history,
            "dataset": self.dataset,
            "seconds": round(self.seconds, 1),
            "best": self.best if math.isfinite(self.best) else None,
        }

    def validate(self, validation: Validation | None = None) -> dict[str, Any]:
        """A line of the log: averaged weights on held-out crops; leaves the run as it was.

        Draws `samples/`, and keeps the run as `best` when its loss is the lowest so far.
        """
        validation = validation or Validation(self.config, self.held_out, self.pictures)
        with self.averaged():
            result = validation.measure(self.model)
        line = {"step": self.step, "validation": True} | result.line
        if self.config.log.samples:
            target = self.folder / "samples" / f"step-{self.step:07d}.png"
            try:
                result.draw(target)
            except OSError as error:
                log.warning("%s: samples not written (%s)", target, error)
        if result.loss < self.best:
            self.best = result.loss
            self._try_to_save("best")
        return line

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within this, the model has the averaged weights; random state and lists are kept."""
        mine = {k: v.detach().clone() for k, v in self.model.named_parameters()}
        lists = {name: layer.built for name, layer in self._layers().items()}
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            try:
                self._assign(self.average)
                self.model.refresh()
                yield
            finally:
                self._assign(mine)
                for name, layer in self._layers().items():
                    layer.built = lists[name]

    def _layers(self) -> dict[str, Codebook]:
        return self.model.layers()

    def _assign(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(values[name])

    def _restart_average(self) -> None:
        self.average = {k: v.detach().clone() for k, v in self.model.named_parameters()}

    def _replace_codewords(self, output: Output) -> None:
        """Under nearest assignment, revive codewords of the fine layer that nobody uses."""
        rules, fine = self.config.quantizer, self.model.quantizer.fine
        until = rules.replace_until * self.config.optim.steps
        if (
            not rules.replace
            or rules.assignment != "nearest"
            or fine.kind != "diveq"
            or self.step > until
        ):
            return
        for one in output.slices:
            for symbols in one.symbols:
                self.used.scatter_add_(0, symbols, torch.ones_like(symbols))
        if self.step % rules.replace == 0:
            self.processes.sum_(self.used)
            # without the null codeword, which is pinned, and the escape
            moved = replace_unused(fine.unit, self.used[1:-1], optimizer=self.optimizer.adamw)
            log.info("step %d: moved %d unused codewords", self.step, moved)
            self.used.zero_()
            fine.refresh()

    def _check_finite(self) -> None:
        bad = int(self.bad_step)
        if bad >= 0:
            raise NotANumberError(f"step {bad}: loss or gradient is not a number")

    def _prepare_to_write(self) -> None:
        """An earlier run in the folder is lost only now, for steps that came to something."""
        self._check_finite()
        if self.begin is not None:
            self.begin()
            self.begin = None

    def _try_to_save(self, name: str) -> None:
        self._prepare_to_write()
        try:
            self.save(name)
        except TrainingError as error:
            log.warning("%s; training goes on", error)

    def _report(self, line: dict[str, Any], progress: Progress | None) -> None:
        try:
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            log.warning("%s: log line not written (%s)", self.folder, error)
        if progress is not None:
            progress(self.step, line)


def forward(model: DvqModel, x: Tensor, lam: Tensor, whole: int | None = None) -> Output:
    """`DvqModel.forward`, its networks in bfloat16 if that is fast."""
    x = x.contiguous(memory_format=torch.channels_last)
    dtype = fast_dtype(x.device)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        output: Output = model(x, lam, whole)
    return output
