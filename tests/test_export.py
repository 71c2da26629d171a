"""From floats to integers: what is lost is next to nothing, and what is exact is exact."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from diveqcodec import weights
from diveqcodec.codec import Codec
from diveqcodec.export import integers
from diveqcodec.model import GAIN_STEPS, DvqModel
from diveqcodec.quantize.search import GRID, RATE
from diveqcodec.tilecoder import Tally
from tests.tiny import TINY, drawn, picture_of, trained


@pytest.fixture(scope="module")
def model() -> DvqModel:
    made, _ = trained(TINY, 30)
    return made.eval()


def test_everything_exact_is_an_integer() -> None:
    model = DvqModel(replace(TINY, hyper_channels=8))
    numbers = integers(model)
    assert not [name for name, value in numbers.items() if value.is_floating_point()]
    for name in ("fine", "coarse", "hyper"):
        assert bool((numbers[f"{name}.codewords"][0] == 0).all())
        frequencies = numbers[f"{name}.frequencies"]
        assert bool((frequencies.sum(1) == 1 << 24).all())
        assert int(frequencies.min()) >= 1
    assert int(numbers["hyper.classes"].max()) < TINY.sizes
    assert int(numbers["hyper.classes"].min()) >= 0


def test_numbers_stand_for_the_floats(model: DvqModel) -> None:
    numbers = integers(model)
    words = model.quantizer.fine.codewords().detach()
    assert float((numbers["fine.codewords"] / GRID - words).abs().max()) <= 0.5 / GRID + 1e-6
    bits = 24 - torch.log2(numbers["fine.frequencies"].double())
    likely = bits < 12
    difference = (bits - model.quantizer.fine.bit_table().detach())[likely]
    assert float(difference.abs().max()) < 0.01
    weight = numbers["prior.1.hidden.weight"].double()
    scale = torch.ldexp(torch.ones(len(weight)), -numbers["prior.1.hidden.shift"].int())
    net = model.prior.nets[1]
    found = weight * scale[:, None].double()
    floats = net.hidden.weight.detach().double()  # type: ignore[union-attr, operator]
    # 15 bits and a sign for the largest weight of every output
    largest = floats.abs().amax(1, keepdim=True)
    assert float(((found - floats).abs() / largest).max()) < 2**-14


@pytest.mark.parametrize("quality", [10, 50, 90])
def test_the_fixed_prior_costs_what_the_float_one_does(
    model: DvqModel, tmp_path, quality: int
) -> None:
    """Same picture, same gain: ideal bits of the codec against the float model's, within 1 %."""
    path = tmp_path / "model.safetensors"
    weights.save(model, path, {})
    kept, _ = weights.load_for_training(path)  # networks as stored: half precision
    kept.eval()
    codec = Codec(weights.load(path), networks=torch.float32)
    low, high = TINY.log_gain_range()
    gain = round((quality - 1) / 99 * GAIN_STEPS)
    log_gain = low + (high - low) * gain / GAIN_STEPS
    lam = math.exp(2 * log_gain) * 12 / (255**2 * RATE)
    pixels = drawn(256, 320, 77)
    tally = Tally()
    codec.compress_at(picture_of(pixels), gain, tally=tally)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        output = kept(x, torch.tensor([lam]))
    expected = float(output.latent_bits + output.hyper_bits)
    assert sum(tally.bits.values()) == pytest.approx(expected, rel=0.01)
    restored = codec.decompress(codec.compress_at(picture_of(pixels), gain)).pixels
    ours = np.square(restored.astype(float) - pixels).mean()
    floats = float((output.x_hat.clamp(0, 1) - x).square().mean()) * 255**2
    assert ours == pytest.approx(floats, rel=0.02)
