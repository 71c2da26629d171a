"""Drawn crops: a function of their numbers, of every kind, and a share of the crops of a step."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diveqcodec.container import drawnparts
from diveqcodec.errors import ConfigError
from diveqcodec.train import data
from diveqcodec.train.config import DataConfig, TrainConfig
from diveqcodec.train.drawings import Pixels, drawn_crop
from tests.support.tiny import drawn, training_pictures


def crops(count: int, side: int = 128) -> list[Pixels]:
    ground = drawn(side, side, seed=1)
    return [drawn_crop(ground, np.random.default_rng((7, n))) for n in range(count)]


@pytest.mark.parametrize("side", [64, 80, 256])
def test_a_crop_is_a_function_of_its_numbers(side: int) -> None:
    first, second = crops(6, side), crops(6, side)
    for one, other in zip(first, second, strict=True):
        assert one.shape == (side, side, 3)
        assert one.dtype == np.uint8
        assert np.array_equal(one, other)
    assert len({one.tobytes() for one in first}) == 6


def test_crops_are_of_every_kind() -> None:
    """Clean and passed on, on one colour and on a photograph, light and dark."""
    found = crops(60)
    equal = np.array([(one[:, 1:] == one[:, :-1]).all(axis=2).mean() for one in found])
    assert (equal > 0.8).any()
    assert (equal < 0.4).any()
    clean = [bool(drawnparts.find(one)) for one in found]
    assert 5 < sum(clean) < 55
    means = np.array([one.mean() for one in found])
    assert means.min() < 60
    assert means.max() > 200


def test_a_share_of_the_crops_is_drawn() -> None:
    pictures, config = training_pictures(), DataConfig(crop=64, batch=40, min_scale=1.0)
    plain = data.batch(pictures, config, seed=3, step=5)
    assert torch.equal(plain, data.batch(pictures, replace(config, drawn=0.0), 3, 5))
    some = data.batch(pictures, replace(config, drawn=0.25), seed=3, step=5)
    changed = (some != plain).flatten(1).any(1)
    assert 4 <= int(changed.sum()) <= 18
    assert bool((data.batch(pictures, replace(config, drawn=1.0), 3, 5) != plain).any())
    # Who takes a crop does not matter.
    part = data.batch(pictures, replace(config, drawn=0.25), 3, 5, range(10, 20))
    assert torch.equal(part, some[10:20])
    assert float(some.min()) >= 0
    assert float(some.max()) <= 1


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(ConfigError, match=r"data.drawn: -?[01].1 is not in \[0, 1\]"):
        TrainConfig(data=DataConfig(drawn=share))
