"""Targets through the command: what is reached is what the file has, and what is not is said."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diveqcodec.psnr import psnr
from tests.support.commands import diveq, draw, opened

pytestmark = pytest.mark.usefixtures("models")


def measured(name: str) -> float:
    """PSNR of `name`.dvq beside `name`.png, in dB, by way of another file."""
    assert diveq("decompress", f"{name}.dvq", "-o", "back.png", "-f").exit_code == 0
    pixels = np.asarray(opened("back.png")), np.asarray(opened(f"{name}.png"))
    return psnr(pixels[1], pixels[0])


@pytest.mark.parametrize("wanted", [18.5, 20])
def test_psnr_from_above(wanted: float) -> None:
    draw(Path("a.png"), size=(96, 96))
    result = diveq("compress", "a.png", "--target-psnr", wanted, "--json")
    assert result.exit_code == 0
    record = json.loads(result.stdout)
    assert record["is_target_reached"]
    assert record["notices"] == []
    assert record["target_psnr"] == wanted
    assert wanted <= record["psnr"] <= wanted + 0.05
    assert record["psnr"] == pytest.approx(measured("a"), abs=1e-9)
    assert record["bytes"] == Path("a.dvq").stat().st_size
    # The quality it tells gives the same file.
    again = ("-q", repr(record["quality"]), "-o", "again.dvq")
    assert diveq("compress", "a.png", *again).exit_code == 0
    assert Path("again.dvq").read_bytes() == Path("a.dvq").read_bytes()


@pytest.mark.parametrize(
    ("option", "wanted", "quality", "form"),
    [
        ("psnr", 80, 100, "{:.2f} dB"),
        ("psnr", 1, 1, "{:.2f} dB"),
        ("bpp", 50, 100, "{:.4f} bpp"),
        ("bpp", 0.001, 1, "{:.4f} bpp"),
        ("size", 10**6, 100, "{:,.0f} B"),
    ],
)
def test_what_is_out_of_reach_is_said_with_the_nearest(
    option: str, wanted: float, quality: int, form: str
) -> None:
    draw(Path("a.png"), size=(64, 48))
    result = diveq("compress", "a.png", f"--target-{option}", wanted)
    assert result.exit_code == 0
    size = Path("a.dvq").stat().st_size
    has = {"psnr": measured("a"), "bpp": 8 * size / (64 * 48), "size": size}[option]
    text = f"{form.format(has)} is the nearest found to the target of {form.format(wanted)}"
    assert f"Note: a.png: {text}" in result.stderr.splitlines()
    result = diveq("compress", "a.png", f"--target-{option}", wanted, "-f", "--json")
    record = json.loads(result.stdout)
    assert record["notices"] == [text]
    assert not record["is_target_reached"]
    assert record["quality"] == quality


def test_a_picture_that_is_kept_exactly_has_no_psnr_to_tell() -> None:
    board = np.add.outer(np.arange(64) // 8, np.arange(96) // 8) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save("a.png")
    result = diveq("compress", "a.png", "--target-psnr", 40, "--json")
    assert result.exit_code == 0
    record = json.loads(result.stdout)
    assert measured("a") == math.inf
    assert "psnr" not in record  # JSON has no infinity
    assert record["notices"] == ["every pixel exact is the nearest found to the target of 40.00 dB"]


def test_every_file_of_a_batch_has_the_target() -> None:
    for name, size in (("a", (128, 128)), ("b", (192, 96))):
        draw(Path(f"{name}.png"), size=size)
    result = diveq("compress", "a.png", "b.png", "--target-bpp", 0.9, "--json")
    assert result.exit_code == 0
    for record in map(json.loads, result.stdout.splitlines()):
        assert record["is_target_reached"]
        most = record["width"] * record["height"] * 0.9 // 8  # whole bytes
        assert 0.99 * most <= record["bytes"] <= most
