import json
from pathlib import Path

import pytest

from diveqcodec import quality as scale
from diveqcodec.quality import quality_of
from tests.support.commands import diveq, draw, errors

pytestmark = pytest.mark.usefixtures("models")


@pytest.mark.parametrize("quality", [1, 2, 33.3, 50, 99, 100])
def test_quality_is_that_of_compress(quality: float) -> None:
    assert quality_of(scale.gain_index(quality)) == pytest.approx(quality, abs=1e-3)


def test_info_of_a_file() -> None:
    draw(Path("a.png"), "LA", (30, 20))
    assert diveq("compress", "a.png", "-q", 25, "--lossy").exit_code == 0
    data = Path("a.dvq").read_bytes()
    record = json.loads(diveq("info", "a.dvq", "--json").stdout)
    assert record["width"], record["height"] == (30, 20)
    assert record["is_grey"]
    assert record["has_alpha"]
    assert record["quality"] == 25
    assert record["model"] == "diveq-4"
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
