"""Muon: updates are orthogonal whatever the shape, of the size of Adam's, and learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from diveqcodec.model.dvq import DvqModel
from diveqcodec.train.loop import Trainer
from diveqcodec.train.optimizer import Muon, Optimizers, orthogonal, update
from diveqcodec.train.processes import Processes
from diveqcodec.train.schedule import make_optimizer
from diveqcodec.train.statistics import Interval
from tests.support.tiny import TINY, tiny_config, training_pictures


@pytest.mark.parametrize("shape", [(4, 4), (8, 64), (64, 8), (1, 5), (5, 1), (1, 1)])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_singular_values_become_about_one(shape: tuple[int, int], size: float) -> None:
    """And singular vectors stay: U Vᵀ is never turned away from what it is made of."""
    torch.manual_seed(3)
    matrix = size * torch.randn(shape)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonal(matrix)
    assert result.shape == shape
    assert result.dtype == torch.float32
    along = (u.T @ result @ v.T).diagonal()
    strong = s > s[0] / 30
    assert along[strong].min() > 0.6
    assert along.max() < 1.3


def test_nothing_stays_nothing() -> None:
    """A kernel without a gradient does not move, and is not divided by zero."""
    assert not orthogonal(torch.zeros(3, 7)).any()
    assert not update(torch.zeros(4, 2, 3, 3)).any()


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (512, 4, 3, 3), (6, 40, 1, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_update_has_the_size_of_adams(
    shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    """0.2 in the mean square, in kernels of many rows too, whatever the layout of memory."""
    torch.manual_seed(5)
    direction = torch.randn(shape)
    result = update(direction.contiguous(memory_format=layout))
    assert result.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.2)
    assert torch.equal(result, update(direction))
    assert (result * direction).sum() > 0


def test_many_rows_are_made_orthogonal_in_parts() -> None:
    """Rows of one part are orthogonal to each other: two parts of 192 here."""
    torch.manual_seed(7)
    rows = update(torch.randn(384, 64, 3, 3)).flatten(1)
    rows = rows / (0.2 * 576**0.5)
    for part in rows.chunk(2):
        assert (part @ part.T - torch.eye(192)).abs().max() < 0.4
        assert torch.linalg.matrix_norm(part, 2) < 1.3
    assert torch.linalg.matrix_norm(rows, 2) > 1.3  # together they are not


def _learn(optimizer: Optimizers, kernel: Tensor, goal: Tensor, x: Tensor, rate: float) -> float:
    """The last of 200 losses of a 3x3 convolution that is to become another one."""
    loss = torch.zeros(())
    for step in range(200):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / 200)
        y = torch.nn.functional.conv2d(x, kernel)
        loss = (y - torch.nn.functional.conv2d(x, goal)).square().mean()
        (kernel.grad,) = torch.autograd.grad(loss, kernel)
        optimizer.step()
    return loss.item()


def test_directions_of_little_energy_are_learned_too() -> None:
    """Where inputs are of very different size, as after a transform: ahead of AdamW's best rate."""
    torch.manual_seed(11)
    mixing = torch.linalg.qr(torch.randn(8, 8)).Q * torch.logspace(0, -2, 8)
    x = torch.einsum("ij,bjhw->bihw", mixing, torch.randn(16, 8, 6, 6))
    goal = torch.randn(8, 8, 3, 3) / 8
    reached = {}
    for name in ("adamw", "muon"):
        losses = []
        for rate in (0.01, 0.03, 0.1, 0.3):
            kernel = torch.zeros_like(goal, requires_grad=True)
            groups = [{"params": [kernel], "lr": 0.0}]
            is_muon = name == "muon"
            adamw = torch.optim.AdamW(
                [{"params": []}] if is_muon else groups, betas=(0.9, 0.95), weight_decay=0.0
            )
            muon = Muon(groups if is_muon else [{"params": []}], 0.95, Processes())
            losses.append(_learn(Optimizers(adamw, muon), kernel, goal, x, rate))
        reached[name] = min(losses)
    assert reached["muon"] < reached["adamw"]


class Listener(Processes):
    """One of two processes, in which nothing arrives; `sent` is what it gave away."""

    sent: Tensor

    def sum_(self, values: Tensor) -> None:
        """Keep what was sent."""
        object.__setattr__(self, "sent", values.clone())


def test_processes_share_the_kernels_and_together_make_every_update() -> None:
    """The largest kernel does not wait for another; what is exchanged is rounded, not more."""
    torch.manual_seed(13)
    shapes = [(2, 3, 3, 3), (32, 16, 3, 3), (4, 4, 1, 1), (8, 8, 3, 3), (8, 8, 3, 3)]
    gradients = [torch.randn(shape) for shape in shapes]

    def step(processes: Processes) -> list[Tensor]:
        kernels = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
        for kernel, gradient in zip(kernels, gradients, strict=True):
            kernel.grad = gradient.clone()
        Muon([{"params": kernels, "lr": 1.0}], 0.95, processes).step()
        return [-kernel.detach() for kernel in kernels]

    alone = step(Processes())
    halves = [Listener(rank, 2) for rank in range(2)]
    shares = [step(half) for half in halves]
    for whole, first, second in zip(alone, *shares, strict=True):
        assert first.any() != second.any()  # one of them made it
        torch.testing.assert_close(first + second, whole.bfloat16().float())
    assert shares[0][1].any()
    assert not any(share.any() for share in shares[0][3:])
    assert all(half.sent.dtype == torch.bfloat16 for half in halves)


@pytest.mark.parametrize("kernels", ["muon", "adamw"])
def test_kernels_of_networks_of_pixels_are_whose_the_configuration_says(
    kernels: Literal["muon", "adamw"],
) -> None:
    """And no other parameter is Muon's, whatever its shape."""
    config = tiny_config(optim={"kernels": kernels}, model=replace(TINY, predistortion=True))
    model = DvqModel(config.model)
    made = make_optimizer(model, config)
    of_muon = {id(p) for group in made.muon.param_groups for p in group["params"]}
    wanted = {
        id(p)
        for name, p in model.named_parameters()
        if model.kind_of(name) in ("networks", "predistortion") and p.ndim == 4
    }
    assert wanted
    assert of_muon == (wanted if kernels == "muon" else set())


def test_a_run_goes_on_with_the_other_optimizer(tmp_path: Path) -> None:
    """Moments of kernels start anew then, those of everything else do not."""
    trainers: list[Trainer] = []
    for kernels in ("adamw", "muon", "adamw"):
        config = tiny_config(8, optim={"kernels": kernels, "linear": 0.0})
        trainer = Trainer(config, training_pictures(), tmp_path)
        if trainers:
            trainer.resume(tmp_path / "last.safetensors")
        else:
            trainer.start()
        kept = trainer.optimizer.state_of(trainer.model.synthesis.tail.weight)
        bias = trainer.optimizer.state_of(trainer.model.synthesis.tail.bias)
        assert not kept
        assert bool(bias) == bool(trainers)
        trainer.advance(Interval(trainer.model, trainer.device))
        trainer.save()
        trainers.append(trainer)
    assert trainers[-1].step == 3
