"""One scale of quality: its units are inverse pairs, its ends and bins are where they should be."""

import doctest
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from diveqcodec import quality
from diveqcodec.errors import ConfigError
from diveqcodec.model.config import ModelConfig
from diveqcodec.quality import (
    GAIN_STEPS,
    RATE,
    Scale,
    gain_index,
    lambda_of,
    log_gain_of,
    quality_of,
)

SCALES = [Scale(0.0006, 1.5, 80), Scale(0.0001, 0.1, 7), ModelConfig().scale]


def test_the_examples_of_its_docstrings() -> None:
    assert doctest.testmod(quality) == (0, 6)


@pytest.mark.parametrize("lam", [0.0001, 0.0067, 0.25, 1.5])
def test_trade_offs_and_gains_are_inverse(lam: float) -> None:
    assert lambda_of(log_gain_of(lam)) == pytest.approx(lam, rel=1e-12)
    # the error of a cell, 1 / 12 / gain^2, is worth 1 / RATE
    error = math.exp(-2 * log_gain_of(lam)) / 12
    assert lam * 255**2 * error == pytest.approx(1 / RATE)


def test_gain_of_a_trade_off() -> None:
    """The design's example: lambda .0067 gives a gain of 2.05."""
    assert math.exp(log_gain_of(0.0067)) == pytest.approx(2.05, abs=0.01)


def test_gain_indices_and_qualities_are_inverse() -> None:
    assert gain_index(1) == 0
    assert gain_index(100) == GAIN_STEPS == 65535
    steps = [gain_index(one) for one in range(1, 101)]
    assert steps == sorted(set(steps))
    for index in range(0, 65536, 251):
        assert gain_index(quality_of(index)) == index
    for one in (1, 1.5, 33.3, 50, 99.99, 100):
        assert quality_of(gain_index(one)) == pytest.approx(one, abs=99 / 65535 / 2)


def test_any_real_number_is_a_quality() -> None:
    for same in (Fraction(101, 2), np.float32(50.5)):
        assert gain_index(same) == gain_index(50.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="quality of so many digits: must be from 1 to 100"):
        gain_index(10**400)
    for wrong in (True, "50", None, 1 + 0j):
        with pytest.raises(ConfigError, match="must be a number"):
            gain_index(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [0, 0.99, 100.5, -3, math.nan, math.inf, Fraction(1, 2), 10**400])
def test_quality_out_of_range(wrong: float) -> None:
    with pytest.raises(ConfigError, match="quality .*: must be from 1 to 100"):
        gain_index(wrong)


@pytest.mark.parametrize("scale", SCALES)
def test_the_ends_of_a_scale_are_its_trade_offs(scale: Scale) -> None:
    assert lambda_of(scale.log_gain(0)) == pytest.approx(scale.lambda_min)
    assert lambda_of(scale.log_gain(GAIN_STEPS)) == pytest.approx(scale.lambda_max)
    assert scale.position(scale.low) == 0
    assert scale.position(scale.high) == pytest.approx(1)
    middle = math.sqrt(scale.lambda_min * scale.lambda_max)
    assert scale.position(log_gain_of(middle)) == pytest.approx(0.5)


@pytest.mark.parametrize("scale", SCALES)
def test_bins_are_as_wide_as_each_other_and_have_their_centres(scale: Scale) -> None:
    bins = [scale.bin(index) for index in range(GAIN_STEPS + 1)]
    assert bins[0] == 0
    assert bins[-1] == scale.bins - 1
    assert bins == sorted(bins)
    counts = torch.bincount(torch.tensor(bins))
    assert len(counts) == scale.bins
    assert int(counts.max() - counts.min()) <= 1
    half = (scale.high - scale.low) / scale.bins / 2
    for index in range(0, GAIN_STEPS + 1, 97):
        # an index is 2^-16 of the range or one part in 65535 of it
        away = abs(scale.log_gain(index) - scale.centre(float(scale.bin(index))))
        assert away <= half + (scale.high - scale.low) / 65535


@pytest.mark.parametrize("scale", SCALES)
def test_tensors_are_measured_as_numbers_are(scale: Scale) -> None:
    gains = torch.linspace(scale.low, scale.high, 9, dtype=torch.float64)
    assert scale.position(gains).tolist() == pytest.approx(
        [scale.position(g) for g in gains.tolist()]
    )
    numbers = torch.arange(5, dtype=torch.float64)
    assert scale.centre(numbers).tolist() == pytest.approx(
        [scale.centre(number) for number in numbers.tolist()]
    )
