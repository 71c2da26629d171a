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
from tests.training import TINY, draw_pictures, tiny_config


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
    one.run(stop=lambda: one.step >= step)


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
        ({"quantizer": "sf-diveq", "group": 4, "slices": (2, 6)}, {"gradient": "soft-diveq"}),
    ],
)
def test_resumed_run_is_the_same_bits(
    tmp_path: Path,
    pictures: data.Pictures,
    model: dict[str, Any],
    quantizer: dict[str, Any],
) -> None:
    config = replace(tiny_config(6, quantizer=quantizer), model=replace(TINY, **model))
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


def test_training_changes_every_kind_of_parameter(tmp_path: Path, pictures: data.Pictures) -> None:
    """So that the tests above compare what has moved."""
    one = trainer(tiny_config(3), pictures, tmp_path / "run")
    before = {k: v.detach().clone() for k, v in one.model.named_parameters()}
    one.run()
    for name in ("quantizer.fine.unit", "quantizer.coarse.logits", "analysis.klt.weight"):
        assert not torch.equal(before[name], one.model.get_parameter(name)), name
        assert not torch.equal(before[name], one.average[name]), name


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
    """As Ctrl-C writes it while the first step is still to come."""
    one = trainer(tiny_config(2), pictures, tmp_path / "run")
    one.start()
    one.run(stop=lambda: True)
    other = trainer(tiny_config(2), pictures, tmp_path / "run")
    other.resume(tmp_path / "run" / "last.safetensors")
    assert other.step == 0
    other.run()
    one.folder = tmp_path
    one.run()
    assert_same_checkpoint(tmp_path / "last.safetensors", tmp_path / "run" / "last.safetensors")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("random.cpu", "lacks random.cpu"),
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


def test_a_run_on_the_cpu_leaves_the_random_state_of_cuda_alone(
    tmp_path: Path, pictures: data.Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*_: object) -> torch.Tensor:
        raise AssertionError("another device than that of the run")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", touched)
    one = trainer(tiny_config(1), pictures, tmp_path / "run")
    one.save()
    assert "random.cuda" not in load_file(tmp_path / "run" / "last.safetensors")


@pytest.mark.gpu
def test_the_random_state_of_the_device_is_resumed(tmp_path: Path, pictures: data.Pictures) -> None:
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    tensors = [picture.to(device) for picture in pictures.tensors]
    one = trainer(tiny_config(1), data.Pictures(pictures.names, tensors, []), tmp_path / "run")
    one.save()
    drawn = torch.rand(3, device=device)
    one.resume(tmp_path / "run" / "last.safetensors")
    assert torch.equal(torch.rand(3, device=device), drawn)


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


def test_weights_in_parts_come_together_again(tmp_path: Path, pictures: data.Pictures) -> None:
    one = trainer(tiny_config(2), pictures, tmp_path / "run")
    one.run()
    (tmp_path / "weights-1-of-2.safetensors").write_text("of an earlier run")
    weights = checkpoint.load_average(tmp_path / "run")
    paths = checkpoint.save_parts(tmp_path, *weights, limit=150_000)
    assert len(paths) > 1
    assert all(path.stat().st_size <= 150_000 for path in paths)
    merged, info = checkpoint.load_average(tmp_path)
    assert info["step"] == 2
    assert merged.keys() == one.model.state_dict().keys()
    for name, value in one.average.items():
        torch.testing.assert_close(merged[name], value, rtol=1e-3, atol=1e-6)
    assert torch.equal(merged["analysis.klt.weight"], one.average["analysis.klt.weight"])
    paths[0].unlink()
    with pytest.raises(TrainingError, match=f"{len(paths) - 1} of {len(paths)} parts"):
        checkpoint.load_average(tmp_path)
