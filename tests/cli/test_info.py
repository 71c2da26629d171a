import json
from pathlib import Path

import pytest

from diveqcodec import quality as scale
from diveqcodec.container import bitstream
from diveqcodec.quality import quality_of
from tests.support.commands import diveq, draw, errors
from tests.support.places import GOLDEN
from tests.support.tiles import cut_into
from tests.support.wieners import filtered, unfiltered

pytestmark = pytest.mark.usefixtures("models")


@pytest.mark.parametrize("quality", [1, 2, 33.3, 50, 99, 100])
def test_quality_is_that_of_compress(quality: float) -> None:
    assert quality_of(scale.gain_index(quality)) == pytest.approx(quality, abs=1e-3)


def test_info_of_a_file() -> None:
    draw(Path("a.png"), "LA", (30, 20))
    assert diveq("compress", "a.png", "-q", 25, "--lossy").exit_code == 0
    data = Path("a.dvq").read_bytes()
    record = json.loads(diveq("info", "a.dvq", "--json").stdout)
    assert (record["width"], record["height"]) == (30, 20)
    assert record["is_grey"]
    assert record["has_alpha"]
    assert record["has_mirror"]
    assert record["quality"] == 25
    assert record["model"] == "diveq-5"
    assert record["bytes"] == len(data)
    assert record["bpp"] == pytest.approx(8 * len(data) / 600)
    assert record["tiles"] == 1
    assert 0 < record["tile_bytes"] < len(data) - record["alpha_bytes"]
    line = diveq("info", "a.dvq")
    assert line.stderr == ""
    assert line.stdout.count("\n") == 1
    assert f"a.dvq   30x20   grey + alpha   {len(data):,} B" in line.stdout
    assert "quality 25" in line.stdout


def test_info_of_stdin_and_without_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(Path("a.png"))
    diveq("compress", "a.png", "--lossy")
    monkeypatch.setenv("DIVEQ_MODELS", "")
    result = diveq("info", "-", stdin=Path("a.dvq").read_bytes())
    assert result.exit_code == 0
    assert "(not installed)" in result.stdout


def test_a_bad_file_does_not_stop_the_others() -> None:
    draw(Path("b.png"))
    diveq("compress", "b.png")
    Path("a.dvq").write_bytes(b"text")
    result = diveq("info", "a.dvq", "b.dvq")
    assert result.exit_code == 1
    assert errors(result) == ["Error: a.dvq: not a .dvq file"]
    assert result.stdout.startswith("b.dvq ")


def test_filters_of_a_file_are_counted() -> None:
    golden = (GOLDEN / "filters.dvq").read_bytes()
    (tile,) = bitstream.read(golden).tiles
    assert tile is not None
    assert tile.filters
    Path("one.dvq").write_bytes(golden)
    Path("none.dvq").write_bytes(unfiltered(golden))
    result = diveq("info", "one.dvq", "none.dvq", "--json")
    one, none = map(json.loads, result.stdout.splitlines())
    assert (one["filtered_tiles"], one["filter_bytes"]) == (1, len(tile.filters))
    assert (none["filtered_tiles"], none["filter_bytes"]) == (0, 0)
    lines = diveq("info", "one.dvq", "none.dvq").stdout.splitlines()
    assert lines[0].endswith(f"   1 tile   filters {len(tile.filters)} B")
    assert lines[1].endswith("   1 tile")


def test_filters_of_some_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_into(monkeypatch, 64)
    draw(Path("a.png"), "RGB", (128, 128))
    assert diveq("compress", "a.png", "--lossy").exit_code == 0
    data = filtered(Path("a.dvq").read_bytes())
    Path("a.dvq").write_bytes(data)
    record = json.loads(diveq("info", "a.dvq", "--json").stdout)
    found = [tile.filters for tile in bitstream.read(data).tiles if tile is not None]
    assert [bool(one) for one in found] == [True, True, True, False]
    assert record["filtered_tiles"] == 3
    assert record["filter_bytes"] == sum(len(one or b"") for one in found)
    assert f"4 tiles   filters in 3 {record['filter_bytes']:,} B" in diveq("info", "a.dvq").stdout
