"""The model assembled: every quantizer and gradient trains, sizes are checked, shapes fit."""

import dataclasses
import math
from typing import get_args

import pytest
import torch

from diveqcodec.config import from_dict, to_dict
from diveqcodec.errors import ConfigError
from diveqcodec.model import DvqModel, ModelConfig, TrainingRules, pad_to
from diveqcodec.quantize.rate_aware import Gradient
from diveqcodec.quantize.tables import Kind
from tests.tiny import TINY, loss_of, trained, training_pictures

VARIANTS: list[tuple[Kind, int, Gradient]] = [
    ("diveq", 2, "soft"),
    ("sf-diveq", 2, "diveq"),
    ("diveq", 4, "soft-diveq"),
]


def variant(kind: Kind, group: int) -> ModelConfig:
    slices = (2, 6) if group == 2 else (1, 3)
    return dataclasses.replace(TINY, quantizer=kind, group=group, slices=slices)


def check_training(kind: Kind, group: int, rules: TrainingRules) -> None:
    """In 24 steps the loss at a fixed trade-off falls by more than 1.5 %, by table look-up only.

    It starts from principal components and lattice tables, hence not far from where it can get.
    """
    x = torch.stack(training_pictures()[:4]).float() / 255
    lam = torch.full((4,), 0.0067)
    losses = []
    for steps in (0, 24):
        model, _ = trained(variant(kind, group), steps, rules, lam=0.0067)
        model.eval()
        with torch.no_grad():
            losses.append(float(loss_of(model, x, lam)))
    assert losses[1] < 0.985 * losses[0]
    untrained = DvqModel(variant(kind, group))
    moved = model.quantizer.fine.unit - untrained.quantizer.fine.unit
    assert float(moved.detach().abs().max()) > 1e-3  # codebooks learn


@pytest.mark.parametrize(("kind", "group", "gradient"), VARIANTS)
def test_variants_train(kind: Kind, group: int, gradient: Gradient) -> None:
    check_training(kind, group, TrainingRules(gradient=gradient))


@pytest.mark.slow
@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("group", [2, 4])
@pytest.mark.parametrize("gradient", get_args(Gradient))
def test_every_variant_trains(kind: Kind, group: int, gradient: Gradient) -> None:
    check_training(kind, group, TrainingRules(gradient=gradient))


@pytest.mark.slow
def test_nearest_assignment_trains() -> None:
    check_training("diveq", 2, TrainingRules(gradient="diveq", assignment_rate=0.0))


def test_forward_counts_bits_of_every_picture() -> None:
    model, _ = trained(TINY, 2)
    x = torch.rand(3, 3, 64, 128)
    x[1] = 0.5  # a flat picture costs little
    output = model(x, torch.full((3,), 0.02))
    assert output.x_hat.shape == x.shape
    assert output.latent_bits.shape == output.hyper_bits.shape == (3,)
    assert len(output.slices) == 2
    per_slice = [torch.cat(s.bits) for s in output.slices]
    assert [len(bits) for bits in per_slice] == [3 * 32 * groups for groups in TINY.slices]
    total = float(sum(bits.sum() for bits in per_slice))
    assert total == pytest.approx(float(output.latent_bits.detach().sum()), rel=1e-4)
    bits = output.latent_bits.detach()
    assert float(bits[1]) < 0.95 * min(float(bits[0]), float(bits[2]))


def test_pictures_of_a_batch_do_not_mix() -> None:
    model, _ = trained(TINY, 2)
    model.eval()
    x, lam = torch.rand(2, 3, 64, 64), torch.tensor([0.002, 0.1])
    with torch.no_grad():
        together = model(x, lam)
        for i in range(2):
            alone = model(x[i : i + 1], lam[i : i + 1])
            torch.testing.assert_close(alone.x_hat[0], together.x_hat[i], atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(
                alone.latent_bits[0], together.latent_bits[i], atol=0.5, rtol=1e-3
            )


def test_every_parameter_gets_a_gradient() -> None:
    model, _ = trained(TINY, 3)  # layers that start at zero let others' gradients pass only then
    x = torch.rand(2, 3, 64, 64)
    output = model(x, torch.tensor([0.002, 0.1]))
    loss = (output.latent_bits + output.hyper_bits).sum() + (output.x_hat - x).square().sum()
    model.zero_grad()
    loss.backward()
    silent = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.abs().sum() > 0)
    ]
    assert not silent


def test_quality_bins() -> None:
    model = DvqModel(TINY)
    low, high = TINY.log_gain_range()
    gains = torch.linspace(low, high, 1000)
    binned = model.binned_log_gain(gains)
    assert len(binned.unique()) == TINY.quality_bins
    assert float((binned - gains).abs().max()) <= (high - low) / TINY.quality_bins / 2 + 1e-5
    assert float(model.log_gain(torch.tensor(TINY.lambda_max))) == pytest.approx(high)
    assert float(model.position(torch.tensor(low))) == pytest.approx(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slices": (2, 5)}, "model.slices.*make 14, not model.channels = 16"),
        ({"hyper_channels": 7}, "model.hyper_channels"),
        ({"group": 3, "slices": (2, 6), "channels": 24, "hyper_channels": 9}, "model.group: 3"),
        ({"lambda_min": 0.5}, "model.lambda_min"),
        ({"shapes": 4}, "model.shapes: 4"),
        ({"pyramid_levels": 0}, "model.pyramid_levels: 0"),
        ({"prior_linear": 33}, "model.prior_linear"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **changes)


def test_config_survives_a_dictionary() -> None:
    assert from_dict(ModelConfig, to_dict(TINY)) == TINY


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 3), (30, 64)])
def test_padding_repeats_the_border(size) -> None:
    x = torch.rand(1, 3, *size)
    padded = pad_to(x, 16)
    assert padded.shape[-2:] == tuple(16 * math.ceil(s / 16) for s in size)
    assert torch.equal(padded[..., : size[0], : size[1]], x)
    assert torch.equal(padded[..., -1, -1], x[..., -1, -1])
