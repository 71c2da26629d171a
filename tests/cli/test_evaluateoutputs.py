"""What `diveq eval` is to write: no output destroys another one, or what is read."""

import errno
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from diveqcodec.evaluate import trials
from diveqcodec.evaluate.journal import Journal
from diveqcodec.evaluate.resultfiles import read_results
from tests.support.commands import diveq, draw, errors, install_tiny, opened


@pytest.fixture(autouse=True)
def _sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_tiny(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    draw(Path("set/a.png"), size=(40, 24))


@pytest.mark.parametrize(
    ("options", "name", "first", "second"),
    [
        (("-o", "X", "--resume", "X"), "X", "-o", "--resume"),
        (("-o", "X", "--csv", "./X"), "X", "-o", "--csv"),
        (("--csv", "X.png", "--plot", "X.png"), "X.png", "--csv", "--plot"),
        (("--html", "new/X", "--csv", "new/../new/X"), "new/X", "--csv", "--html"),
        (("--anchor=webp", "-o", "r", "--csv", "r.webp"), "r.webp", "-o", "--csv"),
        (("-e1,5", "-o", "r", "--resume", "r.diveq-5-e5"), "r.diveq-5-e5", "-o", "--resume"),
        (("--csv", "link", "--resume", "X"), "X", "--csv", "--resume"),
        (("--csv", "hard", "--html", "journal"), "journal", "--csv", "--html"),
        (("--csv", "hard", "--resume", "journal"), "journal", "--csv", "--resume"),
    ],
)
def test_two_outputs_are_two_files(
    options: tuple[str, ...], name: str, first: str, second: str
) -> None:
    os.symlink("X", "link")
    Path("journal").write_text('{"journal": "diveq eval", "version": 1}\n')
    os.link("journal", "hard")
    before = Path("journal").read_bytes()
    result = diveq("eval", "set", "-q", "20", "-f", *options)
    assert result.exit_code == 2
    assert errors(result) == [
        f"Error: {second}: {name} is written by {first} too; name another file"
    ]
    assert Path("journal").read_bytes() == before
    assert not Path("X").exists()
    assert result.stdout == ""


def test_two_codecs_have_two_names() -> None:
    """Rows, curves and files could not be told apart."""
    weights = next(Path("models-for-tests").iterdir())
    for name, options in (
        ("webp", ("--anchor", "webp")),
        ("webp-method4", ("--anchor", "webp", "--anchor", "webp:method=4")),
        ("jpeg-e1", ("-e", "1", "--anchor", "webp")),
    ):
        Path(f"{name}.safetensors").write_bytes(weights.read_bytes())
        result = diveq("eval", "set", "-q", "20", "-m", f"{name}.safetensors", *options)
        if name == "jpeg-e1":
            assert result.exit_code == 0, result.output
            continue
        assert result.exit_code == 2
        assert errors(result) == [
            f"Error: {name}: two codecs have this name; rename the weights, or leave one out"
        ]
        assert result.stdout == ""


def test_what_takes_everything_may_be_named_twice() -> None:
    result = diveq("eval", "set", "-q", "20", "--csv", os.devnull, "-o", os.devnull)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("option", "name", "where"),
    [
        ("-o", "afile/r.json", "afile"),
        ("--csv", "afile/deep/r.csv", "afile"),
        ("--html", "loose/r.html", "loose"),
        ("--save-images", "afile", "afile"),
        ("--save-images", "afile/deep", "afile"),
        ("--resume", "afile/j.jsonl", "afile"),
    ],
)
def test_no_folder_is_a_file(
    option: str, name: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("afile").write_text("precious")
    os.symlink("nowhere", "loose")
    monkeypatch.setattr("diveqcodec.cli.evaluate._measure", lambda *_: pytest.fail("measured"))
    result = diveq("eval", "set", "-q", "20", option, name)
    assert result.exit_code == 1
    assert errors(result) == [f"Error: {name}: cannot be written: {where} is no folder"]
    assert Path("afile").read_text() == "precious"


def test_a_folder_that_nobody_may_write_to_is_seen_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("locked").mkdir()
    is_locked = {Path("locked"): os.W_OK}
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & is_locked.get(Path(path), 0))
    monkeypatch.setattr("diveqcodec.cli.evaluate._measure", lambda *_: pytest.fail("measured"))
    Path("locked/old.csv").write_text("precious")
    for option, name in (
        ("-o", "locked/new/r.json"),
        ("--csv", "locked/old.csv"),
        ("--save-images", "locked"),
    ):
        result = diveq("eval", "set", "-q", "20", "-f", option, name)
        assert errors(result) == [f"Error: {name}: cannot be written: permission denied"]
    assert os.listdir("locked") == ["old.csv"]


def test_no_output_is_an_input() -> None:
    assert diveq("eval", "set", "-q", "20,90", "-o", "r.json").exit_code == 0
    weights = next(Path("models-for-tests").iterdir())
    os.symlink("set/a.png", "link.png")
    for option, name in (
        ("-o", "set/a.png"),
        ("--csv", "link.png"),
        ("--html", "r.json"),
        ("--csv", str(weights)),
    ):
        before = Path(name).read_bytes()
        others = ("--curve", "r.json", "--curve", "vtm")
        result = diveq("eval", "set", "-q", "20,90", "-f", *others, option, name)
        assert result.exit_code == 1
        assert errors(result) == [
            f"Error: {name}: is an input itself; name another output with {option}"
        ]
        assert Path(name).read_bytes() == before


def test_no_decoded_picture_takes_the_place_of_an_input() -> None:
    before = draw(Path("set/a.png.q20.png")).read_bytes()
    result = diveq("eval", "set", "-q", "20", "--save-images", "set/../set")
    assert errors(result) == [
        "Error: set/../set/a.png.q20.png: is an input itself; "
        "name another folder with --save-images"
    ]
    assert Path("set/a.png.q20.png").read_bytes() == before
    assert diveq("eval", "set", "-q", "30", "--save-images", "set").exit_code == 0


def test_saved_pictures_replace_only_what_is_known_to_be_ours() -> None:
    draw(Path("set/b.png"), size=(30, 24))
    command = ("eval", "set", "-q", "20", "--save-images", "decoded")
    foreign = draw(Path("decoded/b.png.q20.png"), size=(9, 9))
    before = foreign.read_bytes()
    for options in ((), ("--resume", "j.jsonl")):
        refused = diveq(*command, *options)
        assert refused.exit_code == 1
        assert errors(refused) == [
            "Error: decoded/b.png.q20.png: already exists; use -f to overwrite"
        ]
        assert refused.stdout == ""
    assert [path.name for path in Path("decoded").iterdir()] == ["b.png.q20.png"]
    assert foreign.read_bytes() == before
    assert diveq(*command, "--resume", "j.jsonl", "-f").exit_code == 0
    own = foreign.read_bytes()
    assert own != before
    assert diveq(*command, "--resume", "j.jsonl").exit_code == 0
    refused = diveq(*command, "-e", "1", "--resume", "j.jsonl")
    assert "decoded/a.png.q20.png: already exists" in errors(refused)[0]
    refused = diveq(*command, "--resume", "other.jsonl")
    assert "decoded/a.png.q20.png: already exists" in errors(refused)[0]
    assert "decoded/a.png.q20.png: already exists" in errors(diveq(*command))[0]
    foreign.unlink()
    foreign.mkdir()
    refused = diveq(*command, "-f")
    assert errors(refused) == ["Error: decoded/b.png.q20.png: is a folder"]


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_a_journal_that_another_run_has_open_is_left_to_it() -> None:
    with Journal(Path("j.jsonl")):
        refused = diveq("eval", "set", "-q", "20", "--resume", "j.jsonl")
    assert refused.exit_code == 1
    assert errors(refused) == [
        "Error: j.jsonl: another run adds rows to this journal; let it end, or name another file"
    ]
    assert refused.stdout == ""
    assert diveq("eval", "set", "-q", "20", "--resume", "j.jsonl").exit_code == 0


OUTPUTS = ("-o", "r.json", "--csv", "r.csv", "--plot", "r.png", "--html", "r.html")


def test_an_output_that_fails_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise ValueError("no such thing")

    monkeypatch.setattr("diveqcodec.evaluate.plot._figure", broken)
    monkeypatch.setattr("diveqcodec.evaluate.report.results_csv", broken)
    monkeypatch.setattr("diveqcodec.evaluate.html._chosen", lambda *_: Path("set/a.png").unlink())
    monkeypatch.setattr("diveqcodec.evaluate.report.bd_table", broken)
    options = ("--anchor", "webp", "--resume", "j.jsonl", *OUTPUTS)
    result = diveq("eval", "set", "-q", "20,90", *options)
    assert result.exit_code == 1
    lines = errors(result)
    assert [line.split(":")[1] for line in lines] == [
        " internal error (ValueError",  # the tables
        " r.csv",
        " r.png",
        " r.html",
    ]
    assert "Note: j.jsonl: has what was measured; --resume goes on from it" in result.stderr
    names = {path.name for path in Path().glob("r.*")}
    assert names == {"r.json", "r.webp.json"}


def test_a_plot_without_curves_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diveqcodec.evaluate.run.psnr", lambda *_: math.inf)
    result = diveq("eval", "set", "-q", "20,90", *OUTPUTS)
    assert result.exit_code == 1
    assert errors(result) == ["Error: r.png: no curve has psnr to draw"]
    assert "diveq-5: 1 picture" in result.stdout
    assert {path.name for path in Path().glob("r.*")} == {"r.json", "r.csv", "r.html"}


def test_who_leaves_the_tables_gets_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("diveqcodec.cli.console.Console.result", gone)
    result = diveq("eval", "set", "-q", "20,90", *OUTPUTS)
    assert (result.exit_code, errors(result)) == (1, [])
    assert len(list(Path().glob("r.*"))) == 4


def test_what_appears_while_pictures_are_measured_is_not_overwritten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And what was measured is not lost."""
    names = ("r.json", "r.csv", "r.html")
    real = trials.measure

    def measure(*given: Any, **named: Any) -> trials.Measured:
        for name in names:
            Path(name).write_text("precious")
        Path("r.png").mkdir()
        Path("r-2.csv").symlink_to("nowhere")
        return real(*given, **named)

    monkeypatch.setattr(trials, "measure", measure)
    result = diveq("eval", "set", "-q", "20,90", *OUTPUTS)
    assert result.exit_code == 1
    assert errors(result) == [
        f"Error: r.{kind}: has come to exist meanwhile; r-{number}.{kind} was written instead"
        for kind, number in (("json", 2), ("csv", 3), ("png", 2), ("html", 2))
    ]
    assert {Path(name).read_text() for name in names} == {"precious"}
    assert read_results(Path("r-2.json")) is not None
    assert opened("r-2.png").width > 500
    assert not Path("nowhere").exists()
    Path("r.png").rmdir()
    monkeypatch.setattr(trials, "measure", real)
    assert diveq("eval", "set", "-q", "20,90", *OUTPUTS, "-f").exit_code == 0
    assert read_results(Path("r.json")) is not None


def test_a_name_that_was_taken_for_an_output_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("diveqcodec.cli.files.replacing", full)
    result = diveq("eval", "set", "-q", "20,90", "-o", "new/r.json", "--csv", "r.csv")
    assert errors(result) == [
        f"Error: {name}: cannot be written: no space left on device"
        for name in ("new/r.json", "r.csv")
    ]
    assert not Path("r.csv").exists()
    assert list(Path("new").iterdir()) == []
