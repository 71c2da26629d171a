"""`--lossless`, `--lossy`, `--crop`, `--partial`, and the bar of one large picture."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from diveqcodec import zoo
from diveqcodec.cli.console import Console
from diveqcodec.cli.tiles import progress
from diveqcodec.container import bitstream
from tests.support.commands import diveq, draw, errors, install_tiny, opened


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return install_tiny(monkeypatch, tmp_path)


def pixels_of(name: str) -> NDArray[np.uint8]:
    return np.asarray(opened(name))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_lossless_keeps_every_pixel_and_needs_no_weights(models: Path, mode: str) -> None:
    draw(Path("a.png"), mode, (90, 70))
    result = diveq("compress", "a.png", "--lossless", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["model"] is None
    for path in models.iterdir():
        path.unlink()
    assert diveq("decompress", "a.dvq", "-o", "b.png").exit_code == 0
    assert (pixels_of("a.png") == pixels_of("b.png")).all()
    record = json.loads(diveq("info", "a.dvq", "--json").stdout)
    assert (record["model"], record["model_id"], record["quality"]) == (None, None, None)
    assert (record["tiles"], record["lossless_tiles"], record["tile_bytes"]) == (1, 1, 0)
    assert "   lossless   1 tile" in diveq("info", "a.dvq").stdout


def test_16_bits_are_cut_to_8_and_kept_from_there_on() -> None:
    values = (np.arange(70 * 90) * 10).astype(np.uint16).reshape(70, 90)
    Image.fromarray(values).save("a.png")
    result = diveq("compress", "a.png", "--lossless")
    assert result.exit_code == 0
    assert "8-bit" in result.stderr
    assert diveq("decompress", "a.dvq", "-o", "b.png").exit_code == 0
    assert (pixels_of("b.png") == np.floor(values * (255 / 65535) + 0.5)).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("-q", "10"), "-q has no effect"),
        (("--quality=50",), "-q has no effect"),  # the default, but somebody said it
        (("-m", "diveq-5"), "-m has no effect"),
        (("-q", "10", "-m", "diveq-5"), "-q and -m have no effect"),
        (("-e", "9"), None),
    ],
)
def test_lossless_says_what_has_no_effect(given: tuple[str, ...], said: str | None) -> None:
    draw(Path("a.png"))
    assert diveq("compress", "a.png", "--lossless").exit_code == 0
    plain = Path("a.dvq").read_bytes()
    result = diveq("compress", "a.png", "--lossless", "-f", *given)
    assert result.exit_code == 0
    notes = [line for line in result.stderr.splitlines() if line.startswith("Note: ")]
    wanted = f"Note: --lossless keeps every pixel without weights: {said}"
    assert [note for note in notes if "effect" in note] == ([wanted] if said else [])
    if said:
        assert Path("a.dvq").read_bytes() == plain
    assert "effect" not in diveq("compress", "a.png", "-f", "--lossy", *given).stderr


def test_lossless_works_where_no_weights_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(Path("a.png"))
    monkeypatch.setenv(zoo.VARIABLE, "nowhere")
    assert "no weights are installed" in diveq("compress", "a.png").stderr
    result = diveq("compress", "a.png", "--lossless", "-e", "9", "--verify")
    assert (result.exit_code, errors(result)) == (0, [])
    assert diveq("decompress", "a.dvq", "-o", "b.png").exit_code == 0
    assert opened("b.png").tobytes() == opened("a.png").tobytes()
    result = diveq("compress", "a.png", "--lossless", "-m", "none", "-f")
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: -m no weights are installed")


def test_lossy_and_lossless_and_neither() -> None:
    Image.new("RGB", (300, 200), (7, 8, 9)).save("flat.png")
    names = {"auto": (), "lossy": ("--lossy",), "lossless": ("--lossless",)}
    files = {}
    for name, options in names.items():
        assert diveq("compress", "flat.png", "-o", f"{name}.dvq", *options).exit_code == 0
        files[name] = bitstream.read(Path(f"{name}.dvq").read_bytes())
    assert not files["lossy"].lossless
    assert files["lossless"] == files["auto"]
    assert Path("auto.dvq").stat().st_size < 40


def test_crop() -> None:
    draw(Path("a.png"), size=(90, 70))
    assert diveq("compress", "a.png", "--lossless").exit_code == 0
    result = diveq("decompress", "a.dvq", "-o", "b.png", "--crop", "10,20,30,40", "--json")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert (record["width"], record["height"]) == (30, 40)
    assert (pixels_of("b.png") == pixels_of("a.png")[20:60, 10:40]).all()
    result = diveq("decompress", "a.dvq", "-o", "c.png", "--crop", "80,0,30,40")
    assert result.exit_code == 1
    assert errors(result) == [
        "Error: a.dvq: crop 80,0,30,40: does not lie within the picture's 90x70 pixels"
    ]
    assert not Path("c.png").exists()


@pytest.mark.parametrize("value", ["1,2,3", "a,b,c,d", "1,2,3,4,5", "-1,0,5,5", "0,0,0,5", ""])
def test_crops_that_are_none(value: str) -> None:
    result = diveq("decompress", "a.dvq", f"--crop={value}")
    assert result.exit_code == 2
    assert "--crop" in result.stderr


def spoiled(*options: str) -> None:
    """`a.dvq`, of two tiles, with a byte of its last chunk changed."""
    draw(Path("a.png"), size=(80, 1300))
    assert diveq("compress", "a.png", "-q", 20, *options).exit_code == 0
    data = Path("a.dvq").read_bytes()
    Path("a.dvq").write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])


def test_partial_says_what_is_grey() -> None:
    spoiled("--lossy")
    assert diveq("decompress", "a.dvq", "-o", "b.png").exit_code == 1
    assert not Path("b.png").exists()
    result = diveq("decompress", "a.dvq", "-o", "b.png", "--partial")
    assert result.exit_code == 0
    assert "Note: a.dvq: tile 1 of 2 is damaged; its 80x276 pixels at 0,1024 are grey" in (
        result.stderr
    )
    assert (pixels_of("b.png")[1024:] == 128).all()


def test_partial_writes_no_grey_picture_where_nothing_is_left() -> None:
    spoiled("--lossless")  # both tiles are in one chunk
    result = diveq("decompress", "a.dvq", "-o", "b.png", "--partial")
    assert result.exit_code == 1
    assert "Error: a.dvq: damaged: no tile is whole of the 2 wanted" in result.stderr
    assert not Path("b.png").exists()


def test_a_bar_counts_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console()
    counted: list[Any] = []

    @contextlib.contextmanager
    def counter(total: int, unit: str) -> Iterator[Callable[[int], None]]:
        counted.append((total, unit))
        yield counted.append
        counted.append("closed")

    monkeypatch.setattr(console, "counter", counter)
    with progress(console) as tell:
        for done in (1, 2, 4):
            tell(done, 4)
    assert counted == [(4, "step"), 1, 1, 2, "closed"]
