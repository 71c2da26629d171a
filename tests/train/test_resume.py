"""Going on from a checkpoint gives the same bits as never having stopped."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diveqcodec.errors import TrainingError
from diveqcodec.train import checkpoint, data
from diveqcodec.train.config import TrainConfig
from diveqcodec.train.loop import Trainer
from diveqcodec.train.statistics import Interval
from tests.support.tiny import IN_FOURS, TINY, tiny_config
from tests.support.training import draw_pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> data.Pictures:
    folder = draw_pictures(tmp_path_factory.mktemp("drawn"))
    return data.load(folder, 64, torch.device("cpu"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trainer(config: TrainConfig, pictures: data.Pictures, folder: Path) -> Trainer:
    folder.mkdir(exist_ok=True)
    return Trainer(config, pictures, folder)


def stop_at(one: Trainer, step: int) -> None:
    one.run(stop=lambda: one.step >= step - 1)  # asked within a step, it ends after it


def assert_same_checkpoint(first: Path, second: Path) -> None:
    one, other = load_file(first), load_file(second)
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


NEAREST = {"assignment": "nearest", "replace": 4, "replace_until": 1.0}


@pytest.mark.parametrize(
    ("model", "quantizer"),
    [
        ({}, {"gradient": "soft"}),
        ({}, {"gradient": "diveq"}),  # draws noise
        ({}, {"gradient": "diveq", **NEAREST}),  # and donors for codewords nobody uses
        ({"quantizer": "sf-diveq", **IN_FOURS}, {"gradient": "soft-diveq"}),
        ({"predistortion": True}, {"gradient": "diveq"}),
    ],
)
@pytest.mark.parametrize("encoder", [0.0, 0.1])  # what contexts see draws noise only with one
def test_resumed_run_is_the_same_bits(
    tmp_path: Path,
    pictures: data.Pictures,
    model: dict[str, Any],
    quantizer: dict[str, Any],
    encoder: float,
) -> None:
    """No random state is kept: three steps of noise after the checkpoint are the same ones."""
    optim = {"encoder_factor": encoder, "mirror": bool(model.get("predistortion"))}
    config = replace(tiny_config(6, optim, quantizer), model=replace(TINY, **model))
    stop = 3  # the neighbour lists are rebuilt after step 2 and after step 4
    whole = trainer(config, pictures, tmp_path / "whole")
    whole.run()

    part = trainer(config, pictures, tmp_path / "parts")
    stop_at(part, stop)
    assert part.step == stop
    torch.rand(17)  # another process, another random state
    rest = trainer(config, pictures, tmp_path / "parts")
    rest.resume(tmp_path / "parts" / "last.safetensors")
    assert rest.step == stop
    rest.run()
    assert_same_checkpoint(
        tmp_path / "whole" / "last.safetensors", tmp_path / "parts" / "last.safetensors"
    )


def test_validation_and_checkpoints_leave_training_alone(
    tmp_path: Path, pictures: data.Pictures
) -> None:
    quiet = tiny_config(4, quantizer={"gradient": "diveq"}, log={"validate_every": 4})
    busy = replace(quiet, log=replace(quiet.log, validate_every=1, checkpoint_minutes=0.0))
    results = []
    for name, config in (("quiet", quiet), ("busy", busy)):
        one = trainer(config, pictures, tmp_path / name)
        one.run()
        results.append(one)
    assert_same_checkpoint(
        tmp_path / "quiet" / "last.safetensors", tmp_path / "busy" / "last.safetensors"
    )
    for name in results[0].average:
        assert torch.equal(results[0].average[name], results[1].average[name])


@pytest.mark.parametrize("encoder", [0.0, 0.1])
def test_training_changes_every_kind_of_parameter(
    tmp_path: Path, pictures: data.Pictures, encoder: float
) -> None:
    """So that the tests above compare what has moved; but for an encoder that is to stay."""
    config = tiny_config(4, {"encoder_factor": encoder, "linear": 0.0})
    one = trainer(config, pictures, tmp_path / "run")
    one.start()
    before = {k: v.detach().clone() for k, v in one.model.named_parameters()}
    one.run()
    moved = set()
    for name, value in one.model.named_parameters():
        if not torch.equal(before[name], value):
            moved.add(one.model.kind_of(name))
            assert not torch.equal(before[name], one.average[name]), name
    every = {"analysis", "linear", "networks", "prior", "codebook", "table"}
    assert moved == (every if encoder else every - {"analysis"})


def test_steps_draw_the_noise_of_their_number(tmp_path: Path, pictures: data.Pictures) -> None:
    """Whatever was drawn before; another seed is another run."""
    config = tiny_config(2, quantizer={"gradient": "diveq"})
    made = []
    for seed, drawn in ((0, 0), (0, 99), (1, 0)):
        one = trainer(replace(config, seed=seed), pictures, tmp_path / "run")
        other = trainer(config, pictures, tmp_path / "run")
        one.model.load_state_dict(other.model.state_dict())
        one.model.refresh()
        torch.rand(drawn)
        one.advance(Interval(one.model, one.device))
        made.append(one.model.quantizer.fine.unit.detach().clone())
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_checkpoints_of_the_first_version_still_load(
    tmp_path: Path, pictures: data.Pictures
) -> None:
    one = trainer(tiny_config(2), pictures, tmp_path / "run")
    one.run()
    tensors, _ = checkpoint.load(tmp_path / "run" / "last.safetensors")
    assert any(name.startswith("extra.") for name in tensors)
    old = one.info()
    old = {key: old[key] for key in ("step", "config", "history")}
    path = tmp_path / "run" / "old.safetensors"
    checkpoint.save(path, one.model, one.average, one.optimizer, old)
    other = trainer(tiny_config(2), pictures, tmp_path / "run")
    other.resume(path)
    assert other.step == 2
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])


def test_a_checkpoint_before_the_first_step_is_one(tmp_path: Path, pictures: data.Pictures) -> None:
    one = trainer(tiny_config(2), pictures, tmp_path / "run")
    one.start()
    one.save()
    other = trainer(tiny_config(2), pictures, tmp_path / "run")
    other.resume(tmp_path / "run" / "last.safetensors")
    assert other.step == 0
    other.run()
    one.folder = tmp_path
    one.run()
    assert_same_checkpoint(tmp_path / "last.safetensors", tmp_path / "run" / "last.safetensors")


def test_a_stop_is_honoured_after_the_step_it_was_asked_in(
    tmp_path: Path, pictures: data.Pictures
) -> None:
    one = trainer(tiny_config(9), pictures, tmp_path / "run")
    one.run(stop=lambda: True)
    assert one.step == 1
    _, info = checkpoint.load(tmp_path / "run" / "last.safetensors")
    assert info["step"] == 1


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("optimizer.step.quantizer.fine.unit", "lacks step.quantizer.fine.unit"),
        ("optimizer.exp_avg_sq.quantizer.fine.unit", "lacks exp_avg_sq.quantizer.fine.unit"),
        ("average.quantizer.fine.unit", "lacks quantizer.fine.unit"),
        ("model.quantizer.fine.unit", "its tensors are those of another model"),
    ],
)
def test_a_checkpoint_that_lacks_a_tensor_is_one_line(
    tmp_path: Path, pictures: data.Pictures, missing: str, message: str
) -> None:
    one = trainer(tiny_config(1), pictures, tmp_path / "run")
    one.run()
    path = tmp_path / "run" / "last.safetensors"
    tensors = load_file(path)
    assert not [name for name in tensors if name.startswith("random")]
    del tensors[missing]
    save_file(tensors, path, metadata={"diveq": json.dumps(one.info())})
    with pytest.raises(TrainingError, match=rf"last.safetensors: damaged \(.*{message}") as caught:
        trainer(tiny_config(1), pictures, tmp_path / "run").resume(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_checkpoint_is_one_line(
    tmp_path: Path, pictures: data.Pictures, share: float
) -> None:
    one = trainer(tiny_config(1), pictures, tmp_path / "run")
    one.run()
    path = tmp_path / "run" / "last.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(TrainingError, match=r"last.safetensors: not a checkpoint") as caught:
        one.resume(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lost", ["step", "config", "history"])
def test_a_checkpoint_is_known_by_what_it_says_of_itself(
    tmp_path: Path, pictures: data.Pictures, lost: str
) -> None:
    one = trainer(tiny_config(1), pictures, tmp_path / "run")
    info = one.info()
    del info[lost]
    path = tmp_path / "run" / "other.safetensors"
    checkpoint.save(path, one.model, one.average, one.optimizer, info)
    with pytest.raises(TrainingError, match="not a checkpoint of `diveq train`"):
        one.resume(path)


def test_checkpoint_of_another_model_is_refused(tmp_path: Path, pictures: data.Pictures) -> None:
    one = trainer(tiny_config(1), pictures, tmp_path / "run")
    one.save()
    larger = replace(tiny_config(1), model=replace(TINY, width8=24))
    other = trainer(larger, pictures, tmp_path / "run")
    with pytest.raises(TrainingError, match="its model differs from the configuration"):
        other.resume(tmp_path / "run" / "last.safetensors")


def test_other_pictures_are_noticed(
    tmp_path: Path, pictures: data.Pictures, caplog: pytest.LogCaptureFixture
) -> None:
    one = trainer(tiny_config(1), pictures, tmp_path / "run")
    one.run()
    fewer = data.Pictures(pictures.names[:-1], pictures.tensors[:-1], [])
    other = trainer(tiny_config(2), fewer, tmp_path / "run")
    other.resume(tmp_path / "run" / "last.safetensors")
    assert "was trained on other pictures" in caplog.text


def test_averaged_weights_are_those_of_a_run_or_a_checkpoint(
    tmp_path: Path, pictures: data.Pictures
) -> None:
    one = trainer(tiny_config(2), pictures, tmp_path / "run")
    one.run()
    for place in (tmp_path / "run", tmp_path / "run" / "last.safetensors"):
        weights, info = checkpoint.load_average(place)
        assert info["step"] == 2
        assert weights.keys() == one.model.state_dict().keys()
        for name, value in one.average.items():
            assert torch.equal(weights[name], value)
        assert torch.equal(weights["synthesis.basis.order"], one.model.synthesis.basis.order)
    with pytest.raises(TrainingError, match="not a run; `diveq train` makes runs"):
        checkpoint.load_average(tmp_path)
