"""`--skip-existing`: whole files are passed over, parts made again, others not touched."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import diveq, draw, errors

pytestmark = pytest.mark.usefixtures("models")

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut in its last chunk": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "the header alone": lambda data: data[:26],
    "cut in the header": lambda data: data[:11],
    "cut in the magic": lambda data: data[:3],
    "a length and no bytes": lambda data: bytes(len(data)),
    "zeros at the end": lambda data: data[:-9] + bytes(9),
    "a bit": lambda data: data[:-7] + bytes([data[-7] ^ 4]) + data[-6:],
    "something after it": lambda data: data + b"\0",
}


def age(path: str, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


def folder(*names: str) -> dict[str, bytes]:
    """Pictures below `d`, coded to `o`; the files there."""
    for name in names:
        draw(Path(f"d/{name}.png"))
        age(f"d/{name}.png", 10**9)
    assert diveq("compress", "d", "-o", "o").exit_code == 0
    return {path.name: path.read_bytes() for path in Path("o").iterdir()}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_part_of_a_file_is_made_again(damage: str) -> None:
    files = folder("a", "b")
    Path("o/a.dvq").write_bytes(DAMAGES[damage](files["a.dvq"]))
    result = diveq("compress", "d", "-o", "o", "--skip-existing")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert "Note: d/a.png: o/a.dvq was not whole, and was made again" in lines
    assert lines[-1].startswith("2 files: 1 done, 1 already there   ")
    assert {path.name: path.read_bytes() for path in Path("o").iterdir()} == files


def test_also_in_several_processes_and_in_records() -> None:
    files = folder("a", "b", "c", "e")
    for name in ("a", "b"):
        Path(f"o/{name}.dvq").write_bytes(files[f"{name}.dvq"][:-3])
    Path("o/c.dvq").write_bytes(b"")
    result = diveq("compress", "d", "-o", "o", "--skip-existing", "-j", "2", "--json")
    assert result.exit_code == 0, result.stderr
    records = {record["input"]: record for record in map(json.loads, result.stdout.splitlines())}
    assert records["d/e.png"]["skipped"]
    assert records["d/a.png"]["notices"] == ["o/a.dvq was not whole, and was made again"]
    assert records["d/c.png"]["notices"] == ["o/c.dvq was empty, and was made again"]
    assert {path.name: path.read_bytes() for path in Path("o").iterdir()} == files


def test_what_may_be_older_than_the_input_is_kept() -> None:
    """A damaged file, and the picture that was saved from it."""
    files = folder("a")
    cut = files["a.dvq"][:-3]
    for seconds in (10**9 - 5, 10**9):
        Path("o/a.dvq").write_bytes(cut)
        age("o/a.dvq", seconds)
        result = diveq("compress", "d", "-o", "o", "--skip-existing")
        assert result.exit_code == 1
        assert errors(result) == [
            "Error: d/a.png: o/a.dvq is there, but damaged and no newer than this; "
            "use -f to overwrite"
        ]
        assert Path("o/a.dvq").read_bytes() == cut


def test_what_is_made_again_is_kept_until_it_is() -> None:
    files = folder("a")
    Path("o/a.dvq").write_bytes(files["a.dvq"][:-3])
    Path("d/a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    age("d/a.png", 10**9)
    result = diveq("compress", "d", "-o", "o", "--skip-existing")
    assert result.exit_code == 1
    assert len(errors(result)) == 1
    assert Path("o/a.dvq").read_bytes() == files["a.dvq"][:-3]
    assert "Note" not in result.stderr


def test_a_file_of_a_newer_version_is_something_else() -> None:
    files = folder("a")
    newer = files["a.dvq"][:4] + b"\x63" + files["a.dvq"][5:]
    Path("o/a.dvq").write_bytes(newer)
    result = diveq("compress", "d", "-o", "o", "--skip-existing")
    assert errors(result) == [
        "Error: d/a.png: o/a.dvq is there, but is something else; use -f to overwrite"
    ]
    assert Path("o/a.dvq").read_bytes() == newer


@pytest.mark.parametrize(
    ("format", "suffix"),
    [("png", "png"), ("jpeg", "jpg"), ("webp", "webp"), ("tiff", "tiff"), ("ppm", "ppm")],
)
def test_pictures_are_told_by_their_frames(format: str, suffix: str) -> None:
    folder("a", "b", "c")
    for name in ("a", "b", "c"):
        age(f"o/{name}.dvq", 10**9)
    command = ("decompress", "o", "-o", "back", "--format", format, "--skip-existing")
    assert diveq(*command).exit_code == 0
    files = {path: path.read_bytes() for path in Path("back").iterdir()}
    first, second, third = (Path(f"back/{name}.{suffix}") for name in "abc")
    first.write_bytes(files[first][:-3])
    second.write_bytes(files[second] + b"and more")
    third.write_text("notes")
    result = diveq(*command)
    assert errors(result) == [
        f"Error: o/c.dvq: {third} is there, but is something else; use -f to overwrite"
    ]
    notes = [line for line in result.stderr.splitlines() if line.startswith("Note")]
    assert notes == [f"Note: o/a.dvq: {first} was not whole, and was made again"]
    assert result.stderr.splitlines()[-1].startswith(
        "3 files: 1 done, 1 already there, 1 failed   "
    )
    assert first.read_bytes() == files[first]
    assert second.read_bytes() == files[second] + b"and more"
    assert third.read_text() == "notes"


def test_a_damaged_original_beside_its_file_is_kept() -> None:
    draw(Path("a.png"))
    assert diveq("compress", "a.png").exit_code == 0
    cut = Path("a.png").read_bytes()[:-5]
    Path("a.png").write_bytes(cut)
    age("a.png", 10**9)
    result = diveq("decompress", "a.dvq", "--skip-existing")
    assert result.exit_code == 1
    assert errors(result) == [
        "Error: a.dvq: a.png is there, but damaged and no newer than this; use -f to overwrite"
    ]
    assert Path("a.png").read_bytes() == cut
