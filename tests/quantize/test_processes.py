"""Quantizers that several processes train together, by torch's own DistributedDataParallel."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from diveqcodec.quantize import (
    NSVQ,
    STE,
    DiVeQ,
    Product,
    Projected,
    Quantised,
    Quantizer,
    Residual,
    SFDiVeQ,
    replace_unused,
)
from tests.support.quantizers import PLAIN, latents, made

NAMES = [*PLAIN, "product:ema", "residual:diveq", "residual:ste", "projected:fsq"]
# Of some only a part warms up, and one layer after another: the others wait without a gradient.
WARM = ["warm", "warm product", "warm residual", "warm mixture", "warm projected"]
STEPS, EMPTY = 6, (0, 3)  # in these steps the second process has no latents


def warm(name: str) -> Quantizer:
    torch.manual_seed(0)
    if name == "warm product":
        return Product([SFDiVeQ(8, 2, warmup=2), DiVeQ(8, 2)])
    if name == "warm residual":
        return Residual([SFDiVeQ(8, 4, warmup=2), SFDiVeQ(8, 4, warmup=2)])
    if name == "warm mixture":
        return Residual([STE(8, 4), SFDiVeQ(8, 4, warmup=2)])
    if name == "warm projected":
        return Projected(SFDiVeQ(8, 3, warmup=2), 4)
    return SFDiVeQ(8, 4, warmup=2)


class Net(nn.Module):
    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.quantizer = quantizer
        with torch.no_grad():
            self.encoder.weight.copy_(torch.eye(4))

    def forward(self, x: Tensor, generator: torch.Generator) -> Quantised:
        result: Quantised = self.quantizer(self.encoder(x), generator)
        return result


def train(quantizer: Quantizer, rank: int, *, is_warm: bool, are_broadcast: bool) -> None:
    net = DistributedDataParallel(Net(quantizer), broadcast_buffers=are_broadcast)
    g = torch.Generator().manual_seed(rank)
    if not is_warm:
        quantizer.initialise(latents(seed=rank + 1), g)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for step in range(STEPS):
        x = latents(60, seed=10 + 2 * step + rank)[: 0 if rank and step in EMPTY else 60]
        value, indices, loss = net(x, g)
        optimizer.zero_grad()
        ((value - x).square().sum() / 240 + loss).backward()
        optimizer.step()
        if isinstance(quantizer, DiVeQ | NSVQ) and step == 1:
            counts = torch.bincount(indices.flatten(), minlength=8)
            counts[rank] = counts[2 + rank] = 0  # each thinks that other codewords are dead
            replace_unused(quantizer.unit, counts, optimizer=optimizer, generator=g)
    assert not quantizer.is_warming_up


def train_one_of_two(rank: int, folder: str) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    finished = {}
    for name in NAMES:
        quantizer = made(name)
        train(quantizer, rank, is_warm=False, are_broadcast=False)
        finished[name] = quantizer.state_dict()
    for name in WARM:
        for are_broadcast in (False, True) if name == "warm" else (False,):
            quantizer = warm(name)
            train(quantizer, rank, is_warm=True, are_broadcast=are_broadcast)
            finished[f"{name}, {are_broadcast}"] = quantizer.state_dict()
    torch.save(finished, f"{folder}/{rank}.pt")
    distributed.barrier()
    os._exit(0)  # gloo now and then aborts while a group is torn down on a busy machine


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_end_with_equal_codebooks(tmp_path: Path) -> None:
    multiprocessing.spawn(  # type: ignore[attr-defined]
        train_one_of_two, args=(str(tmp_path),), nprocs=2
    )
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    own = {"seen", "recent", "filled"}  # a warm-up's latents are each process's own
    for name, state in first.items():
        for key, tensor in state.items():
            if key.rpartition(".")[2] not in own:
                assert tensor.equal(second[name][key]), f"{name}: {key}"
    # The moving average ran over both processes' latents.
    alone = made("ema")
    alone.initialise(latents(seed=1), torch.Generator().manual_seed(0))
    start: Tensor = alone.state_dict()["unit"].clone()
    assert not first["ema"]["unit"].equal(start)
    total = first["ema"]["counts"].sum().item()
    expected = 8.0
    for step in range(STEPS):
        expected = 0.99 * expected + 0.01 * (60 if step in EMPTY else 120)
    assert total == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", WARM)
def test_a_warm_up_leaves_every_gradient_none(name: str) -> None:
    quantizer = warm(name)  # zeros would be steps of Adam's, and decay the weights
    z = latents(60).requires_grad_()
    value = quantizer(z).value
    value.square().sum().backward()
    assert value.equal(z)
    assert z.grad is not None
    assert z.grad.equal(2 * z)
    assert all(parameter.grad is None for parameter in quantizer.parameters())
