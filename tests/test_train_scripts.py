"""Packing a data set into parts, and training for a given time from them."""

import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from diveqcodec import weights
from diveqcodec.train import checkpoint
from diveqcodec.train.config import to_toml
from diveqcodec.train.exporting import export
from scripts import pack_dataset, train_timed
from tests.training import draw_pictures, tiny_config


def call(monkeypatch: pytest.MonkeyPatch, main: object, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    assert callable(main)
    main()


def test_parts_bring_every_byte_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = draw_pictures(tmp_path / "pictures" / "deep", 7)
    call(monkeypatch, pack_dataset.main, tmp_path / "pictures", tmp_path / "a", "--limit", 40_000)
    parts = sorted((tmp_path / "a").iterdir())
    assert len(parts) > 2
    assert all(part.stat().st_size <= 40_000 for part in parts)
    assert pack_dataset.unpack(parts, tmp_path / "back") == 7
    for path in pictures.iterdir():
        assert (tmp_path / "back" / "deep" / path.name).read_bytes() == path.read_bytes()
    assert not (tmp_path / "back" / "manifest.csv").exists()
    call(monkeypatch, pack_dataset.main, tmp_path / "pictures", tmp_path / "b", "--limit", 40_000)
    for part in parts:
        assert (tmp_path / "b" / part.name).read_bytes() == part.read_bytes()


def test_large_pictures_are_made_smaller(tmp_path: Path) -> None:
    Image.new("RGB", (100, 50), (9, 99, 200)).save(tmp_path / "large.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "small.png")
    files = [tmp_path / "large.png", tmp_path / "small.png"]
    made = dict(pack_dataset.contents(tmp_path, files, 64, 90))
    assert list(made) == ["large.png.jpg", "small.png"]
    (tmp_path / "made.jpg").write_bytes(made["large.png.jpg"])
    with Image.open(tmp_path / "made.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (64, 32))
    assert made["small.png"] == files[1].read_bytes()


def test_damaged_parts_are_noticed(tmp_path: Path) -> None:
    members = [("a.png", b"A" * 3000), ("b.png", b"B" * 3000)]
    (part,) = pack_dataset.pack(iter(members), tmp_path, 100_000)
    content = part.read_bytes()
    part.write_bytes(content.replace(b"BBBBB", b"BBBCB", 1))
    with pytest.raises(ValueError, match=r"part-00.tar: b.png is damaged"):
        pack_dataset.unpack([part], tmp_path / "back")
    part.write_bytes(content[:2000])
    with pytest.raises(ValueError, match="not a part of a packed data set"):
        pack_dataset.unpack([part], tmp_path / "back")
    with pytest.raises(ValueError, match="do not fit a part"):
        pack_dataset.pack(iter(members), tmp_path, 12_000)


def test_timed_training_ends_in_time_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_pictures(tmp_path / "pictures")
    call(monkeypatch, pack_dataset.main, tmp_path / "pictures", tmp_path, "--limit", 150_000)
    parts = sorted(tmp_path.glob("part-*.tar"))
    config, run = tmp_path / "c.toml", tmp_path / "run"
    config.write_text(to_toml(tiny_config(100_000, log={"every": 20, "validate_every": 50})))
    shared = [*parts, "--out", run, "--device", "cpu", "--reserve", 0.5, "--part-bytes", 200_000]
    started = time.monotonic()
    call(monkeypatch, train_timed.main, *shared, "--seconds", 6, "-c", config)
    assert time.monotonic() - started < 12  # the machine may be busy
    shown = capsys.readouterr().out
    assert "12 pictures" in shown
    assert "weights-1-of-" in shown
    assert '"0.0067"' in shown
    _, info = checkpoint.load(run / "last.safetensors")
    steps = info["config"]["optim"]["steps"]
    assert 10 < info["step"] <= steps < 5_000  # adapted to the time, and nearly all of them made
    assert info["step"] > 0.7 * steps

    call(monkeypatch, train_timed.main, *shared, "--seconds", 4, "--resume")
    _, more = checkpoint.load(run / "last.safetensors")
    assert more["step"] > info["step"]
    (run / "last.safetensors").unlink()  # only the small files were carried away
    report = export(run, tmp_path / "tiny.safetensors")
    assert weights.load(tmp_path / "tiny.safetensors").provenance["steps"] == report.steps
    call(
        monkeypatch,
        train_timed.main,
        *(tmp_path / "pictures", "--out", tmp_path / "on", "--device", "cpu"),
        *("--seconds", 2.5, "--reserve", 0.5, "--init", tmp_path / "tiny.safetensors"),
        *("--set", "data.crop=64", "--set", "data.batch=1"),
    )
    _, on = checkpoint.load(tmp_path / "on" / "last.safetensors")
    assert on["history"] == [f"tiny.safetensors, {report.steps} steps"]
