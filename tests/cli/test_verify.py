"""`compress --verify` finds a file that is not one of its picture, whatever made it so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diveqcodec.container import bitstream, lossless
from diveqcodec.container.bitstream import DvqFile
from tests.support.commands import diveq, draw, errors

pytestmark = pytest.mark.usefixtures("models")


Break = Callable[[DvqFile, DvqFile], DvqFile]
WRITERS: dict[str, tuple[Break, str]] = {  # of a faulty writer: what it makes of two files
    "indices": (
        lambda one, other: replace(one, tiles=(replace(one.tiles[0], index_crc=1),)),  # type: ignore[type-var]
        "not verified (damaged",
    ),
    "payload": (
        lambda one, other: replace(one, tiles=other.tiles),
        "not verified: decoded with another pixels",
    ),
    "profile": (
        lambda one, other: replace(one, icc=b"another"),
        "not verified: decoded with another ICC profile",
    ),
    "size": (
        lambda one, other: replace(one, header=replace(one.header, height=47)),
        "not verified: decoded with another size",
    ),
    "gain": (
        lambda one, other: replace(one, header=replace(one.header, gain_index=65535)),
        "not verified",
    ),
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_faulty_writer_is_found_out(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(Path("a.png"), size=(64, 48))
    draw(Path("b.png"), size=(64, 48))
    with Image.open("b.png") as image:
        image.transpose(Image.Transpose.ROTATE_180).save("b.png")
    assert diveq("compress", "a.png", "b.png", "--lossy", "--verify").exit_code == 0
    other = bitstream.read(Path("b.dvq").read_bytes())
    before = Path("a.dvq").read_bytes()
    change, said = WRITERS[what]
    write = bitstream.write
    monkeypatch.setattr(bitstream, "write", lambda file: write(change(file, other)))
    assert diveq("compress", "a.png", "-o", "c.dvq", "--lossy").exit_code == 0
    assert Path("c.dvq").read_bytes() != before
    result = diveq("compress", "a.png", "--lossy", "-f", "--verify")
    assert result.exit_code == 1
    assert errors(result)[0].startswith(f"Error: a.png: {said}")
    assert Path("a.dvq").read_bytes() == before


def test_a_lossless_file_that_is_off_by_one_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(Path("a.png"), "RGBA")
    assert diveq("compress", "a.png", "--lossless", "--verify").exit_code == 0
    pack = lossless.pack

    def off_by_one(pixels: Any, *rest: Any, **named: Any) -> bytes:
        changed = pixels.copy()
        changed[20, 30, 1] ^= 1
        return pack(changed, *rest, **named)

    monkeypatch.setattr(lossless, "pack", off_by_one)
    result = diveq("compress", "a.png", "--lossless", "-f", "--verify")
    assert result.exit_code == 1
    assert "another pixels" in errors(result)[0]


def test_a_disk_that_forgets_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(Path("a.png"))
    assert diveq("compress", "a.png", "--verify").exit_code == 0
    before, read = Path("a.dvq").read_bytes(), Path.read_bytes
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda path: read(path)[:-1])
        result = diveq("compress", "a.png", "-q", "80", "-f", "--verify")
    assert errors(result)[0].startswith("Error: a.png: not verified (damaged: truncated")
    assert Path("a.dvq").read_bytes() == before


@pytest.mark.parametrize("quality", ["1", "30", "100"])
@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_hard_pictures_verify(quality: str, mode: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (70, 90, 4), dtype=np.uint8)
    Image.fromarray(noise[..., 0] if mode == "L" else noise).save("a.png")
    draw(Path("b.png"), mode, size=(17, 130))
    Image.new(mode, (50, 40), "white").save("c.png")
    result = diveq("compress", "a.png", "b.png", "c.png", "--lossy", "-q", quality, "--verify")
    assert result.exit_code == 0, result.stderr
