"""Packing a data set into parts, and training for a given time from them."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diveqcodec import weights
from diveqcodec.train import checkpoint, settings
from diveqcodec.train.config import to_toml
from diveqcodec.train.exporting import export
from diveqcodec.train.plotting import read_log
from diveqcodec.train.schedule import is_linear
from scripts import pack_dataset, train_timed
from tests.training import draw_pictures, tiny_config


def call(monkeypatch: pytest.MonkeyPatch, main: object, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    assert callable(main)
    main()


def test_parts_bring_every_byte_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = draw_pictures(tmp_path / "pictures" / "deep", 7)
    (tmp_path / "pictures" / "notes.txt").write_text("no picture: not packed")
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


def test_deep_pictures_are_made_smaller_without_clipping(tmp_path: Path) -> None:
    Image.fromarray(np.full((50, 100), 32768, np.uint16)).save(tmp_path / "deep.png")
    made = dict(pack_dataset.contents(tmp_path, [tmp_path / "deep.png"], 64, 90))
    (tmp_path / "made.jpg").write_bytes(made["deep.png.jpg"])
    with Image.open(tmp_path / "made.jpg") as image:
        assert (image.mode, image.size, image.getpixel((9, 9))) == ("RGB", (64, 32), (128,) * 3)


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
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    draw_pictures(tmp_path / "pictures")
    call(monkeypatch, pack_dataset.main, tmp_path / "pictures", tmp_path, "--limit", 150_000)
    parts = sorted(tmp_path.glob("part-*.tar"))
    config, run = tmp_path / "c.toml", tmp_path / "run"
    log = {"every": 20, "validate_every": 50, "checkpoint_minutes": 4.0}
    config.write_text(to_toml(tiny_config(100_000, log=log)))
    shared = [*parts, "--out", run, "--device", "cpu", "--reserve", 0.5, "--part-bytes", 200_000]
    started = time.monotonic()
    call(monkeypatch, train_timed.main, *shared, "--seconds", 6, "-c", config)
    assert time.monotonic() - started < 12  # the machine may be busy
    shown = capsys.readouterr().out
    assert "11 pictures to train on, 1 held out" in caplog.text
    assert "weights-1-of-" in shown
    assert '"0.0067"' in shown
    tensors, info = checkpoint.load(run / "last.safetensors")
    # zero at the start: the networks of the transform did not rest to the end
    assert float(tensors["model.synthesis.tail.weight"].abs().max()) > 0
    steps = info["config"]["optim"]["steps"]
    assert 10 < info["step"] <= steps < 5_000  # adapted to the time, and nearly all of them made
    assert info["step"] > 0.7 * steps

    with pytest.raises(SystemExit):
        call(monkeypatch, train_timed.main, *shared, "--seconds", 4)
    assert f"Error: {run}: is not empty; go on with --resume" in capsys.readouterr().err
    written = settings(resumed=run)
    assert (written.optim.steps, written.log.checkpoint_minutes) == (steps, 4.0)
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 1000000, "loss"')  # as a killed run leaves it
    call(monkeypatch, train_timed.main, *shared, "--seconds", 4, "--resume")
    assert all(line["step"] < 5_000 for line in read_log(run))
    assert settings(resumed=run).log.checkpoint_minutes == 4.0
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
    model = f"model {report.model_id.hex()}"
    assert on["history"] == [f"tiny.safetensors, {model}, {report.steps} steps"]
    assert on["config"]["optim"]["linear"] == on["config"]["loss"]["hyper_ramp"] == 0.0


def test_the_pace_follows_the_slower_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 1 s, then of 4 s, 1000 s in all: the end comes when the schedule has come down."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    config = tiny_config(20_000, optim={"linear": 0.3}, log={"validate_every": 100})
    trainer: Any = SimpleNamespace(config=config, step=0, device=torch.device("cpu"))
    pace, phases, foreseen = train_timed.Pace(1000.0), [], []
    while not pace(trainer) and trainer.step < trainer.config.optim.steps:
        phases.append(is_linear(trainer.step, trainer.config))
        if clock[0] > 500:  # soon after the change, at some 300 s
            foreseen.append(trainer.config.optim.steps)
        clock[0] += 1 if phases[-1] else 4
        trainer.step += 1
    assert sorted(phases, reverse=True) == phases  # what is trained never rests again
    assert phases.count(True) > 200
    assert trainer.step / trainer.config.optim.steps > 0.95
    assert max(foreseen) < 1.03 * trainer.step
    assert clock[0] > 950
