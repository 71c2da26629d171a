"""Runs from the outside: folder, log, samples, stopping, failing, starting from weights, export."""

import errno
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

import diveqcodec.train as train
from diveqcodec import locks
from diveqcodec.codec import Codec
from diveqcodec.config import from_dict, to_dict
from diveqcodec.errors import ConfigError, ModelError, TrainingError
from diveqcodec.exact import tensorfile, weights
from diveqcodec.exact.metadata import read_info
from diveqcodec.exact.tensorfile import load_for_training
from diveqcodec.exact.tensorfile import part as part_of
from diveqcodec.train import checkpoint, data, loop, loss, runfolder, validation
from diveqcodec.train import config as config_module
from diveqcodec.train.config import DataConfig, LossConfig, TrainConfig
from diveqcodec.train.config import load as load_config
from diveqcodec.train.exporting import compare, export, load_averaged, provenance
from diveqcodec.train.plotting import read_log
from diveqcodec.train.schedule import average_decay, decoded_by_networks, learning_rate
from diveqcodec.train.statistics import Interval
from tests.support.places import GOLDEN, PACKAGE
from tests.support.tiny import TINY, drawn, tiny_config
from tests.support.training import draw_pictures


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 12 steps; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    config = tiny_config(12, log={"every": 5, "validate_every": 6})
    seen: list[int] = []
    result = train.run(config, dataset, folder, progress=lambda step, line: seen.append(step))
    assert seen == [5, 6, 10, 12, 12]
    assert (result.step, result.steps, result.is_finished) == (12, 12, True)
    assert (result.pictures, result.skipped) == (12, ())
    assert result.seconds > 0
    assert result.best is not None
    return folder


def test_folder_of_a_run(finished: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == [
        "best.safetensors",
        "config.toml",
        "last.safetensors",
        "log.jsonl",
        "samples",
    ]
    assert train.settings(resumed=finished) == tiny_config(
        12, log={"every": 5, "validate_every": 6}
    )
    samples = sorted((finished / "samples").iterdir())
    assert [path.name for path in samples] == ["step-0000006.png", "step-0000012.png"]
    with Image.open(samples[1]) as image:
        assert image.size == (4 * 64, 64)  # original and three qualities of one held-out crop
        original = image.crop((0, 0, 64, 64))
        decoded = image.crop((192, 0, 256, 64))
    assert original.tobytes() != decoded.tobytes()


def test_log_of_a_run(finished: Path) -> None:
    lines = read_log(finished)
    assert [(line["step"], "validation" in line) for line in lines] == [
        (5, False),
        (6, True),
        (10, False),
        (12, False),
        (12, True),
    ]
    line = lines[2]
    assert {"loss", "bpp", "psnr", "lr", "seconds", "crops_per_second"} <= line.keys()
    parts = line["slices"]
    assert ["coarse" in part for part in parts] == [True, False, False]
    assert sum(part["bpp"] for part in parts) == pytest.approx(line["bpp"], abs=1e-3)
    for part in parts:
        assert 0 <= part["null"] <= 1
        assert 0 <= part["used"] <= 65
        assert 1 <= part["perplexity"] <= max(1, part["used"])
    assert all(part["used"] for part in parts[:2])  # nobody need have coded the optional slice
    for lam in ("0.0016", "0.0067", "0.05"):
        assert {"loss", "bpp", "psnr", "networks"} == lines[1][lam].keys()
    assert lines[1]["0.0016"]["bpp"] < lines[1]["0.05"]["bpp"]


def test_the_log_says_the_learning_rate_of_the_schedule(dataset: Path, tmp_path: Path) -> None:
    """Not that of networks which rest: half of the steps, here."""
    optim = {"linear": 0.5, "warmup": 2, "flat": 0.5, "final": 0.0, "lr": 1e-3}
    config = tiny_config(4, optim=optim | {"networks_factor": 0.5}, log={"every": 1})
    train.run(config, dataset, tmp_path / "run")
    rates = [line["lr"] for line in read_log(tmp_path / "run") if "lr" in line]
    # warm-up over two steps; then half a cosine from step 2 to step 4
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])
    assert [learning_rate("networks", step, config) for step in range(4)] == pytest.approx(
        [0.0, 0.0, 2.5e-4, 2.5e-4]
    )


def test_statistics_cover_the_whole_interval(dataset: Path, tmp_path: Path) -> None:
    """One line every 4 steps says the same as the mean of four lines of one step each."""
    lines = []
    for every in (1, 4):
        folder = tmp_path / str(every)
        train.run(tiny_config(4, log={"every": every}), dataset, folder)
        lines.append([line for line in read_log(folder) if "validation" not in line])
    single, whole = lines
    assert len(single) == 4
    assert len(whole) == 1
    for key in ("loss", "bpp", "psnr"):
        mean = sum(line[key] for line in single) / 4
        assert whole[0][key] == pytest.approx(mean, abs=1e-3)
    for number in range(2):  # not the optional slice, whose means have other weights
        parts = [line["slices"][number] for line in single]
        mean = sum(part["null"] for part in parts) / 4
        assert whole[0]["slices"][number]["null"] == pytest.approx(mean, abs=1e-3)
        assert whole[0]["slices"][number]["used"] >= max(part["used"] for part in parts)


def test_loss_falls(dataset: Path, tmp_path: Path) -> None:
    """From components in an order that no picture has; cosines would be too good a start."""
    pictures = data.load(dataset, 64, torch.device("cpu"))
    trainer = loop.Trainer(tiny_config(30, optim={"lr": 3e-3}), pictures, tmp_path)
    interval, losses = Interval(trainer.model, trainer.device), []
    for _ in range(3):
        for _ in range(10):
            trainer.advance(interval)
        losses.append(interval.line()["loss"])
    assert losses[2] < 0.8 * losses[0]


def test_validation_with_nearest_assignment_costs_finite_bits(
    dataset: Path, tmp_path: Path
) -> None:
    """Groups of class 0 can only be null in coding, whatever is nearest."""
    config = tiny_config(2, quantizer={"assignment": "nearest"})
    train.run(config, dataset, tmp_path / "run")
    line = read_log(tmp_path / "run")[-1]
    assert all(line[lam]["bpp"] < 20 for lam in ("0.0016", "0.0067", "0.05"))


def test_ms_ssim_is_trained_and_validated(tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path / "large", 3, (200, 196))
    config = replace(
        tiny_config(2),
        data=DataConfig(crop=192, batch=1, validation=1),
        loss=LossConfig(distortion="ms-ssim"),
    )
    train.run(config, pictures, tmp_path / "run")
    assert 0 < read_log(tmp_path / "run")[-1]["0.05"]["ms_ssim"] < 1


def test_full_folder_is_refused(finished: Path, dataset: Path, tmp_path: Path) -> None:
    before = (finished / "log.jsonl").read_bytes()
    with pytest.raises(TrainingError, match="is not empty; go on with --resume"):
        train.run(tiny_config(), dataset, finished)
    assert (finished / "log.jsonl").read_bytes() == before
    with pytest.raises(TrainingError, match=r"has no last.safetensors to resume from"):
        train.run(tiny_config(), dataset, tmp_path, resume=True)
    (tmp_path / "config.toml").write_bytes((finished / "config.toml").read_bytes())
    with pytest.raises(TrainingError, match="is not empty; overwrite with -f, or name another$"):
        train.run(tiny_config(), dataset, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="is a file; name a folder"):
        train.run(tiny_config(), dataset, tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("main.py", "print()"),
        ("config.toml", "[model]\nlayers = 3\n"),
        ("config.toml", "seed = 1\n"),  # a configuration for a run, which somebody wrote
        ("config.toml", b"\xff"),
        ("log.jsonl", '{"step": 50, "loss": 0.25}\n'),
        ("log.jsonl", "50\n"),
        ("log.jsonl", b"\xff\n"),
        ("last.safetensors", "weights"),
        ("last.safetensors", GOLDEN / "tiny.safetensors"),  # weights, and no checkpoint
    ],
)
def test_force_touches_no_folder_that_is_no_run(
    name: str, content: str | bytes | Path, dataset: Path, tmp_path: Path
) -> None:
    if isinstance(content, Path):
        content = content.read_bytes()
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "step-1.png").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for force in (False, True):
        with pytest.raises(TrainingError, match="is not empty, and no run; name another folder$"):
            train.run(tiny_config(2), dataset, tmp_path, force=force)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["config.toml", "log.jsonl", "last.safetensors"])
def test_force_overwrites_whatever_a_run_has_left(
    name: str, finished: Path, dataset: Path, tmp_path: Path
) -> None:
    """A run may have been killed at any moment."""
    (tmp_path / name).write_bytes((finished / name).read_bytes())
    train.run(tiny_config(2), dataset, tmp_path, force=True)
    assert [line["step"] for line in read_log(tmp_path)] == [2, 2]


def test_force_starts_anew_and_keeps_what_is_not_ours(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "log.jsonl").write_text('{"step": 99, "slices": []}\n')
    (tmp_path / "samples").mkdir()
    kept = tmp_path / "samples" / "precious.png"
    kept.write_text("mine")
    old = ("curves.png", "best.safetensors", "samples/step-0000099.png")
    for name in old:
        (tmp_path / name).write_text("")
    train.run(tiny_config(2), dataset, tmp_path, force=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert [line["step"] for line in read_log(tmp_path)] == [2, 2]
    assert kept.read_text() == "mine"
    assert not (tmp_path / "samples" / "step-0000099.png").exists()
    assert not (tmp_path / "curves.png").exists()
    assert (tmp_path / "best.safetensors").stat().st_size > 0


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("error", [None, RuntimeError("out of memory")])
def test_an_old_run_is_lost_only_when_the_new_one_has_something(
    finished: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = contents(run)
    real = loss.weighted_distortion
    calls = []

    def failing(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) < 2:
            return real(*arguments)
        if error is not None:
            raise error
        return real(*arguments) * float("nan")

    monkeypatch.setattr(loop, "weighted_distortion", failing)
    message = "step 1: .* nothing was written: start again with -f --set"
    with pytest.raises(type(error or TrainingError()), match=str(error or message)):
        train.run(tiny_config(4), dataset, run, force=True)
    assert contents(run) == before


@pytest.mark.parametrize("resume", [False, True])
def test_two_trainings_do_not_write_into_one_folder(
    finished: Path, dataset: Path, tmp_path: Path, resume: bool
) -> None:
    run = tmp_path / "new" / "run"
    if resume:
        shutil.copytree(finished, run)
    refused: list[str] = []

    def another(step: int, line: dict[str, Any]) -> None:
        del step, line
        for force in (False, not resume):
            with pytest.raises(TrainingError) as caught:
                train.run(tiny_config(2), dataset, run, resume=resume, force=force)
            refused.append(str(caught.value))

    config = tiny_config(14 if resume else 2)
    assert train.run(config, dataset, run, resume=resume, progress=another).is_finished
    message = f"{run}: another training is writing into it; wait for its end, or name another"
    # a new run is refused for what is there, if it may not overwrite it
    assert set(refused) - {message} == (set() if resume else {refused[0]})
    assert message in refused
    steps = [line["step"] for line in read_log(run)]
    assert steps == ([5, 6, 10, 12, 12, 14, 14] if resume else [2, 2])
    assert not (run / runfolder._LOCK).exists()


def test_a_second_training_is_refused_before_anything_is_written(
    dataset: Path, tmp_path: Path
) -> None:
    """Though there is nothing yet in the folder that tells of the first."""
    run = tmp_path / "new" / "run"
    with (
        runfolder.held(run, resume=False, force=False),
        pytest.raises(TrainingError, match="run: another training is writing into it; "),
    ):
        train.run(tiny_config(2), dataset, run)
    assert list(tmp_path.iterdir()) == []
    with (
        pytest.raises(TrainingError, match="no such folder"),
        runfolder.held(run, resume=False, force=False),
    ):
        train.run(tiny_config(2), tmp_path / "none", tmp_path / "other" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_training_holds_no_folder(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code = (
        "import os, pathlib, signal\nfrom diveqcodec.train import runfolder\n"
        f"with runfolder.held(pathlib.Path({str(run)!r}), resume=False, force=False):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert os.listdir(run) == [runfolder._LOCK]
    assert train.run(tiny_config(1), dataset, run).is_finished
    assert runfolder._LOCK not in os.listdir(run)


@pytest.mark.parametrize("lacking", ["module", "file system"])
def test_where_there_are_no_locks_runs_are_made_without(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    def refuse(_file: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    if lacking == "module":
        monkeypatch.setattr(locks, "sys", SimpleNamespace(platform="win32"))
    else:
        monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    assert train.run(tiny_config(1), dataset, tmp_path / "run").is_finished


def test_a_lock_that_was_removed_while_it_was_taken_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that ends removes it: who has opened it before would share it with nobody."""
    path = tmp_path / "lock"
    fcntl = pytest.importorskip("fcntl")
    real = fcntl.flock
    calls: list[None] = []

    def late(file: int, operation: int) -> None:
        if not calls:
            path.unlink()
        calls.append(real(file, operation))

    monkeypatch.setattr(fcntl, "flock", late)
    file = runfolder._locked(path)
    assert len(calls) == 2
    with pytest.raises(BlockingIOError):
        runfolder._locked(path)
    os.close(file)


def test_what_a_killed_run_has_half_written_is_swept(dataset: Path, tmp_path: Path) -> None:
    """But nothing of this moment, nor anything else; a folder with nothing more is empty."""
    (tmp_path / "samples").mkdir()
    half = [folder / f".diveq-{n:016x}.tmp" for n, folder in enumerate((tmp_path, tmp_path))]
    for path in half:
        path.write_text("half")
    assert runfolder._is_empty(tmp_path) is False
    (tmp_path / "samples").rmdir()
    assert runfolder._is_empty(tmp_path) is True
    os.utime(half[0], (0, 0))
    mine = tmp_path / ".diveq-mine.tmp"
    train.run(tiny_config(1), dataset, tmp_path)
    mine.write_text("mine")
    os.utime(mine, (0, 0))
    (tmp_path / "samples" / half[0].name).write_text("half")
    os.utime(tmp_path / "samples" / half[0].name, (0, 0))
    train.run(tiny_config(2), dataset, tmp_path, resume=True)
    assert {path.name for path in tmp_path.rglob(".*")} == {half[1].name, mine.name}


@pytest.mark.parametrize("drawn", ["curves.png", "step-0000001.png"])
def test_pictures_of_a_run_are_written_whole(
    finished: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: str
) -> None:
    """A full disk leaves the picture that was there."""
    run = tmp_path / "run"
    target = run / "samples" / drawn if drawn.startswith("step") else run / drawn
    target.parent.mkdir(parents=True)
    target.write_text("old")
    (run / "log.jsonl").write_bytes((finished / "log.jsonl").read_bytes())

    def full(_image: Image.Image, path: Any, *_arguments: Any, **_options: Any) -> None:
        (Path(path) if isinstance(path, str | Path) else Path(path.name)).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    if drawn == "curves.png":
        pytest.importorskip("matplotlib")
        with pytest.raises(TrainingError, match=r"plot not written \(No space left on device\)"):
            train.plot(run, target)
    else:
        pixels = torch.zeros(3, 8, 8, dtype=torch.uint8)
        with pytest.raises(OSError, match="No space left"):
            validation.Scores({}, 0.0, [[pixels]]).draw(target)
    assert target.read_text() == "old"
    assert not list(run.rglob("*.tmp"))


def interrupt_at(step: int, number: int = signal.SIGINT) -> loop.Progress:
    def progress(now: int, line: dict[str, Any]) -> None:
        if now == step and "validation" not in line:
            os.kill(os.getpid(), number)

    return progress


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_is_saved_and_resumed(dataset: Path, tmp_path: Path, number: int) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    config = tiny_config(6)
    result = train.run(config, dataset, tmp_path / "run", progress=interrupt_at(2, number))
    assert (result.step, result.is_finished) == (3, False)  # asked before the step it ends with
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    with (tmp_path / "run" / "log.jsonl").open("a") as file:
        file.write('{"step": 5}\n{"step": 6, "lo')  # lines that the checkpoint does not cover
    config = train.settings(resumed=tmp_path / "run")
    result = train.run(config, dataset, tmp_path / "run", resume=True)
    assert (result.step, result.is_finished) == (6, True)
    assert [line["step"] for line in read_log(tmp_path / "run")] == [2, 4, 6, 6]
    train.run(config, dataset, tmp_path / "whole")
    one, other = (load_file(tmp_path / name / "last.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_runs_in_other_threads_leave_signals_alone(dataset: Path, tmp_path: Path) -> None:
    results: list[train.Result] = []
    thread = threading.Thread(
        target=lambda: results.append(train.run(tiny_config(1), dataset, tmp_path / "run"))
    )
    thread.start()
    thread.join()
    assert results[0].is_finished


def test_not_a_number_stops_and_keeps_the_last_good_checkpoint(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    train.run(tiny_config(4), dataset, folder)
    before = (folder / "last.safetensors").read_bytes()
    real = loss.weighted_distortion
    calls = []

    def poisoned(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return real(*arguments) * (float("nan") if len(calls) == 2 else 1.0)

    monkeypatch.setattr(loop, "weighted_distortion", poisoned)
    config = train.settings(resumed=folder, steps=8, assignments=("log.checkpoint_minutes=0.0",))
    with pytest.raises(TrainingError, match="step 5: loss or gradient is not a number") as caught:
        train.run(config, dataset, folder, resume=True)
    monkeypatch.undo()
    _, info = checkpoint.load(folder / "last.safetensors")
    assert info["step"] == 5  # of the good step that came before it
    assert before != (folder / "last.safetensors").read_bytes()
    assert "go on with --resume --set optim.lr=0.00035" in str(caught.value)
    assert train.run(config, dataset, folder, resume=True).is_finished


def test_a_loss_that_is_not_a_number_stops_though_its_gradient_is_one(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loss.balanced
    monkeypatch.setattr(loop, "balanced", lambda *a: real(*a) + float("nan"))
    with pytest.raises(TrainingError, match="step 0: loss or gradient is not a number"):
        train.run(tiny_config(4), dataset, tmp_path / "run")


def test_not_a_number_before_the_first_checkpoint_promises_none(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loss.weighted_distortion
    monkeypatch.setattr(loop, "weighted_distortion", lambda *a: real(*a) * float("nan"))
    with pytest.raises(TrainingError, match="nothing was written: start again with --set optim"):
        train.run(tiny_config(4), dataset, tmp_path / "run")
    assert not (tmp_path / "run" / "last.safetensors").exists()
    calls = []

    def late(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return real(*arguments) * (float("nan") if len(calls) == 4 else 1.0)

    monkeypatch.setattr(loop, "weighted_distortion", late)
    with pytest.raises(TrainingError, match="no checkpoint yet: start again with -f --set optim"):
        train.run(tiny_config(4), dataset, tmp_path / "run")  # a line of its log is there


def test_seeds_are_those_that_a_step_can_use(dataset: Path, tmp_path: Path) -> None:
    for seed in (-1, 2**32, 5_000_000_000):
        with pytest.raises(ConfigError, match=rf"^seed: {seed} is not in 0 \.\.\. 4294967295$"):
            train.settings(seed=seed)
    config = replace(tiny_config(1), seed=2**32 - 1)
    assert train.run(config, dataset, tmp_path / "run").is_finished


def test_a_run_of_a_given_time_adapts_its_steps(dataset: Path, tmp_path: Path) -> None:
    """And comes to the end of its schedule when the time is up; the configuration says so."""
    started = time.monotonic()
    config = tiny_config(100_000, log={"every": 5})
    result = train.run(config, dataset, tmp_path / "run", hours=3 / 3600)
    assert time.monotonic() - started < 30  # the machine may be busy
    assert result.is_finished
    assert 1 < result.step == result.steps < 5_000
    assert train.settings(resumed=tmp_path / "run").optim.steps == result.steps
    assert read_log(tmp_path / "run")[-1]["step"] == result.step
    _, info = checkpoint.load(tmp_path / "run" / "last.safetensors")
    assert info["config"]["optim"]["steps"] == info["step"] == result.step


def test_steps_below_those_made_are_refused(finished: Path, dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = contents(run)
    for steps in (1, 11):
        config = train.settings(resumed=run, steps=steps)
        with pytest.raises(TrainingError, match=f"run: is at step 12 already, of {steps}; give "):
            train.run(config, dataset, run, resume=True)
        assert contents(run) == before
    result = train.run(train.settings(resumed=run), dataset, run, resume=True)
    assert (result.step, result.is_finished) == (12, True)


@pytest.mark.parametrize("steps", [2, 12])
def test_a_session_of_a_given_time_goes_on_from_any_step(
    finished: Path, dataset: Path, tmp_path: Path, steps: int
) -> None:
    """A timed run that is killed has made other steps than its configuration says."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = train.settings(resumed=run, steps=steps)
    result = train.run(config, dataset, run, resume=True, hours=0.5 / 3600)
    assert result.is_finished
    assert 12 < result.step == result.steps


def test_full_disk_while_resuming_leaves_log_and_configuration(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train.run(tiny_config(2), dataset, tmp_path)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 7}\n')
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    real = Path.write_text

    def full(path: Path, text: str, *rest: Any) -> int:
        real(path, text[:10], *rest)
        raise OSError(28, "No space left on device")

    # in the order in which they are written, and how they begin
    for broken, begins in (("log.jsonl", "{"), ("config.toml", "seed = ")):
        monkeypatch.setattr(
            Path,
            "write_text",
            lambda path, text, *rest, begins=begins: (
                full(path, text, *rest) if text.startswith(begins) else real(path, text, *rest)
            ),
        )
        with pytest.raises(TrainingError, match="cannot be written .No space left on device"):
            train.run(tiny_config(4), dataset, tmp_path, resume=True)
        if broken == "log.jsonl":
            assert {path: path.read_bytes() for path in before} == before
        assert (tmp_path / "config.toml").read_bytes() == before[tmp_path / "config.toml"]
        assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("kind", [OSError, SafetensorError])
def test_full_disk_on_the_way_and_at_the_end(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[Exception],
) -> None:
    folder = tmp_path / "run"
    train.run(tiny_config(2), dataset, folder)
    before = (folder / "last.safetensors").read_bytes()
    real = safetensors.torch.save_file
    tries: list[Path] = []

    def full(tensors: Any, path: Path, **rest: Any) -> None:
        tries.append(path)
        Path(path).write_bytes(b"part of it")
        raise kind("No space left on device")

    monkeypatch.setattr(tensorfile, "save_file", full)
    config = train.settings(resumed=folder, steps=4, assignments=("log.checkpoint_minutes=0.0",))
    with pytest.raises(TrainingError, match=r"last.safetensors: not written .*No space left"):
        train.run(config, dataset, folder, resume=True)
    assert len(tries) >= 3  # it went on after the first one
    assert "training goes on" in caplog.text
    assert (folder / "last.safetensors").read_bytes() == before
    assert not list(folder.glob("*.tmp"))
    monkeypatch.setattr(tensorfile, "save_file", real)
    assert train.run(config, dataset, folder, resume=True).step == 4


def test_dry_run_counts_and_writes_nothing(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = train.dry_run(tiny_config(100), dataset)
    assert (result.pictures, result.held_out) == (11, 1)
    assert result.parameters > 10_000
    assert result.crops_per_second == pytest.approx(2 / result.seconds_per_step)
    assert result.megabytes == pytest.approx(12 * 3 * 96 * 80 / 1e6)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("linear", "wanted"), [(0.25, 2.5), (0.0, 3.0), (1.0, 1.0)])
def test_dry_run_weights_the_phases_by_their_steps(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, linear: float, wanted: float
) -> None:
    """A step with resting networks takes 1 s, another 3 s, and the first of each 100 s more."""
    clock, seen = [0.0], set()
    real = loop.Trainer.advance

    def advance(self: loop.Trainer, interval: Interval) -> None:
        rests = decoded_by_networks(self.step, 2, self.config) == 0
        real(self, interval)
        clock[0] += (1 if rests else 3) + 100 * (rests not in seen)
        seen.add(rests)

    monkeypatch.setattr(loop.Trainer, "advance", advance)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    result = train.dry_run(tiny_config(8, optim={"linear": linear}), dataset)
    assert result.seconds_per_step == pytest.approx(wanted)
    assert result.crops_per_second == pytest.approx(2 / wanted)


def test_the_number_of_pictures_and_their_memory_are_logged(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        train.run(tiny_config(1), dataset, tmp_path / "run")
    assert "11 pictures to train on, 1 held out, 0 left out; 0 MB in memory" in caplog.messages
    assert "held out, so" not in caplog.text


def test_validating_on_training_pictures_is_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train.run(tiny_config(1), draw_pictures(tmp_path / "few", 9), tmp_path / "run")
    assert "no picture of 9 is held out, so validation sees what is trained on" in caplog.text


def test_large_pictures_are_shrunk_when_a_run_loads_them(tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path / "large", 2, (300, 100))
    config = tiny_config(1)
    whole = train.dry_run(config, pictures)
    small = train.dry_run(replace(config, data=replace(config.data, long_side=150)), pictures)
    assert whole.megabytes == pytest.approx(2 * 3 * 300 * 100 / 1e6)
    assert small.megabytes == pytest.approx(2 * 3 * 192 * 64 / 1e6)  # crops of 64 still fit


def test_errors_of_a_file_name_it(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[optim]\nstepz = 3\n")
    with pytest.raises(ConfigError, match=rf"^{path}: unknown key optim.stepz; did you mean"):
        load_config(path, ("optim.lr=1",))
    path.write_text("[optim]\nsteps = 3\n")
    with pytest.raises(ConfigError, match="^unknown key optim.lrr"):
        load_config(path, ("optim.lrr=1",))
    path.write_text("[data]\ncrop = 100\n")
    with pytest.raises(ConfigError, match=rf"^{path}: data.crop: 100 is not a multiple"):
        load_config(path)
    assert load_config(path, ("data.crop=128",)).data.crop == 128  # an assignment is the remedy


def test_unknown_keys_are_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key optim.stepz; did you mean optim.steps"):
        train.settings(assignments=("optim.stepz=3",))
    path = tmp_path / "c.toml"
    path.write_text("[data]\nbatch = 'four'\n")
    with pytest.raises(ConfigError, match=r"data.batch: expected int, got 'four'"):
        train.settings(path)
    for bad in (
        "data.long_side=100",
        "data.crop=100",
        "log.every=0",
        "data.min_scale=0.0",
        "optim.steps=0",
    ):
        with pytest.raises(ConfigError, match=bad.partition("=")[0]):
            train.settings(assignments=(bad,))
    with pytest.raises(ConfigError, match="too small for loss.distortion = ms-ssim"):
        train.settings(assignments=("loss.distortion=ms-ssim", "data.crop=128"))
    path.write_text("[optim]\nlr = 1e-4\n")
    config = train.settings(path, ("optim.clip=3",), steps=7, seed=5)
    assert (config.optim.lr, config.optim.clip) == (1e-4, 3.0)
    assert (config.optim.steps, config.seed) == (7, 5)


def test_the_check_of_an_export_compares_networks_that_see_the_same(
    finished: Path, tmp_path: Path
) -> None:
    """Codecs average over the mirror image, runs do not need to; it is no cost of the integers."""
    model, info = load_averaged(finished)
    torch.manual_seed(0)
    with torch.no_grad():
        model.synthesis.tail.weight.normal_(0, 0.3)
    weights.save(model, tmp_path / "loud.safetensors", provenance(info, ""))
    codec = Codec(weights.load(tmp_path / "loud.safetensors"), networks=torch.float32)
    crop = torch.from_numpy(drawn(96, 128, 7)).permute(2, 0, 1)
    check = compare(model, codec, [crop], 50)
    assert check.fixed_psnr == pytest.approx(check.float_psnr, abs=0.02)


def test_export_and_training_on_from_it(finished: Path, dataset: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "tiny.safetensors"
    report = export(finished, target, check=dataset, licence="CC0", limit=2)
    assert report.steps == 12
    assert report.pictures == 2
    for check in report.checks:
        assert check.fixed_bpp == pytest.approx(check.float_bpp, rel=0.02)
        assert check.fixed_psnr == pytest.approx(check.float_psnr, abs=0.1)
    assert report.checks[0].fixed_bpp < report.checks[-1].fixed_bpp
    loaded = weights.load(target)
    assert loaded.model_id == report.model_id
    assert loaded.provenance["steps"] == 12
    assert loaded.provenance["licence"] == "CC0"
    assert loaded.provenance["dataset"]["pictures"] == 12
    model, _ = load_for_training(target)
    average = part_of(load_file(finished / "last.safetensors"), "average.")
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), average[name], rtol=1e-3, atol=1e-6)

    result = train.run(
        train.settings(steps=2, assignments=SMALL), dataset, tmp_path / "on", init=target
    )
    assert result.is_finished
    tensors, info = checkpoint.load(tmp_path / "on" / "last.safetensors")
    assert info["history"] == [f"tiny.safetensors, model {report.model_id.hex()}, 12 steps"]
    first = tensors["model.synthesis.stem.weight"]
    torch.testing.assert_close(first, average["synthesis.stem.weight"], rtol=0.0, atol=2e-3)
    for name in ("order", "rows", "colour"):  # the analysis stays, to the last bit
        stays = f"analysis.basis.{name}"
        assert torch.equal(tensors[f"model.{stays}"], load_file(target)[f"networks.{stays}"])
    again = export(tmp_path / "on", tmp_path / "again.safetensors")
    assert again.model_id != report.model_id
    assert again.checks == ()
    assert weights.load(again.path).provenance["history"] == info["history"]


def test_the_first_step_after_init_is_that_of_the_imported_model(
    dataset: Path, tmp_path: Path
) -> None:
    """All of its networks are at work at once."""
    torch.manual_seed(3)
    pictures = data.load(dataset, 64, torch.device("cpu"))
    trainer = loop.Trainer(tiny_config(1), pictures, tmp_path)
    trainer.start()
    model = trainer.model
    torch.nn.init.normal_(model.synthesis.tail.weight, std=0.5)
    weights.save(model, tmp_path / "mine.safetensors", {"steps": 9, "history": []})

    config = train.settings(steps=1, assignments=SMALL)
    train.run(config, dataset, tmp_path / "on", init=tmp_path / "mine.safetensors")
    imported, _ = load_for_training(tmp_path / "mine.safetensors")
    x = data.batch(pictures.split(2)[0], config.data, 0, 0)
    lam = data.lambdas(TINY.lambda_min, TINY.lambda_max, config.data, 0, 0)
    wanted = {}
    for whole in (0, 1, 2):
        with torch.no_grad():
            output = loop.forward(imported, x, lam, whole)
        cost = output.bits / 64**2 + loss.weighted_distortion(output.x_hat, x, lam, "mse")
        wanted[whole] = float(loss.balanced(cost, lam))
    first = read_log(tmp_path / "on")[0]
    assert first["loss"] == pytest.approx(wanted[2], rel=1e-3)
    assert min(abs(wanted[whole] - wanted[2]) for whole in (0, 1)) > 0.005 * wanted[2]
    resolved = train.settings(resumed=tmp_path / "on")
    assert resolved.optim.linear == 0.0
    assert resolved.model == TINY


SMALL = (
    *("data.crop=64", "data.batch=2", "data.validation=2"),
    *("optim.warmup=2", "optim.networks_share=1.0"),
)


def test_init_refuses_what_does_not_fit(
    finished: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "tiny.safetensors"
    export(finished, target)
    other = replace(tiny_config(1), model=replace(TINY, width8=24))
    with pytest.raises(TrainingError, match=r"leave model.\* out of it"):
        train.run(other, dataset, tmp_path / "run", init=target)
    with pytest.raises(ModelError, match="a checkpoint, not weights"):
        train.run(tiny_config(1), dataset, tmp_path / "run", init=finished / "last.safetensors")
    with pytest.raises(TrainingError, match="either resumed or started from weights"):
        train.run(tiny_config(1), dataset, finished, init=target, resume=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(TrainingError, match="not a checkpoint of `diveq train`"):
        export(target, tmp_path / "again.safetensors")
    with monkeypatch.context() as patch:
        full = Mock(side_effect=SafetensorError("No space left on device"))
        patch.setattr(tensorfile, "save_file", full)
        again = tmp_path / "again.safetensors"
        with pytest.raises(ModelError, match=rf"^{again}: weights not written \(No space left"):
            export(finished, again)
        assert not again.exists()
    with pytest.raises(TrainingError, match="not a run; `diveq train` makes runs"):
        export(dataset, tmp_path / "again.safetensors")


def test_plot_is_a_picture_of_the_log(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib = pytest.importorskip("matplotlib.figure", reason="not installed")
    drawn: list[Any] = []
    real = matplotlib.Figure.savefig

    def watched(figure: Any, *arguments: Any, **options: Any) -> None:
        drawn.append(figure)
        real(figure, *arguments, **options)

    monkeypatch.setattr(matplotlib.Figure, "savefig", watched)
    train.plot(finished, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1200, 800)
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 100
    (figure,) = drawn
    panels = {one.get_title(): one.lines for one in figure.axes}
    # the training and three qualities; three slices
    assert [len(lines) for lines in panels.values()] == [4, 4, 4, 3, 3, 3]
    trained = [line for line in read_log(finished) if "validation" not in line]
    for key, title in (("loss", "loss"), ("bpp", "bits a pixel"), ("psnr", "PSNR (dB)")):
        assert list(panels[title][0].get_xdata()) == [5, 10, 12]
        assert list(panels[title][0].get_ydata()) == [line[key] for line in trained]
        assert list(panels[title][1].get_xdata()) == [6, 12]
    nulls = [line["slices"][1]["null"] for line in trained]
    assert list(panels["share of null codewords"][1].get_ydata()) == nulls
    with pytest.raises(TrainingError, match="give the folder of a run"):
        train.plot(tmp_path, tmp_path / "curves.png")


def test_plot_without_matplotlib_names_the_remedy(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(TrainingError, match="pip install matplotlib"):
        train.plot(finished, tmp_path / "curves.png")


def test_training_needs_no_entropy_coder() -> None:
    code = (
        "import sys, diveqcodec.train\n"
        "heavy = ('constriction', 'compressai', 'click', 'matplotlib')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def test_log_of_a_run_is_json_lines(finished: Path) -> None:
    for text in (finished / "log.jsonl").read_text().splitlines():
        assert isinstance(json.loads(text), dict)


def test_networks_rest_then_see_a_share_then_all() -> None:
    config = tiny_config(100, optim={"linear": 0.1, "flat": 0.8, "networks_share": 0.3})
    counts = [decoded_by_networks(step, 4, config) for step in range(100)]
    assert counts == [0] * 10 + [2] * 70 + [4] * 20  # a share is rounded up
    assert [decoded_by_networks(50, crops, config) for crops in (1, 2, 10)] == [1, 1, 3]
    config = tiny_config(100, optim={"linear": 0.0, "networks_share": 1.0})
    assert {decoded_by_networks(step, 4, config) for step in range(100)} == {4}


def test_numbers_that_mean_nothing_are_refused() -> None:
    """Every number of the configuration, the model's apart, has its range and keeps to it."""
    refused = {
        "is not positive": ("0", "-1"),
        "is negative": ("-1",),
        "is not in [0, 1]": ("-0.1", "1.1"),
        "is not in [0, 1)": ("-0.1", "1.0"),
        "is not in (0, 1]": ("0.0", "1.1"),
        "is not in 0 ... 4294967295": ("-1", "4294967296"),
        "is below 64, the smallest side of a crop": ("0", "-64", "48"),
    }
    named = set()
    for _, complaint, names in config_module._RANGES:
        for name, text in itertools.product(names, refused[complaint]):
            named.add(name)
            values = f"[0.9, {text}]" if name == "optim.betas" else text
            with pytest.raises(ConfigError) as caught:
                load_config(None, (f"{name}={values}",))
            assert str(caught.value).startswith(f"{name}: ")
            assert str(caught.value).endswith(complaint)
    numbers = {
        f"{section}.{key}".removeprefix(".")
        for section, values in {"": to_dict(TrainConfig()), **to_dict(TrainConfig())}.items()
        if isinstance(values, dict) and section != "model"
        for key, value in values.items()
        if not isinstance(value, str | bool | dict)
    }
    assert named == numbers


def test_numbers_of_documented_runs_are_taken() -> None:
    zeros = ("linear", "encoder_factor", "weight_decay", "warmup", "networks_share", "final")
    load_config(None, tuple(f"optim.{name}=0" for name in zeros))
    load_config(None, ("optim.linear=1", "optim.flat=1.0", "optim.ema=.98", "data.validation=0"))
    load_config(None, ("data.long_side=0", "log.checkpoint_minutes=0", "log.samples=0"))
    for path in (PACKAGE.parent / "models").glob("*.safetensors"):
        from_dict(TrainConfig, read_info(path)["provenance"]["config"])


def test_a_run_of_numbers_no_longer_taken_is_exported(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "last.safetensors"
    tensors, info = checkpoint.load(finished / "last.safetensors")
    info["config"]["optim"]["linear"] = 1.5
    tensorfile.write(run, tensors, info)
    export(run, tmp_path / "mine.safetensors")
    origin = read_info(tmp_path / "mine.safetensors")["provenance"]
    assert origin["config"]["optim"]["linear"] == 1.5


def test_every_kind_of_parameter_has_its_learning_rate(dataset: Path, tmp_path: Path) -> None:
    """Every parameter is in the optimizer once, and its group's rate is set in every step."""
    optim = {"lr": 1e-3, "linear": 0.0, "warmup": 1}
    optim |= {"networks_factor": 0.5, "prior_factor": 3.0, "table_factor": 7.0}
    pictures = data.load(dataset, 64, torch.device("cpu"))
    trainer = loop.Trainer(tiny_config(10, optim=optim), pictures, tmp_path)
    groups = trainer.optimizer.param_groups
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in trainer.model.parameters())
    trainer.advance(Interval(trainer.model, trainer.device))
    rates = {group["kind"]: group["lr"] for group in groups}
    assert rates == pytest.approx(
        {
            "predistortion": 1e-3,  # of nothing: this model has none
            "networks": 5e-4,
            "prior": 3e-3,
            "linear": 1e-3 * trainer.config.optim.linear_factor,
            "analysis": 0.0,
            "codebook": 1e-3 * trainer.config.optim.codebook_factor,
            "table": 7e-3,
        }
    )


def test_averaged_weights_trail_behind(dataset: Path, tmp_path: Path) -> None:
    pictures = data.load(dataset, 64, torch.device("cpu"))
    trainer = loop.Trainer(tiny_config(4), pictures, tmp_path)
    trainer.start()
    start = trainer.model.prior.nets[0].out.weight.detach().clone()
    trainer.advance(Interval(trainer.model, trainer.device))
    now = trainer.model.prior.nets[0].out.weight.detach()
    average = trainer.average["prior.nets.0.out.weight"]
    decay = average_decay(0, 0.999)
    assert 0 < decay < 1
    torch.testing.assert_close(average, decay * start + (1 - decay) * now)
    assert average_decay(100_000, 0.999) == 0.999


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "+nan", "1" + "0" * 400])
@pytest.mark.parametrize("name", ["optim.lr", "optim.flat", "log.checkpoint_minutes"])
def test_settings_are_finite_numbers(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: expected a finite number, got .{{1,20}}$"):
        load_config(None, (f"{name}={text}",))
    path = tmp_path / "c.toml"
    path.write_text(f"{name} = {text}\n")
    with pytest.raises(ConfigError, match=rf"^{path}: {name}: expected a finite number, got "):
        load_config(path)


def test_pairs_of_numbers_are_finite() -> None:
    with pytest.raises(ConfigError, match=r"^optim.betas: expected a finite number, got nan$"):
        load_config(None, ("optim.betas=[0.9, nan]",))


@pytest.mark.parametrize("hours", [math.nan, math.inf, 0.0, -1.0, 1e300])
def test_hours_that_no_run_takes(hours: float, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^hours: "):
        train.run(tiny_config(), dataset, tmp_path / "run", hours=hours)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["0.98", ".98", "98e-2", "+.98", "9.8e-1"])
def test_numbers_of_an_assignment_may_be_written_as_people_do(text: str) -> None:
    assert load_config(None, (f"optim.ema={text}",)).optim.ema == 0.98


def test_assignments_may_be_those_of_python() -> None:
    assert load_config(None, ("optim.warmup=1", "optim.lr=1.", "model.predistortion=True")) == (
        load_config(None, ("optim.warmup=1", "optim.lr=1.0", "model.predistortion=true"))
    )
    with pytest.raises(ConfigError, match=r"optim.ema: expected float, got '\.'"):
        load_config(None, ("optim.ema=.",))
