"""Weights files: what is stored comes back, the id covers what matters, damage is named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from diveqcodec.codec import Codec
from diveqcodec.errors import ModelError
from diveqcodec.exact import weights
from diveqcodec.model.candidates import GRID
from diveqcodec.model.dvq import DvqModel, pad_to
from tests.support.coders import rewritten as written_again
from tests.support.tiny import IN_FOURS, TINY, drawn, picture_of, trained


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[DvqModel, Path, bytes]:
    model, _ = trained(TINY, 2)
    path = tmp_path_factory.mktemp("weights") / "fresh.safetensors"
    return model, path, weights.save(model, path, {"steps": 2})


def rewritten(path: Path, target: Path, change) -> Path:
    """A copy whose tensors and metadata were changed by `change(tensors, info)`."""
    tensors, info = load_file(path), weights.read_info(path)
    change(tensors, info)
    save_file(tensors, target, metadata={"diveq": json.dumps(info)})
    return target


def test_a_saved_model_loads(saved) -> None:
    _, path, model_id = saved
    loaded = weights.load(path)
    assert loaded.model_id == model_id
    assert loaded.name == "fresh"
    assert loaded.config == TINY
    assert loaded.provenance == {"steps": 2}
    info = weights.read_info(path)
    assert info["id"] == model_id.hex()


def test_training_goes_on_from_what_was_saved(saved) -> None:
    model, path, model_id = saved
    again, provenance = weights.load_for_training(path)
    assert provenance == {"steps": 2}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, atol=2e-3, rtol=2e-3)
    # The float16 of large tensors is all that was lost: saved again, the networks are the same.
    second = path.with_name("again.safetensors")
    weights.save(again, second, {})
    first = load_file(path)
    for name, value in load_file(second).items():
        if name.startswith("networks."):
            assert torch.equal(value, first[name]), name


@pytest.mark.parametrize("name", ["fine.basis", "coarse.codewords"])
def test_points_far_out_are_refused(saved, tmp_path: Path, name: str) -> None:
    _, path, _ = saved

    def change(tensors, info) -> None:
        tensors[f"exact.{name}"][-1] = 1 << 21
        info["id"] = weights.identify(tensors, info["config"]).hex()

    spoiled = rewritten(path, tmp_path / "far.safetensors", change)
    with pytest.raises(ModelError, match="too far out"):
        weights.load(spoiled)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("exact.fine.frequencies", lambda v: v[:5], "fine.frequencies is torch.int32"),
        ("exact.fine.frequencies", lambda v: v.double(), "fine.frequencies is torch.float64"),
        ("exact.fine.codewords", lambda v: v.double() + 0.5, "fine.codewords is torch.float64"),
        ("exact.fine.codewords", lambda v: v + 1, "the first codeword of fine is not zero"),
        ("exact.coarse.codewords", lambda v: v[0, 0], "coarse.codewords is torch.int32"),
        ("exact.coarse.basis", lambda v: v[:1], "coarse.basis is torch.int32"),
        ("exact.coarse.basis", lambda v: v * 0, "coarse.basis spans no lattice"),
        ("exact.prior.0.hidden.weight", lambda v: v / 64, "hidden.weight is torch.float32"),
        ("exact.prior.unit", lambda v: v * float("nan"), "unit is torch.float32"),
        ("exact.prior.0.pre.shift", lambda v: v.long() - 2000, "pre.shift is torch.int64"),
        ("networks.sigma", lambda v: v * float("nan"), "sigma is not finite"),
        ("networks.synthesis.basis.order", lambda v: v + 768, "basis.order does not name"),
        ("networks.synthesis.basis.order", lambda v: v * 0, "basis.order does not name"),
        ("networks.sigma", lambda v: v[:3], "size mismatch for sigma"),
    ],
)
def test_numbers_that_are_not_those_of_the_format_are_refused(
    saved, tmp_path: Path, name: str, change, message: str
) -> None:
    _, path, _ = saved

    def spoil(tensors, info) -> None:
        tensors[name] = change(tensors[name]).contiguous()
        info["id"] = weights.identify(tensors, info["config"]).hex()

    spoiled = rewritten(path, tmp_path / "odd.safetensors", spoil)
    with pytest.raises(ModelError, match=message) as caught:
        weights.load(spoiled)
    assert str(caught.value).startswith(f"{spoiled}: weights do not fit their configuration")
    assert "\n" not in str(caught.value)


def test_escapes_are_searched_on_the_lattice_of_the_file(saved, tmp_path: Path) -> None:
    _, path, _ = saved

    def double(tensors, info) -> None:
        tensors["exact.fine.basis"] *= 2
        info["id"] = weights.identify(tensors, info["config"]).hex()

    layer = weights.load(rewritten(path, tmp_path / "other.safetensors", double)).fine
    point, coordinates, _ = layer.search.escape_point(torch.randn(50, 2) * 40)
    grid = torch.round(point * GRID).long()
    assert torch.equal(grid, coordinates.long() @ layer.basis)


def test_the_id_covers_networks_and_exact_numbers_only(saved, tmp_path: Path) -> None:
    _, path, model_id = saved

    def without_training(tensors, info) -> None:
        for name in [n for n in tensors if n.startswith("training.")]:
            del tensors[name]
        info["provenance"] = {"moved": True}

    stripped = rewritten(path, tmp_path / "other name.safetensors", without_training)
    assert weights.load(stripped).model_id == model_id
    tensors, info = load_file(path), weights.read_info(path)
    assert weights.identify(tensors, info["config"]) == model_id
    for name in [n for n in tensors if not n.startswith("training.")]:
        changed = dict(tensors)
        flipped = tensors[name].flatten().view(torch.uint8).clone()
        flipped[-1] ^= 1
        changed[name] = flipped.view(tensors[name].dtype).view(tensors[name].shape)
        assert weights.identify(changed, info["config"]) != model_id, name
    assert weights.identify(tensors, {**info["config"], "blocks4": 7}) != model_id


def test_damage_is_named(saved, tmp_path: Path) -> None:
    _, path, _ = saved
    target = tmp_path / "x.safetensors"

    def flip(tensors, info) -> None:
        tensors["exact.fine.codewords"][3, 1] += 1

    with pytest.raises(ModelError, match="x.safetensors: damaged: its tensors do not match"):
        weights.load(rewritten(path, target, flip))

    def newer(tensors, info) -> None:
        info["version"] = 9

    with pytest.raises(ModelError, match="weights of version 9; this program reads 1"):
        weights.load(rewritten(path, target, newer))

    def odd(tensors, info) -> None:
        info["config"]["blocksz"] = 1

    with pytest.raises(ModelError, match="did you mean blocks"):
        weights.load(rewritten(path, target, odd))
    target.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match="x.safetensors: not a weights file"):
        weights.load(target)
    save_file({"a": torch.zeros(1)}, target)
    with pytest.raises(ModelError, match="not weights of diveq; `diveq export` makes them"):
        weights.load(target)
    with pytest.raises(ModelError, match="nowhere.safetensors: no such file"):
        weights.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(ModelError, match="weights not written"):
        weights.save(saved[0], tmp_path / "no" / "folder.safetensors", {})


@pytest.mark.parametrize(
    "name", ["exact.coarse.codewords", "exact.fine.basis", "exact.prior.unit", "networks.sigma"]
)
def test_missing_tensors_are_refused_even_with_a_fitting_id(saved, tmp_path: Path, name) -> None:
    _, path, _ = saved

    def drop(tensors, info) -> None:
        del tensors[name]
        info["id"] = weights.identify(tensors, info["config"]).hex()

    with pytest.raises(ModelError):
        weights.load(rewritten(path, tmp_path / "x.safetensors", drop))


def test_two_loads_write_the_same_bytes(saved) -> None:
    _, path, _ = saved
    picture = picture_of(drawn(50, 60, 1))
    first, second = (Codec(weights.load(path)) for _ in range(2))
    assert first.compress(picture, 50) == second.compress(picture, 50)


@pytest.mark.parametrize(
    "changes",
    [
        {"optional_slices": 0},
        {"optional_slices": 2, "window_slices": 0},
        {"window_slices": 9, "pyramid_slices": 3, "pyramid_levels": 1},
        {"coarse_slices": 0, "pyramid_slices": 0},
        {"coarse_slices": 3, "quantizer": "sf-diveq"},
        {**IN_FOURS},
        {**IN_FOURS, "optional_slices": 0, "coarse_slices": 0},
    ],
)
def test_other_structures_code_and_decode(tmp_path: Path, changes: dict[str, Any]) -> None:
    model, _ = trained(replace(TINY, **changes), 2)
    path = tmp_path / "model.safetensors"
    weights.save(model, path, {})
    codec = Codec(weights.load(path), networks=torch.float32)
    assert codec.model.config == replace(TINY, **changes)
    pixels = drawn(49, 70, 3)
    lengths = []
    for quality in (1, 50, 95):
        data = codec.compress(picture_of(pixels), quality, lossless="never")
        assert written_again(codec, data) == data
        restored = codec.decompress(data).pixels
        error = float(np.square(restored.astype(float) - pixels).mean())
        lengths.append((len(data), -error))
    assert lengths == sorted(lengths)
    x = pad_to(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255, 16)
    transforms, gain = codec.model.transforms, torch.zeros(1)
    best = transforms.decode_linear(transforms.encode_latent(x, gain), gain)  # nothing quantized
    lost = float((best - x)[..., :49, :70].square().mean()) * 255**2
    assert -lengths[-1][1] < lost + 10
