"""Many files: what goes where, what is refused, and that one bad file stops nothing."""

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from diveqcodec.cli import files
from diveqcodec.cli.console import Console, Misuse, describe
from diveqcodec.codec import Codec
from diveqcodec.exact import weights
from tests.support.commands import diveq, draw, errors
from tests.support.places import ROOT
from tests.support.plans import planned, touch

pytestmark = pytest.mark.usefixtures("models")


def targets(inputs: list[str], output: str | None = None) -> dict[str, str]:
    jobs = planned(inputs, output)
    return {job.source.name: job.target_name for job in jobs}


def test_outputs_lie_beside_inputs() -> None:
    touch("a.png", "d/b.jpeg")
    assert targets(["a.png", "d/b.jpeg"]) == {"a.png": "a.dvq", "d/b.jpeg": "d/b.dvq"}
    assert targets(["-"], "out.dvq") == {"<stdin>": "out.dvq"}
    assert targets(["-"]) == {"<stdin>": "<stdout>"}


def test_folders_are_walked_sorted_without_hidden_files() -> None:
    touch("d/z.png", "d/a.png", "d/sub/b.png", "d/.hidden.png", "d/.git/c.png")
    assert list(targets(["d"])) == ["d/a.png", "d/sub/b.png", "d/z.png"]


def test_a_hidden_folder_that_was_asked_for_is_walked() -> None:
    touch(".cache/a.png")
    assert targets([".cache"]) == {".cache/a.png": ".cache/a.dvq"}


def test_the_tree_is_mirrored() -> None:
    touch("d/a.png", "d/sub/b.png", "elsewhere/c.png")
    expected = {"d/a.png": "out/a.dvq", "d/sub/b.png": "out/sub/b.dvq"}
    assert targets(["d"], "out") == expected
    assert targets(["d", "elsewhere/c.png"], "out") == expected | {"elsewhere/c.png": "out/c.dvq"}


def test_one_input_and_o() -> None:
    touch("a.png")
    Path("there").mkdir()
    assert targets(["a.png"], "b.bin") == {"a.png": "b.bin"}
    assert targets(["a.png"], "there") == {"a.png": "there/a.dvq"}
    assert targets(["a.png"], "new/") == {"a.png": "new/a.dvq"}


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["a.png", "b.png"], "out.dvq", "-o must be a directory when there are several inputs"),
        (["a.png", "b.png"], "file", "-o must be a directory when there are several inputs"),
        (["d"], "file", "-o must be a directory when there are several inputs"),
        (["a.png", "b.png"], "-", "-o - takes one input; name a folder with -o for several"),
        (["d"], "-", "-o - takes one input; name a folder with -o for several"),
        (["a.png", "-"], None, "- (standard input) cannot be combined with other inputs"),
        (["a.png", ""], None, "an input is an empty name; give a file, a folder, or -"),
        ([""], "new", "an input is an empty name; give a file, a folder, or -"),
    ],
)
def test_plans_that_make_no_sense(inputs: list[str], output: str | None, message: str) -> None:
    touch("a.png", "a.jpg", "b.png", "d/c.png", "file")
    with pytest.raises(Misuse) as caught:
        targets(inputs, output)
    assert caught.value.message == message


def test_warnings_are_said_with_v_only(capsys: pytest.CaptureFixture[str]) -> None:
    shown = warnings.showwarning
    for verbosity, said in ((0, ""), (1, "corrupt data\n")):
        with Console(verbosity=verbosity).listening(), warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("corrupt\n  data", UserWarning, stacklevel=1)
        assert capsys.readouterr().err == said
    assert warnings.showwarning is shown


def test_wrong_usage_is_one_line_before_any_work() -> None:
    draw(Path("a.png"))
    draw(Path("b.png"))
    result = diveq("compress", "a.png", "b.png", "-o", "out.dvq")
    assert result.exit_code == 2
    assert result.stderr == "Error: -o must be a directory when there are several inputs\n"
    assert sorted(os.listdir()) == ["a.png", "b.png"]


def test_a_bad_file_is_reported_and_the_rest_goes_on() -> None:
    draw(Path("a.png"))
    draw(Path("c.png"))
    Path("b.png").write_bytes(draw(Path("t.png")).read_bytes()[:60])
    result = diveq("compress", "a.png", "b.png", "nope.png", "c.png")
    assert result.exit_code == 1
    broken, missing = errors(result)
    assert broken.startswith("Error: b.png: cannot be decoded (")
    assert missing == "Error: nope.png: no such file"
    assert Path("a.dvq").exists()
    assert Path("c.dvq").exists()
    assert not Path("b.dvq").exists()


def test_an_output_without_o_is_guessed() -> None:
    draw(Path("a.png"))
    result = diveq("compress", "a.png", "out.dvq")
    assert result.exit_code == 1
    assert errors(result) == ["Error: out.dvq: no such file. To name the output, use -o out.dvq"]


def test_in_a_folder_other_files_are_skipped_but_not_when_named() -> None:
    draw(Path("d/a.png"))
    Path("d/a.txt").write_text("a caption")
    result = diveq("compress", "d")
    assert result.exit_code == 0
    assert "Note: d: skipped 1 of 2 files, not pictures" in result.stderr
    assert diveq("compress", "d", "-f").exit_code == 0  # a.dvq lies beside a.png now
    result = diveq("compress", "d/a.txt", "-o", "x.dvq")
    assert result.exit_code == 1
    assert errors(result) == ["Error: d/a.txt: not an image that Pillow can read"]
    result = diveq("decompress", "d", "-o", "back")
    assert result.exit_code == 0
    assert "Note: d: skipped 2 of 3 files, not .dvq files" in result.stderr
    assert os.listdir("back") == ["a.png"]


def test_in_a_folder_a_damaged_picture_is_reported() -> None:
    draw(Path("d/a.png"))
    Path("d/b.png").write_bytes(Path("d/a.png").read_bytes()[:60])
    result = diveq("compress", "d")
    assert result.exit_code == 1
    assert errors(result)[0].startswith("Error: d/b.png: cannot be decoded")


def test_a_folder_without_pictures_is_an_error() -> None:
    touch("d/notes.txt")
    Path("empty").mkdir()
    for folder in ("d", "empty"):
        result = diveq("compress", folder)
        assert result.exit_code == 1
        assert errors(result) == [f"Error: {folder}: contains no pictures"]
        result = diveq("info", folder)
        assert result.exit_code == 1
        assert errors(result) == [f"Error: {folder}: contains no .dvq files"]


def test_a_tree_there_and_back() -> None:
    draw(Path("d/a.png"))
    draw(Path("d/sub/b.png"), "L")
    assert diveq("compress", "d", "-o", "small").exit_code == 0
    assert diveq("decompress", "small", "-o", "back").exit_code == 0
    assert sorted(str(path) for path in Path("back").rglob("*.png")) == [
        "back/a.png",
        "back/sub/b.png",
    ]


def test_weights_are_loaded_once_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    load = weights.load

    def counted(path: Path, device: torch.device | None = None) -> weights.CodingModel:
        calls.append(path)
        return load(path, device)

    monkeypatch.setattr(weights, "load", counted)
    for name in ("a", "b", "c"):
        draw(Path(f"{name}.png"))
    assert diveq("compress", "a.png", "b.png", "c.png").exit_code == 0
    assert len(calls) == 1
    assert diveq("decompress", "a.dvq", "b.dvq", "c.dvq", "-f").exit_code == 0
    assert len(calls) == 2


def test_existing_output_is_refused_without_f() -> None:
    draw(Path("a.png"))
    Path("a.dvq").write_text("precious")
    result = diveq("compress", "a.png")
    assert result.exit_code == 1
    assert errors(result) == ["Error: a.dvq: already exists; use -f to overwrite"]
    assert Path("a.dvq").read_text() == "precious"
    assert diveq("compress", "a.png", "-f").exit_code == 0
    assert Path("a.dvq").read_bytes()[:4] == b"\x8bDVQ"


def test_the_input_is_never_the_output() -> None:
    before = draw(Path("a.png")).rename("a").read_bytes()
    result = diveq("compress", "a", "-o", "./a", "-f")
    assert result.exit_code == 1
    assert errors(result) == ["Error: a: is the input itself; name another output with -o"]
    assert Path("a").read_bytes() == before


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_full_disk_leaves_the_old_output(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(Path("a.png"))
    draw(Path("b.png"))
    Path("a.dvq").write_text("precious")

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    result = diveq("compress", "a.png", "b.png", "-f")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        *(f"Error: {name}.dvq: cannot be written: no space left on device" for name in "ab"),
        result.stderr.splitlines()[-1],
    ]
    assert result.stderr.splitlines()[-1].startswith("2 files: 0 done, 2 failed   ")
    assert Path("a.dvq").read_text() == "precious"
    assert sorted(os.listdir()) == ["a.dvq", "a.png", "b.png"]


def test_an_interruption_leaves_the_old_output(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.dvq").write_text("precious")

    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(Path("a.dvq"), b"new")
    assert os.listdir() == ["a.dvq"]
    assert Path("a.dvq").read_text() == "precious"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written() -> None:
    draw(Path("a.png"))
    Path("locked").mkdir(mode=0o555)
    result = diveq("compress", "a.png", "-o", "locked/a.dvq")
    assert result.exit_code == 1
    assert errors(result) == ["Error: locked/a.dvq: cannot be written: permission denied"]


def test_an_output_below_a_file() -> None:
    draw(Path("a.png"))
    touch("file")
    result = diveq("compress", "a.png", "-o", "file/a.dvq")
    assert result.exit_code == 1
    assert len(errors(result)) == 1
    assert errors(result)[0].startswith("Error: file/a.dvq: cannot be written: ")


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="no /dev/null")
def test_a_device_is_written_to_and_not_replaced() -> None:
    draw(Path("a.png"))
    assert diveq("compress", "a.png", "-o", "/dev/null").exit_code == 0
    assert Path("/dev/null").is_char_device()


def test_a_bug_is_one_line_and_a_traceback_only_with_vv(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_options: object) -> bytes:
        raise TypeError("two\nlines")

    monkeypatch.setattr(Codec, "compress", broken)
    draw(Path("a.png"))
    result = diveq("compress", "a.png")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: a.png: internal error (TypeError: two lines)")
    assert "Traceback" in diveq("compress", "a.png", "-vv").stderr


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("[enforce fail] not enough memory: you tried ..."), "not enough memory"),
        (RuntimeError("CUDA out of memory."), "not enough memory on the device; use --device cpu"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: permission denied"),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), "is a directory"),
    ],
)
def test_errors_in_words(error: Exception, text: str) -> None:
    assert describe(error) == text


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell's pipes")
def test_head_closing_the_pipe_gives_no_traceback(models: Path) -> None:
    draw(Path("a.png"), size=(64, 64))
    diveq("compress", "a.png")
    script = (
        "import os, sys; os.close(1); r, w = os.pipe(); os.close(r); os.dup2(w, 1); "
        "sys.stdout = open(1, 'w'); from diveqcodec.cli import main; main(sys.argv[1:])"
    )
    for arguments in (["info", "--json", "a.dvq"], ["info", "a.dvq"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert done.stderr == ""
        assert done.returncode == 1
