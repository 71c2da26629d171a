"""The model assembled: every quantizer and gradient trains, sizes are checked, shapes fit."""

import dataclasses
import math
from typing import Any, get_args

import pytest
import torch

from diveqcodec.config import from_dict, to_dict
from diveqcodec.errors import ConfigError
from diveqcodec.model.config import Kind, ModelConfig
from diveqcodec.model.dvq import DvqModel, ParameterKind, pad_to
from diveqcodec.model.quantizer import Gradient
from tests.support.tiny import IN_FOURS, TINY, loss_of, trained, training_pictures

VARIANTS: list[tuple[Kind, int, Gradient]] = [
    ("diveq", 2, "soft"),
    ("sf-diveq", 2, "diveq"),
    ("diveq", 4, "soft-diveq"),
    ("scalar", 2, "diveq"),
]


def variant(kind: Kind, group: int) -> ModelConfig:
    return dataclasses.replace(TINY, quantizer=kind, **(IN_FOURS if group == 4 else {}))


def check_training(kind: Kind, group: int, **quantizer: Any) -> None:
    """In 24 steps the loss at a trade-off falls by more than 1.5 %, by table look-up only.

    It starts from cosines and lattice tables, hence not far from where it can get.
    """
    x = torch.stack(training_pictures().tensors[:4]).float() / 255
    lam = torch.full((4,), 0.0067)
    losses = []
    for steps in (0, 28):
        model, _ = trained(variant(kind, group), steps, **quantizer)
        model.eval()
        with torch.no_grad():
            losses.append(float(loss_of(model, x, lam)))
    assert losses[1] < 0.985 * losses[0]
    untrained = DvqModel(variant(kind, group))
    moved = model.quantizer.fine.unit - untrained.quantizer.fine.unit
    # codebooks learn, but for whole numbers
    assert (float(moved.detach().abs().max()) > 1e-3) == (kind != "scalar")


@pytest.mark.parametrize(("kind", "group", "gradient"), VARIANTS)
def test_variants_train(kind: Kind, group: int, gradient: Gradient) -> None:
    check_training(kind, group, gradient=gradient)


@pytest.mark.slow
@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("group", [2, 4])
@pytest.mark.parametrize("gradient", get_args(Gradient))
def test_every_variant_trains(kind: Kind, group: int, gradient: Gradient) -> None:
    check_training(kind, group, gradient=gradient)


@pytest.mark.slow
def test_nearest_assignment_trains() -> None:
    check_training("diveq", 2, gradient="diveq", assignment="nearest")


def test_forward_counts_bits_of_every_picture() -> None:
    model, _ = trained(TINY, 2)
    x = torch.rand(3, 3, 64, 128)
    x[1] = 0.5  # a flat picture costs little
    output = model(x, torch.full((3,), 0.2))
    assert output.x_hat.shape == x.shape
    assert output.bits.shape == (3,)
    assert len(output.slices) == len(TINY.slices)
    per_slice = [torch.cat(s.bits) for s in output.slices]
    coding = (3, 3, 2)  # pictures: the flat one leaves out the optional slice
    assert [len(bits) for bits in per_slice] == [
        32 * count * groups for count, groups in zip(coding, TINY.slices, strict=True)
    ]
    total = float(sum(bits.sum() for bits in per_slice))
    assert total == pytest.approx(float(output.bits.detach().sum()), rel=1e-4)
    bits = output.bits.detach()
    assert float(bits[1]) < 0.95 * min(float(bits[0]), float(bits[2]))


@pytest.mark.parametrize("mode", [True, False])
def test_pictures_of_a_batch_do_not_mix(mode: bool) -> None:
    model, _ = trained(TINY, 2)
    model.train(mode)
    x, lam = torch.rand(3, 3, 64, 64), torch.tensor([0.002, 0.1, 0.5])
    x[1] = x[1] * 0.01 + 0.5  # leaves out the optional slice, between two that code it
    with torch.no_grad():
        together = model(x, lam)
        assert len(torch.cat(together.slices[2].symbols)) == 2 * 16 * TINY.slices[2]
        for i in range(3):
            alone = model(x[i : i + 1], lam[i : i + 1])
            torch.testing.assert_close(alone.x_hat[0], together.x_hat[i], atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(alone.bits[0], together.bits[i], atol=0.5, rtol=1e-3)


def test_optional_slices_left_out_are_zero_and_free(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = trained(TINY, 2)
    x, lam = torch.rand(2, 3, 64, 64), torch.tensor([0.1, 0.5])
    latents: list[torch.Tensor] = []

    def kept(self: DvqModel, y_hat: torch.Tensor, *_: object) -> torch.Tensor:
        latents.append(y_hat)
        return x

    monkeypatch.setattr(DvqModel, "decode_latent", kept)
    with torch.no_grad():
        coded = model(x, lam)
        monkeypatch.setattr(
            "diveqcodec.model.recorder.is_worth_coding",
            lambda y, _: torch.zeros(len(y), dtype=torch.bool),
        )
        spared = model(x, lam)
    part = TINY.part(2)
    assert bool((latents[0][:, part] != 0).any())
    assert bool((latents[1][:, part] == 0).all())
    torch.testing.assert_close(latents[0][:, : part.start], latents[1][:, : part.start])
    assert spared.slices[2].bits == []
    cost = torch.cat(coded.slices[2].bits).sum()
    torch.testing.assert_close(spared.bits.sum(), coded.bits.sum() - cost, atol=0.1, rtol=1e-4)
    assert bool((spared.bits < coded.bits).all())


def test_only_the_first_pictures_are_decoded_by_the_networks() -> None:
    model, _ = trained(TINY, 2)
    torch.nn.init.normal_(model.synthesis.tail.weight)
    model.eval()
    x, lam = torch.rand(3, 3, 64, 64), torch.tensor([0.01, 0.1, 0.5])
    with torch.no_grad():
        whole, none, some = (model(x, lam, count).x_hat for count in (None, 0, 1))
    torch.testing.assert_close(some[:1], whole[:1], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(some[1:], none[1:], atol=1e-4, rtol=1e-3)
    assert float((whole - none).abs().amax((1, 2, 3)).min()) > 1e-3


def test_every_parameter_gets_a_gradient() -> None:
    model, _ = trained(TINY, 3)  # layers that start at zero let others' gradients pass only then
    model.analysis.requires_grad_(True)  # else it stays as it starts
    x = torch.rand(2, 3, 64, 64)
    output = model(x, torch.tensor([0.002, 0.1]))
    loss = output.bits.sum() + (output.x_hat - x).square().sum()
    model.zero_grad()
    loss.backward()
    silent = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.abs().sum() > 0)
    ]
    assert not silent


def test_every_parameter_is_of_a_kind() -> None:
    """And of the kind that its learning rate is meant for; a new module must say what it is."""
    kinds: dict[ParameterKind, set[str]] = {}
    for name, _ in DvqModel(dataclasses.replace(TINY, predistortion=True)).named_parameters():
        kinds.setdefault(DvqModel.kind_of(name), set()).add(name)
    linear = {f"basis.{name}" for name in ("colour", "rows", "mean")} | {"lapping.matrix"}
    assert kinds["analysis"] == {f"analysis.{name}" for name in linear}
    assert kinds["linear"] == {f"synthesis.{name}" for name in linear}
    assert kinds["codebook"] == {"quantizer.fine.unit", "quantizer.coarse.unit"}
    assert kinds["table"] == {"quantizer.fine.logits", "quantizer.coarse.logits"}
    assert {name.split(".")[0] for name in kinds["prior"]} == {"prior"}
    assert {name.split(".")[0] for name in kinds["networks"]} == {"synthesis"}
    assert {name.split(".")[0] for name in kinds["predistortion"]} == {"predistortion"}
    assert kinds.keys() == set(get_args(ParameterKind))


def test_quality_bins() -> None:
    model = DvqModel(TINY)
    scale = TINY.scale
    gains = torch.linspace(scale.low, scale.high, 1000)
    binned = model.binned_log_gain(gains)
    assert len(binned.unique()) == TINY.quality_bins
    assert float((binned - gains).abs().max()) <= (scale.high - scale.low) / 8 / 2 + 1e-5
    assert float(model.log_gain(torch.tensor(TINY.lambda_max))) == pytest.approx(scale.high)
    indices = torch.arange(0, 65536, 97)
    exact = torch.tensor([scale.bin(int(i)) for i in indices])  # what a decoder computes
    floats = model.binned_log_gain(torch.tensor([scale.log_gain(int(i)) for i in indices]))
    torch.testing.assert_close(floats, scale.centre(exact.float()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slices": (2, 6, 3)}, "model.slices.*make 22, not model.channels = 24"),
        ({"group": 3, "slices": (2, 4, 2)}, "model.group: 3"),
        ({"optional_slices": 3}, "model.optional_slices: must leave at least one"),
        ({"optional_slices": -1}, "model.optional_slices"),
        ({"lambda_min": 2.0}, "model.lambda_min"),
        ({"shapes": 4}, "model.shapes: 4"),
        ({"pyramid_levels": 0}, "model.pyramid_levels: 0"),
        ({"pyramid_levels": 70}, "model.pyramid_levels: 70"),
        ({"prior_linear": 33}, "model.prior_linear"),
        ({"prior_linear": -1}, "model.prior_linear: -1 is below 0"),
        ({"sizes": 1}, "model.sizes: 1 is below 2"),
        ({"blocks4": -1}, "model.blocks4"),
        ({"quality_bins": 0}, "model.quality_bins"),
        ({"slices": (13, -1)}, "model.slices"),
        ({"coarse_slices": 4}, "model.coarse_slices: there are 3"),
        ({"coarse_cell": 0.0}, "model.coarse_cell"),
        ({"lambda_max": math.inf}, "model.lambda_min"),
        ({"channels": 770, "slices": (1, 384)}, "model.channels"),
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
