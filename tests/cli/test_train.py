"""The commands around training; what training does is tested elsewhere."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from diveqcodec import zoo
from diveqcodec.train import loop
from diveqcodec.train.config import to_toml
from diveqcodec.train.loop import Trainer
from tests.support.commands import diveq, errors, install_tiny, opened
from tests.support.tiny import tiny_config
from tests.support.training import draw_pictures, few_blocks


@pytest.fixture(autouse=True)
def _sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_tiny(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "cosine_basis", few_blocks)
    draw_pictures(Path("photos"))
    Path("tiny.toml").write_text(to_toml(tiny_config(steps=4)))


def test_train_plot_export_compress() -> None:
    result = diveq("train", "photos", "-c", "tiny.toml", "-o", "runs/mine", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[-1] == "next: diveq export runs/mine -o mine.safetensors"
    assert "step 4/4   loss " in result.stderr
    assert "step 4/4   validation   λ " in result.stderr

    pytest.importorskip("matplotlib")
    assert diveq("train", "--plot", "runs/mine").exit_code == 0
    assert opened("runs/mine/curves.png").width > 300

    Path("mine.safetensors.tmp").write_text("mine")
    options = ("--check", "photos", "--licence", "free for all")
    result = diveq("export", "runs/mine", "-o", "mine.safetensors", *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("6 pictures ")
    assert result.stdout.count(" bits ") == 3
    assert Path("mine.safetensors.tmp").read_text() == "mine"
    entry = zoo.find("mine.safetensors")
    assert f"model {entry.model_id}   step 4" in result.stderr
    assert entry.provenance["licence"] == "free for all"
    assert diveq("compress", "photos/picture-00.png", "-m", "mine.safetensors").exit_code == 0
    assert diveq("models", "--import", "mine.safetensors").exit_code == 0
    assert diveq("decompress", "photos/picture-00.dvq", "-f").exit_code == 0

    arguments = ("--init", "mine.safetensors", "-c", "tiny.toml", "--steps", 1, "--quiet")
    result = diveq("train", "photos", *arguments)
    assert result.exit_code == 0, result.output
    result = diveq("export", "runs/mine", "-o", "mine.safetensors")
    assert errors(result) == ["Error: mine.safetensors: already exists; use -f to overwrite"]

    last = Path("runs/mine/last.safetensors")
    before = last.read_bytes()
    for run in (last, last.parent):
        result = diveq("export", run, "-o", last, "-f")
        assert errors(result) == [
            f"Error: {last}: is the input itself; name another output with -o"
        ]
        assert last.read_bytes() == before


def test_options_replace_settings_and_the_run_has_a_default_name() -> None:
    arguments = ("-c", "tiny.toml", "--steps", 2, "--seed", 7, "--set", "optim.lr=1e-4")
    assert diveq("train", "photos", *arguments, "--quiet").exit_code == 0
    written = Path("runs/photos/config.toml").read_text()
    assert "steps = 2\n" in written
    assert "seed = 7\n" in written
    assert "lr = 0.0001\n" in written


def test_a_used_folder_is_refused_without_f_or_resume() -> None:
    arguments = ("train", "photos", "-c", "tiny.toml", "-o", "run", "--steps", 1, "--quiet")
    assert diveq(*arguments).exit_code == 0
    result = diveq(*arguments)
    assert result.exit_code == 1
    assert errors(result)[0].startswith("Error: run: is not empty; go on with --resume")
    assert diveq(*arguments, "-f").exit_code == 0


def test_an_interrupted_run_says_how_to_go_on() -> None:
    advance = Trainer.advance

    def interrupted(self: Trainer, *arguments: Any) -> None:
        advance(self, *arguments)
        if self.step == 1:  # asked before the next step, which is made
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupted)
        result = diveq("train", "photos", "-c", "tiny.toml", "-o", "run")
    assert result.exit_code == 1
    (line,) = errors(result)
    assert line.startswith("Error: run: stopped at step 2 of 4")
    assert line.endswith("Go on with: diveq train photos -o run --resume")
    result = diveq("train", "photos", "-o", "run", "--resume")
    assert result.exit_code == 0
    assert "step 4/4" in result.stderr


@pytest.mark.parametrize(
    ("others", "note"),
    [(1, "1 file of photos was left out"), (2, "2 files of photos were left out")],
)
def test_files_left_out_are_named_and_counted(others: int, note: str) -> None:
    for number in range(others):
        Path(f"photos/broken-{number}.png").write_bytes(b"\x89PNG nothing else")
    result = diveq("train", "photos", "-c", "tiny.toml", "-o", "run", "--steps", 1)
    assert result.exit_code == 0
    notes = [line for line in result.stderr.splitlines() if line.startswith("Note: ")]
    assert "Note: left out broken-0.png: not an image that Pillow can read" in notes
    assert f"Note: {note}" in notes


def test_names_that_are_not_utf8() -> None:
    """Of pictures, of a file left out, of their folder."""
    photos = os.fsdecode(b"ph\xe9")
    try:
        Path("photos").rename(photos)
    except OSError:
        pytest.skip("names are UTF-8 here")
    Path(photos, "picture-00.png").rename(Path(photos, os.fsdecode(b"\xe9.png")))
    Path(photos, os.fsdecode(b"\xe9.txt")).write_text("words")
    result = diveq("train", photos, "-c", "tiny.toml", "-o", "run", "--steps", 1)
    assert result.exit_code == 0, result.output
    result = diveq("export", "run", "-o", "mine.safetensors", "--check", photos)
    assert result.exit_code == 0, result.output
    assert zoo.find("mine.safetensors").provenance["dataset"]["pictures"] == 12


def test_few_pictures_are_noted() -> None:
    draw_pictures(Path("few"), 3)
    result = diveq("train", "few", "-c", "tiny.toml", "--steps", 1)
    assert result.exit_code == 0
    assert "Note: no picture of 3 is held out" in result.stderr


@pytest.mark.parametrize(("name", "content"), [("notes.txt", "words"), ("a.png", "garbage")])
def test_a_folder_of_no_pictures_is_one_line(name: str, content: str) -> None:
    Path("none").mkdir()
    Path("none", name).write_text(content)
    result = diveq("train", "none", "-c", "tiny.toml")
    assert result.exit_code == 1
    reason = f"({name}: not an image that Pillow can read)"
    assert result.stderr.splitlines() == [f"Error: none: no usable picture of 1 {reason}"]


@pytest.mark.parametrize(
    ("size", "settings", "remedy"),
    [
        ((64, 48), (), "both sides of a picture must have 64 pixels at least"),
        ((100, 90), (), "make crops smaller with --set data.crop=80"),
        ((63, 500), (), "both sides of a picture must have 64 pixels at least"),
        (
            (170, 170),
            ("loss.distortion=ms-ssim",),
            "both sides of a picture must have 176 pixels at least",
        ),
        ((180, 180), ("loss.distortion=ms-ssim",), "make crops smaller with --set data.crop=176"),
    ],
)
def test_what_helps_small_pictures_is_taken(
    size: tuple[int, int], settings: tuple[str, ...], remedy: str
) -> None:
    draw_pictures(Path("small"), 1, size)
    arguments = ["train", "small", "-c", "tiny.toml", "--dry-run", "--set", "data.crop=256"]
    for text in settings:
        arguments += ["--set", text]
    (line,) = errors(diveq(*arguments))
    assert line.endswith(remedy)
    if "--set" in remedy:
        assert diveq(*arguments, *remedy.split()[-2:]).exit_code == 0


@pytest.mark.parametrize(
    ("crop", "complaint"),
    [
        (48, "is below 64, the smallest side of a crop"),
        (100, "is not a multiple of 16"),
    ],
)
def test_the_rules_of_crops_are_told_apart(crop: int, complaint: str) -> None:
    result = diveq("train", "photos", "--set", f"data.crop={crop}")
    assert errors(result) == [f"Error: data.crop: {crop} {complaint}"]


def test_a_dry_run_that_fails_says_only_what_happened() -> None:
    """It has no checkpoint, and starting again is not what it is about."""
    arguments = ("train", "photos", "-c", "tiny.toml", "--dry-run", "--set", "optim.lr=1e30")
    result = diveq(*arguments)
    assert result.exit_code == 1
    (line,) = errors(result)
    assert line.startswith("Error: step ")
    assert line.endswith(": loss or gradient is not a number")


def test_dry_run_writes_nothing() -> None:
    before = sorted(os.listdir())
    result = diveq("train", "photos", "-c", "tiny.toml", "--dry-run")
    assert result.exit_code == 0
    assert "crop = 64\n" in result.stdout
    assert " parameters\n" in result.stdout
    assert "11 pictures to train on, 1 held out, 0 left out; 0 MB in memory" in result.stdout
    assert " s a step" in result.stdout
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say which pictures to train on: diveq train DATASET"),
        (("photos", "--plot", "run"), "--plot RUN draws a run and takes no DATASET"),
        (("photos", "--resume", "-f"), "--resume goes on with a run: it excludes -f and --init"),
        (("photos", "--steps", "9", "--hours", "1"), "--steps and --hours exclude each other"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str) -> None:
    result = diveq("train", *arguments)
    assert result.exit_code == 2
    assert errors(result) == [f"Error: {message}"]


@pytest.mark.parametrize("hours", ["nan", "inf", "-inf", "0", "-1", "1e999"])
def test_hours_are_a_finite_number(hours: str) -> None:
    result = diveq("train", "photos", "-c", "tiny.toml", f"--hours={hours}")
    assert result.exit_code == 2
    (line,) = errors(result)
    assert line.startswith("Error: Invalid value for '--hours': ")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nope",), "nope: no such folder"),
        (("photos", "-c", "nope.toml"), "nope.toml: "),
        (
            ("photos", "--set", "optim.stepz=1"),
            "unknown key optim.stepz; did you mean optim.steps?",
        ),
        (("photos", "--set", "optim.lr=nan"), "optim.lr: expected a finite number, got nan"),
        (("photos", "--seed", "5000000000"), "seed: 5000000000 is not in 0 ... 4294967295"),
        (("photos", "--hours", "1e300"), "hours: 1e+300 is not above 0, and 1e+06 at most"),
        (("photos", "-o", "fresh", "--resume"), "fresh"),
        (("--plot", "fresh"), "fresh"),
    ],
)
def test_errors_are_one_line(arguments: tuple[str, ...], message: str) -> None:
    result = diveq("train", *arguments)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {message}")


def test_only_the_first_of_several_processes_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("diveqcodec.train.run", lambda *_, **options: calls.append(options))
    monkeypatch.setenv("RANK", "1")
    result = diveq("train", tmp_path, "-o", tmp_path / "run")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert "progress" not in calls[0]
