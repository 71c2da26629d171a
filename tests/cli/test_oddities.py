"""Odd names, pipes and streams, links, and outputs that are there but are none."""

import io
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from diveqcodec.cli.console import one_line
from tests.support.commands import diveq, draw, errors

pytestmark = [
    pytest.mark.usefixtures("models"),
    pytest.mark.skipif(os.name == "nt", reason="names, links and pipes of POSIX"),
]


def lossless(*arguments: object) -> list[str]:
    """The lines of stderr of a `compress` that does not need a model."""
    return diveq("compress", "--lossless", *arguments).stderr.splitlines()


# --- names ---


def test_control_characters_do_not_reach_the_terminal() -> None:
    name = "a\nb\x1b[31m\u2028.png"
    draw(Path("x.png")).rename(name)
    shown = "a\\nb\\x1b[31m\\u2028"
    (line,) = lossless(name)
    assert line.startswith(f"{shown}.png -> {shown}.dvq   ")
    assert lossless(name) == [f"Error: {shown}.dvq: already exists; use -f to overwrite"]
    result = diveq("info", "a\nb\x1b[31m\u2028.dvq")
    assert result.stdout.startswith(f"{shown}.dvq   ")
    assert result.stdout.count("\n") == 1
    assert errors(diveq("compress", "no\nsuch")) == ["Error: no\\nsuch: no such file"]
    result = diveq("compress", "x\n", "y\n", "-o", "o\n.dvq")
    assert result.stderr == "Error: -o must be a directory when there are several inputs\n"
    record = json.loads(diveq("compress", name, "--lossless", "-f", "--json").stdout)
    assert record["input"] == name


def test_names_that_can_be_seen_stay_as_they_are() -> None:
    for name in ("é 日本 ‮🙂", "a\u00a0b", os.fsdecode(b"caf\xe9")):
        assert one_line(name) == name


def test_an_empty_name_of_an_output_is_wrong_usage() -> None:
    draw(Path("a.png"))
    result = diveq("compress", "a.png", "-o", "")
    assert result.exit_code == 2
    assert result.stderr == "Error: -o is an empty name; give a file, a folder, or -\n"
    assert os.listdir() == ["a.png"]


def test_an_output_below_a_file_names_the_file() -> None:
    draw(Path("a.png"))
    assert lossless("a.png", "-o", "a.png/b.dvq") == [
        "Error: a.png/b.dvq: cannot be written: a.png is no folder"
    ]


def test_links_to_folders_are_not_followed_and_said_so() -> None:
    draw(Path("d/a.png"))
    draw(Path("elsewhere/b.png"))
    os.symlink("../elsewhere", "d/link")
    os.symlink("..", "d/up")
    assert lossless("d", "-o", "o")[0] == (
        "Note: d/link and 1 more: links to folders are not followed; give them as inputs"
    )
    assert os.listdir("o") == ["a.dvq"]
    Path("d/up").unlink()
    Path("d/a.png").unlink()
    note, error = lossless("d", "-o", "o")
    assert note == "Note: d/link: links to folders are not followed; give them as inputs"
    assert error == "Error: d: contains no pictures"
    assert "o/b.dvq" in lossless("d/link", "-o", "o")[0]


# --- pipes and streams ---


def test_a_pipe_has_the_size_of_what_came_through_it() -> None:
    data = draw(Path("a.png"), size=(2, 2)).read_bytes()
    os.mkfifo("pipe.png")
    writer = threading.Thread(target=lambda: Path("pipe.png").write_bytes(data))
    writer.start()
    result = diveq("compress", "--lossless", "pipe.png", "a.png", "-o", "o")
    writer.join()
    assert f"2 files: 2 done   {2 * len(data):,} B -> " in result.stderr
    assert "larger" not in result.stderr
    assert Path("o/pipe.dvq").read_bytes() == Path("o/a.dvq").read_bytes()


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_a_closed_stream_is_no_internal_error(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from diveqcodec.cli import main

    draw(Path("a.png"))
    arguments = {
        "stdin": ["compress", "-", "-o", "a.dvq"],
        "stdout": ["compress", "a.png", "-o", "-"],
        "stderr": ["compress", "--lossless", "a.png"],
    }[name]
    monkeypatch.setattr(sys, name, None)
    monkeypatch.setattr(sys, "argv", ["diveq"])
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == (0 if name == "stderr" else 2)
    assert Path("a.dvq").exists() == (name == "stderr")
    if name != "stderr":
        assert capsys.readouterr().err.startswith(f"Error: standard {name[3:]}put is closed; ")


def test_records_need_a_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    from diveqcodec.cli import main

    draw(Path("a.png"))
    monkeypatch.setattr(sys, "stdout", None)
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    with pytest.raises(SystemExit) as caught:
        main(["compress", "--lossless", "a.png", "--json"])
    assert caught.value.code == 1
    assert said.getvalue() == "Error: <stdout>: cannot be written: it is closed\n"


# --- outputs ---


def test_an_empty_output_is_made_again_and_another_file_is_an_error() -> None:
    for name in ("a", "b", "c"):
        draw(Path(f"d/{name}.png"))
    assert lossless("d", "-o", "o")[-1].startswith("3 files: 3 done   ")
    whole = Path("o/b.dvq").read_bytes()
    Path("o/b.dvq").write_bytes(b"")
    Path("o/c.dvq").write_bytes(b"precious")
    result = diveq("compress", "--lossless", "d", "-o", "o", "--skip-existing")
    assert result.exit_code == 1
    assert errors(result) == [
        "Error: d/c.png: o/c.dvq is there, but is something else; use -f to overwrite"
    ]
    assert result.stderr.splitlines()[-1].startswith(
        "3 files: 1 done, 1 already there, 1 failed   "
    )
    assert Path("o/b.dvq").read_bytes() == whole
    assert Path("o/c.dvq").read_bytes() == b"precious"
    Path("o/c.dvq").unlink()
    assert diveq("decompress", "o", "-o", "back").exit_code == 0
    Path("back/a.png").write_bytes(b"")
    result = diveq("decompress", "o", "-o", "back", "--skip-existing")
    assert result.stderr.splitlines()[-1].startswith("2 files: 1 done, 1 already there   ")
    assert Path("back/a.png").read_bytes()[:4] == b"\x89PNG"


def test_an_interrupted_batch_says_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    from diveqcodec.container import pixelfile

    for name in ("a", "b", "c"):
        draw(Path(f"d/{name}.png"))
    compress, calls = pixelfile.compress, []

    def interrupted(*arguments: Any, **named: Any) -> bytes:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return compress(*arguments, **named)

    monkeypatch.setattr(pixelfile, "compress", interrupted)
    result = diveq("compress", "--lossless", "d", "-o", "o")
    assert result.exit_code == 1
    assert "Note: stopped after 1 of 3 files; --skip-existing goes on" in result.stderr
    assert os.listdir("o") == ["a.dvq"]
    last = lossless("d", "-o", "o", "--skip-existing")[-1]
    assert last.startswith("3 files: 2 done, 1 already there   ")
