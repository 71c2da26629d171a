"""Outputs that are links: they stay, and what they lead to is written as any other file."""

import os
from pathlib import Path

import pytest

from tests.support.commands import diveq, draw, errors, opened

pytestmark = pytest.mark.usefixtures("models")


@pytest.fixture
def coded() -> bytes:
    """A folder `far`, and `a.dvq` of a picture; the bytes of a PNG of it."""
    draw(Path("a.png"))
    assert diveq("compress", "a.png").exit_code == 0
    assert diveq("decompress", "a.dvq", "-o", "plain.png").exit_code == 0
    Path("far").mkdir()
    return Path("plain.png").read_bytes()


def test_a_link_is_written_through(coded: bytes) -> None:
    Path("far/file.png").write_text("precious")
    Path("far/file.png").chmod(0o640)
    os.symlink("far/file.png", "link.png")
    refused = diveq("decompress", "a.dvq", "-o", "link.png")
    assert errors(refused) == ["Error: link.png: already exists; use -f to overwrite"]
    assert Path("far/file.png").read_text() == "precious"
    assert diveq("decompress", "a.dvq", "-o", "link.png", "-f").exit_code == 0
    assert os.readlink("link.png") == "far/file.png"
    assert Path("far/file.png").read_bytes() == coded
    assert Path("far/file.png").stat().st_mode & 0o777 == 0o640
    assert os.listdir("far") == ["file.png"]


def test_a_link_to_nothing_is_there(coded: bytes) -> None:
    os.symlink("far/file.png", "link.png")
    command = ("decompress", "a.dvq", "-o", "link.png")
    assert errors(diveq(*command)) == [
        "Error: link.png: is a link to a file that is not there; use -f to write it"
    ]
    assert diveq(*command, "--skip-existing").exit_code == 0
    assert not Path("far/file.png").exists()
    assert diveq(*command, "-f").exit_code == 0
    assert os.readlink("link.png") == "far/file.png"
    assert Path("far/file.png").read_bytes() == coded


def test_a_link_that_leads_nowhere_is_left_alone(coded: bytes) -> None:
    del coded
    os.symlink("gone/file.png", "link.png")
    os.symlink("circle.png", "circle.png")
    for name in ("link.png", "circle.png"):
        result = diveq("decompress", "a.dvq", "-o", name, "-f")
        (line,) = errors(result)
        assert line.startswith(f"Error: {name}: cannot be written: ")
        assert Path(name).is_symlink()
        seen = diveq("eval", "a.png", "-q", "20", "--csv", name, "-f")
        assert errors(seen) == [line]
        assert seen.stdout == ""  # it is said before anything is measured
    assert not Path("gone").exists()


def test_a_link_to_the_input_is_the_input(coded: bytes) -> None:
    del coded
    before = Path("a.png").read_bytes()
    os.symlink("a.png", "link.dvq")
    result = diveq("compress", "a.png", "-o", "link.dvq", "-f")
    assert errors(result) == ["Error: link.dvq: is the input itself; name another output with -o"]
    assert Path("a.png").read_bytes() == before


def test_other_commands_write_through_too(coded: bytes) -> None:
    del coded
    for name in ("small.png", "r.json", "r.csv", "r.png", "r.html", "rows"):
        os.symlink(f"far/{name}", name)
    assert errors(diveq("thumbnail", "a.dvq", "small.png")) != []
    assert diveq("thumbnail", "a.dvq", "small.png", "-f").exit_code == 0
    outputs = ("-o", "r.json", "--csv", "r.csv", "--plot", "r.png", "--html", "r.html")
    command = ("eval", "a.png", "-q", "20,60", *outputs, "--resume", "rows")
    assert errors(diveq(*command)) != []
    result = diveq(*command, "-f")
    assert result.exit_code == 0, result.output
    for name in ("small.png", "r.json", "r.csv", "r.png", "r.html", "rows"):
        assert os.readlink(name) == f"far/{name}"
        assert Path("far", name).stat().st_size
    assert opened("far/small.png").size == (40, 24)
