"""A step of training never makes the host wait for a GPU: shown on a CPU, and on a GPU if any."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from diveqcodec.model import prior
from diveqcodec.model import quantizer as rate_aware
from diveqcodec.model.search import choose, choose_pair
from diveqcodec.train import data, loop, validation
from diveqcodec.train.statistics import Interval
from tests.support.tiny import TINY, tiny_config
from tests.support.training import Operations, draw_pictures


class Readings(TorchFunctionMode):
    """Names the methods that bring values of a tensor to the host."""

    METHODS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        name = getattr(func, "__name__", "")
        if name in self.METHODS and isinstance(args[0], torch.Tensor):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def trainer_on(
    folder: Path, device: torch.device, linear: float = 0.0, **model: Any
) -> loop.Trainer:
    pictures = data.load(draw_pictures(folder / "drawn"), 64, device)
    config = tiny_config(20, optim={"linear": linear}, quantizer={"refresh": 1000})
    trainer = loop.Trainer(replace(config, model=replace(TINY, **model)), pictures, folder)
    trainer.start()
    return trainer


@contextmanager
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The search looks at all residuals; nothing is checked at every step, as on a CPU."""
    with monkeypatch.context() as patch:
        for function in (choose, choose_pair, rate_aware._with_escape):
            whole = functools.partial(function, whole=True)
            patch.setattr(rate_aware, function.__name__, whole)
        patch.setattr(loop.Trainer, "_check_finite", lambda self: None)
        yield


@pytest.mark.parametrize("linear", [0.0, 1.0])
@pytest.mark.parametrize("optional", [0, 1, 2])
def test_no_operation_of_a_step_makes_the_host_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linear: float, optional: int
) -> None:
    """But for one of every optional slice: how many pictures code it decides about shapes."""
    trainer = trainer_on(tmp_path, torch.device("cpu"), linear, optional_slices=optional)
    interval = Interval(trainer.model, trainer.device)
    with as_on_cuda(monkeypatch):
        trainer.advance(interval)  # the optimizer makes its state in the first step
        with Operations() as operations, Readings() as readings:
            trainer.advance(interval)
    assert operations.count > 500
    assert operations.waits == ["nonzero"] * optional
    assert operations.made == 1  # the trade-offs, which `to_device` copies without waiting
    assert readings.seen == []


def test_the_look_at_operations_sees_those_that_wait() -> None:
    x = torch.arange(4.0)
    for wait in (
        lambda: x.sum().item(),
        lambda: x.nonzero(),
        lambda: x[x > 1],
        lambda: x.masked_select(x > 1),
        lambda: x.long().bincount(),
        lambda: torch.ones(3)[torch.tensor([True, False, True])].sum(),
    ):
        with Operations() as operations:
            wait()
        assert len(operations.waits) == 1
    with Readings() as readings:
        x.tolist()
        float(x[0])
        x.cpu()
    assert {"tolist", "cpu"} <= set(readings.seen)


def test_the_search_of_the_cpu_waits(tmp_path: Path) -> None:
    """It finds the few residuals that matter; so the test above would notice that branch."""
    trainer = trainer_on(tmp_path, torch.device("cpu"))
    with Operations() as operations:
        trainer.advance(Interval(trainer.model, trainer.device))
    assert "nonzero" in operations.waits


def test_both_branches_choose_nearly_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_on(tmp_path, torch.device("cpu"))
    x = data.batch(trainer.pictures, trainer.config.data, 0, 0)
    lam = torch.tensor([0.002, 0.05])
    with torch.no_grad():
        few = loop.forward(trainer.model, x, lam)
        with as_on_cuda(monkeypatch):
            whole = loop.forward(trainer.model, x, lam)
    torch.testing.assert_close(whole.bits, few.bits, rtol=0.01, atol=0)
    for one, other in zip(whole.slices, few.slices, strict=True):
        if not one.symbols:  # nobody codes this slice
            continue
        same = torch.cat(one.symbols) == torch.cat(other.symbols)
        assert float(same.float().mean()) > 0.98


@pytest.mark.gpu
@pytest.mark.parametrize("linear", [0.0, 1.0])
def test_a_step_on_a_gpu_does_not_wait(tmp_path: Path, linear: float) -> None:
    device = torch.device("cuda")
    trainer = trainer_on(tmp_path, device, linear, optional_slices=0)
    interval = Interval(trainer.model, device)
    trainer.advance(interval)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.advance(interval)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert interval.line()["loss"] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_networks_are_trained_in_the_dtype_that_is_fast_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """A processor without bfloat16 imitates it, nearly ten times as slowly as float32."""
    for module in (loop, validation, prior):
        monkeypatch.setattr(module, "fast_dtype", lambda _device: dtype)
    trainer = trainer_on(tmp_path, torch.device("cpu"))
    seen: set[torch.dtype] = set()
    net = trainer.model.prior.nets[1]
    for layer in (trainer.model.synthesis.tail, net.earlier):
        layer.register_forward_hook(lambda _module, _inputs, out: seen.add(out.dtype))
    trainer.advance(Interval(trainer.model, trainer.device))
    assert seen == {dtype}
