"""Several processes make one step together: that of the joined batch; and they stop together."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diveqcodec.errors import ConfigError
from diveqcodec.model import prior
from diveqcodec.model.layers import fast_dtype
from diveqcodec.train import loop
from diveqcodec.train.config import DataConfig
from diveqcodec.train.loop import Trainer
from diveqcodec.train.processes import Gradients, Processes, join
from diveqcodec.train.statistics import Interval
from tests.support.places import ROOT
from tests.support.tiny import tiny_config, training_pictures
from tests.support.training import few_blocks


def test_shares_are_the_batch_in_order() -> None:
    shares = [Processes(rank, 3).share(12) for rank in range(3)]
    assert [n for share in shares for n in share] == list(range(12))
    assert {len(share) for share in shares} == {4}
    with pytest.raises(ConfigError, match="data.batch: 4 crops cannot be shared by 3 processes"):
        Processes(0, 3).share(4)


def test_a_single_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join(torch.device("cpu")) == Processes()


def test_gradients_are_one_tensor() -> None:
    """In the layout of every parameter; clipped as torch does it; zero where nothing arrived."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 2, 3))
    model.append(torch.nn.Linear(5, 5)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    twin = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 2, 3))
    twin.append(torch.nn.Linear(5, 5))
    twin.load_state_dict(model.state_dict())
    twin[1].bias.requires_grad_(False)
    model[1].bias.requires_grad_(False)
    gradients = Gradients(model.parameters(), torch.float32)
    for _ in range(2):  # the second step does not remember the first
        gradients.clear()
        twin.zero_grad()
        for one in (model, twin):
            one[:2](torch.ones(1, 3, 8, 8)).square().sum().backward()
        assert gradients.average(Processes(), True, 7) == (True, 7)
        wanted = torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        torch.testing.assert_close(gradients.clip(0.5), wanted)
        for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            if theirs.grad is None:
                assert mine.grad is None or not bool(mine.grad.any())
            else:
                assert mine.grad is not None
                torch.testing.assert_close(mine.grad, theirs.grad)


class Twin(Processes):
    """One of two processes that have the same gradients, the other of which wants nothing."""

    def sum_(self, values: torch.Tensor) -> None:
        if values.is_floating_point():
            values.mul_(2)


@pytest.mark.parametrize("exchange", [torch.float32, torch.bfloat16])
def test_gradients_are_averaged_in_the_type_of_their_exchange(exchange: torch.dtype) -> None:
    """What the processes agree on is exact in any case."""
    weight = torch.nn.Parameter(torch.zeros(1000))
    gradients = Gradients([weight], exchange)
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    for wants in (False, True):
        (weight * values).sum().backward()
        agreed = gradients.average(Twin(0, 2), wants, 123_456_789)
        assert agreed == (wants, 123_456_789)
        assert weight.grad is not None
        assert torch.equal(weight.grad, values.to(exchange).float())
        gradients.clear()


def trainer_of(processes: Processes, folder: Path) -> Trainer:
    """Four crops a step, all decoded by the networks; float32, so that sums are comparable."""
    for module in (prior, loop):
        setattr(module, "fast_dtype", lambda _device: torch.float32)  # noqa: B010
    setattr(loop, "cosine_basis", few_blocks)  # noqa: B010
    torch.set_num_threads(1)
    optim = {"linear": 0.0, "networks_share": 1.0, "exchange": "float32"}
    config = tiny_config(8, optim=optim, quantizer={"gradient": "soft"})
    config = replace(config, data=DataConfig(crop=64, batch=4, validation=0))
    trainer = Trainer(config, training_pictures(), folder, processes)
    trainer.start()
    return trainer


def two_steps(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The averaged, clipped gradients of two steps, and what they made of the model."""
    found = {}
    for step in range(2):
        trainer.advance(Interval(trainer.model, trainer.device))
        for name, parameter in trainer.model.named_parameters():
            if parameter.grad is not None:
                found[f"gradient {step} {name}"] = parameter.grad.clone().contiguous()
    parameters = trainer.model.named_parameters()
    return found | {f"model {k}": v.detach().clone().contiguous() for k, v in parameters}


def worker(folder: Path) -> None:
    """What each of two processes does; run below as a program."""
    processes = join(torch.device("cpu"))
    trainer = trainer_of(processes, folder)
    save_file(two_steps(trainer), folder / f"rank-{processes.rank}.safetensors")
    trainer.run(stop=lambda: processes.rank == 1 and trainer.step >= 3)  # the one that is asked
    assert trainer.must_stop
    (folder / f"stopped-{processes.rank}").write_text(str(trainer.step))


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have been at work."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    code = (
        "from pathlib import Path\nfrom tests.train import test_processes\n"
        f"test_processes.worker(Path({str(folder)!r}))"
    )
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **shared, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        shown = [one.communicate(timeout=300)[1] for one in running]
    finally:
        for one in running:
            one.kill()
            one.communicate()
    assert [one.returncode for one in running] == [0, 0], "\n".join(shown)
    return folder


def test_two_processes_make_the_step_of_the_joined_batch(
    together: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (prior, loop):  # which `trainer_of` replaces
        monkeypatch.setattr(module, "fast_dtype", fast_dtype)
    whole = two_steps(trainer_of(Processes(), tmp_path))
    first, second = (load_file(together / f"rank-{rank}.safetensors") for rank in range(2))
    assert first.keys() == second.keys() == whole.keys()
    compared = 0
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        wanted = whole[name]
        kind, _, parameter = name.partition(" ")
        if kind == "model" and f"gradient 0 {parameter}" in whole:
            # Adam's steps are as long for gradients that are nothing but rounding errors.
            steps = [whole[f"gradient {step} {parameter}"].abs() > 1e-4 for step in range(2)]
            value, wanted = value[steps[0] & steps[1]], wanted[steps[0] & steps[1]]
            compared += len(value)
        torch.testing.assert_close(value, wanted, atol=1e-5, rtol=1e-4, msg=name)
    assert compared > 1000


def test_processes_stop_together(together: Path) -> None:
    """After the step in which one of them was asked to; the first one saves."""
    steps = [(together / f"stopped-{rank}").read_text() for rank in range(2)]
    assert steps == ["4", "4"]
    assert (together / "last.safetensors").exists()
    assert not list(together.glob("*.tmp"))
