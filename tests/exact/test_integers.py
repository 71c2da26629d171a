"""From floats to integers: what is lost is next to nothing, and what is exact is exact."""

from pathlib import Path

import numpy as np
import pytest
import torch

from diveqcodec.codec import Codec
from diveqcodec.exact import tile as tilecoder
from diveqcodec.exact import weights
from diveqcodec.exact.integers import integers
from diveqcodec.exact.tile import Tally
from diveqcodec.model.candidates import GRID
from diveqcodec.model.dvq import DvqModel
from diveqcodec.model.priorlayers import layers_of
from diveqcodec.quality import gain_index, lambda_of
from diveqcodec.train import exporting
from diveqcodec.train.exporting import Check, Exported
from tests.support.commands import diveq
from tests.support.tiny import TINY, drawn, picture_of, trained


@pytest.fixture(scope="module")
def model() -> DvqModel:
    made, _ = trained(TINY, 30)
    return made.eval()


def test_everything_exact_is_an_integer(model: DvqModel) -> None:
    numbers = integers(model)
    assert not [name for name, value in numbers.items() if value.is_floating_point()]
    for name in ("fine", "coarse"):
        assert bool((numbers[f"{name}.codewords"][0] == 0).all())
        frequencies = numbers[f"{name}.frequencies"]
        assert bool((frequencies.sum(1) == 1 << 24).all())
        assert int(frequencies.min()) >= 1


def test_every_layer_of_the_prior_is_exported(model: DvqModel) -> None:
    numbers = integers(model)
    layers = {f"prior.{layer.key}.weight" for layer in layers_of(TINY)}
    assert {name for name in numbers if name.endswith(".weight")} == layers
    for s, passes in enumerate((4, 1, 1)):  # but the first
        assert numbers[f"prior.{s}.passes"].shape == (passes, TINY.prior_width)


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
    model: DvqModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quality: int
) -> None:
    """Same picture, same gain: ideal bits of the codec against the float model's, within 1 %.

    But for the flags of passes, which the float model does not have.
    """
    monkeypatch.setattr(tilecoder, "_DEAR", 1e9)
    path = tmp_path / "model.safetensors"
    weights.save(model, path, {})
    kept, _ = weights.load_for_training(path)  # networks as stored: half precision
    kept.eval()
    codec = Codec(weights.load(path), networks=torch.float32)
    gain = gain_index(quality)
    lam = lambda_of(TINY.scale.log_gain(gain))
    pixels = drawn(256, 320, 77)
    tally = Tally()
    codec.compress_at(picture_of(pixels), gain, tally=tally)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        output = kept(x, torch.tensor([lam]))
    expected = float(output.bits)
    assert sum(tally.bits.values()) == pytest.approx(expected, rel=0.01)
    restored = codec.decompress(codec.compress_at(picture_of(pixels), gain)).pixels
    ours = np.square(restored.astype(float) - pixels).mean()
    floats = float((output.x_hat.clamp(0, 1) - x).square().mean()) * 255**2
    assert ours == pytest.approx(floats, rel=0.02)


def test_excess_is_taken_at_equal_psnr() -> None:
    assert Check(50, 0.5, 0.505, 30, 30).excess == pytest.approx(0.01)
    assert Check(50, 0.5, 0.505, 30, 30.05).more_bits == pytest.approx(0.01)
    assert Check(50, 0.5, 0.505, 30, 30.05).excess == pytest.approx(0, abs=1e-9)  # bought 0.05 dB
    assert Check(50, 0.5, 0.5, 30, 29.9).excess == pytest.approx(0.02)  # lost 0.1 dB


def notes(
    checks: tuple[Check, ...], folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str
) -> list[str]:
    """What `diveq export` notes after an export that these checks came of."""

    def export(run: Path, target: Path, *, check: Path | None, licence: str) -> Exported:
        assert (check is not None) == bool(checks)
        target.write_bytes(b"weights")
        return Exported(target, b"\1" * 8, 4, len(checks), checks)

    monkeypatch.setattr(exporting, "export", export)
    result = diveq("export", "run", "-o", folder / "a.safetensors", *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("difference") == bool(checks)
    return [line for line in result.stderr.splitlines() if line.startswith("Note: ")]


def test_an_export_without_a_check_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (note,) = notes((), tmp_path, monkeypatch)
    assert "no self-check was made" in note
    assert "--check DIR" in note


def test_an_export_that_costs_bits_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = (
        Check(20, 0.2, 0.2018, 27, 27),  # +0.9 %
        Check(50, 0.5, 0.506, 32, 32),
        Check(65, 0.8, 0.812, 35, 35.08),  # paid for by the decibels
        Check(80, 1.5, 1.5, 38, 37.9),
    )
    found = notes(checks, tmp_path, monkeypatch, "--check", "photos")
    assert [note.partition(" after")[0] for note in found] == [
        "Note: quality 50: +1.2% bits at equal PSNR",
        "Note: quality 80: +2.0% bits at equal PSNR",
    ]
