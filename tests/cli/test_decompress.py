import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from diveqcodec import image
from diveqcodec.cli.batch import PICTURE_SUFFIXES
from diveqcodec.cli.decompress import SUFFIX_OF
from diveqcodec.container import bitstream, pixelfile
from diveqcodec.image import Picture
from tests.support.commands import TINY, diveq, draw, errors, opened
from tests.support.places import ROOT

# What needs no weights, and in a process of its own no torch.
DVQ = pixelfile.compress(Picture(np.zeros((1, 1, 3), np.uint8)))


@pytest.fixture(autouse=True)
def models(models: Path) -> Path:
    draw(Path("photo.png"))
    assert diveq("compress", "photo.png", "--lossy").exit_code == 0
    return models


def test_the_formats_are_those_that_can_be_written() -> None:
    assert set(SUFFIX_OF) == set(get_args(image.Format)) == set(PICTURE_SUFFIXES.values())
    assert all(PICTURE_SUFFIXES[suffix] == format_ for format_, suffix in SUFFIX_OF.items())


def test_the_original_is_not_destroyed() -> None:
    before = Path("photo.png").read_bytes()
    result = diveq("decompress", "photo.dvq")
    assert result.exit_code == 1
    assert errors(result) == ["Error: photo.png: already exists; use -f to overwrite"]
    assert Path("photo.png").read_bytes() == before
    result = diveq("decompress", "photo.dvq", "-f")
    assert result.exit_code == 0
    assert result.stderr.startswith("photo.dvq -> photo.png   40x24   ")
    assert Path("photo.png").read_bytes() != before


@pytest.mark.parametrize("format_", get_args(image.Format))
def test_formats(format_: image.Format) -> None:
    suffix = SUFFIX_OF[format_]
    assert diveq("decompress", "photo.dvq", "--format", format_, "-o", "a/").exit_code == 0
    assert diveq("decompress", "photo.dvq", "-o", f"b{suffix}").exit_code == 0
    assert diveq("decompress", "photo.dvq", "-o", "p.png").exit_code == 0
    data = Path("a", f"photo{suffix}").read_bytes()
    assert data == Path(f"b{suffix}").read_bytes()
    found = opened(data)
    assert str(found.format).lower() == format_
    difference = np.asarray(found, float) - np.asarray(opened("p.png"), float)
    assert np.abs(difference).mean() < (6 if format_ == "jpeg" else 1e-9)


def test_folders_may_have_dots_in_their_names() -> None:
    Path("two.dvq").write_bytes(Path("photo.dvq").read_bytes())
    assert diveq("decompress", "photo.dvq", "-o", "v1.0/").exit_code == 0
    assert opened("v1.0/photo.png").format == "PNG"
    assert diveq("decompress", "photo.dvq", "two.dvq", "-o", "v1.1").exit_code == 0
    assert diveq("decompress", ".", "-o", "v1.2").exit_code == 0
    assert sorted(path.name for path in Path("v1.1").iterdir()) == ["photo.png", "two.png"]
    assert sorted(path.name for path in Path("v1.2").iterdir()) == ["photo.png", "two.png"]


@pytest.mark.parametrize("name", ["x.jpg", "x.tif", "x.gif", "x.heic", "x.dvq"])
def test_a_suffix_that_contradicts_format_is_refused(name: str) -> None:
    result = diveq("decompress", "photo.dvq", "-o", name, "--format", "png")
    assert result.exit_code == 2
    suffix = Path(name).suffix
    assert errors(result) == [f"Error: -o {name}: {suffix} is not png, which --format asks for"]
    assert not Path(name).exists()


def test_format_decides_where_the_suffix_says_nothing() -> None:
    assert diveq("decompress", "photo.dvq", "-o", "x.v2", "--format", "jpeg").exit_code == 0
    assert opened("x.v2").format == "JPEG"
    assert diveq("decompress", "photo.dvq", "-o", "x.tif", "--format", "tiff").exit_code == 0
    assert opened("x.tif").format == "TIFF"


def test_what_is_no_dvq_file_is_called_that() -> None:
    before = Path("photo.png").read_bytes()
    result = diveq("decompress", "photo.png", "-f")
    assert result.exit_code == 1
    assert errors(result) == ["Error: photo.png: not a .dvq file"]
    assert Path("photo.png").read_bytes() == before
    draw(Path("d/other.png"))
    Path("d/empty.dvq").touch()
    result = diveq("decompress", "d")
    assert result.exit_code == 1
    assert errors(result) == ["Error: d/empty.dvq: not a .dvq file: it is empty"]


def test_only_the_suffix_dvq_is_replaced() -> None:
    data = Path("photo.dvq").read_bytes()
    for name in ("v1.2", "a.jpg.dvq", "b.DVQ"):
        Path(name).write_bytes(data)
    assert diveq("decompress", "v1.2", "a.jpg.dvq", "b.DVQ").exit_code == 0
    assert all(opened(name).size == (40, 24) for name in ("v1.2.png", "a.jpg.png", "b.png"))


def test_an_unknown_suffix_needs_a_format() -> None:
    result = diveq("decompress", "photo.dvq", "-o", "x.gif")
    assert result.exit_code == 2
    assert errors(result) == [
        "Error: -o x.gif: .gif cannot be written; say with --format what shall be"
    ]


def test_pipes() -> None:
    data = Path("photo.dvq").read_bytes()
    result = diveq("decompress", "-", "--format", "ppm", stdin=data)
    assert result.exit_code == 0
    assert opened(result.stdout_bytes).size == (40, 24)
    assert diveq("decompress", "-", "-o", "y.png", stdin=data).exit_code == 0
    assert opened("y.png").size == (40, 24)


def test_json() -> None:
    result = diveq("decompress", "photo.dvq", "-o", "y.webp", "--json")
    record = json.loads(result.stdout)
    assert record["input"] == "photo.dvq"
    assert record["output"] == "y.webp"
    assert record["format"] == "webp"
    assert record["model"] == "diveq-5"
    assert result.stderr == ""


def test_transparency_needs_a_background_for_jpeg() -> None:
    draw(Path("glass.png"), "RGBA")
    diveq("compress", "glass.png")
    result = diveq("decompress", "glass.dvq", "-o", "glass.jpg")
    assert result.exit_code == 1
    assert "cannot hold transparency" in errors(result)[0]
    arguments = ("-o", "glass.jpg", "--background", "white")
    assert diveq("decompress", "glass.dvq", *arguments).exit_code == 0
    assert opened("glass.jpg").mode == "RGB"


def test_missing_weights_are_named_and_m_gives_them(models: Path) -> None:
    identifier = bitstream.read_header(Path("photo.dvq").read_bytes()).model_id.hex()
    (models / "diveq-5.safetensors").unlink()
    result = diveq("decompress", "photo.dvq", "-o", "y.png")
    assert result.exit_code == 1
    assert errors(result) == [
        f"Error: photo.dvq: needs model {identifier}, which is not installed; give it with -m PATH"
    ]
    assert diveq("decompress", "photo.dvq", "-o", "y.png", "-m", TINY).exit_code == 0


def test_the_wrong_weights_are_refused(models: Path) -> None:
    data = bytearray(Path("photo.dvq").read_bytes())
    header = bitstream.read_header(bytes(data))
    file = bitstream.read(bytes(data))
    other = bitstream.Header(header.width, header.height, b"\1" * 8, header.gain_index)
    Path("other.dvq").write_bytes(bitstream.write(bitstream.DvqFile(other, file.tiles)))
    result = diveq("decompress", "other.dvq", "-m", TINY)
    assert result.exit_code == 1
    assert errors(result) == [
        f"Error: other.dvq: needs model {'01' * 8}, not tiny ({header.model_id.hex()})"
    ]


DATA_ERRORS = {
    "not a .dvq file": lambda data: b"GIF89a" + data,
    "not a .dvq file: it is empty": lambda data: b"",
    "written in bitstream version 9; this program reads 1": lambda data: (
        data[:4] + b"\x09" + data[5:]
    ),
    "damaged: truncated in chunk TILE": lambda data: data[:-3],
    "damaged: the checksum of the header does not match": lambda data: (
        data[:16] + bytes([data[16] ^ 1]) + data[17:]
    ),
}


@pytest.mark.parametrize("message", DATA_ERRORS)
def test_damaged_files(message: str) -> None:
    damage = DATA_ERRORS[message]
    Path("bad.dvq").write_bytes(damage(Path("photo.dvq").read_bytes()))
    for command in ("decompress", "info"):
        result = diveq(command, "bad.dvq")
        assert result.exit_code == 1
        assert errors(result) == [f"Error: bad.dvq: {message}"]
        assert "Traceback" not in result.output
    Path("d").mkdir()
    Path("bad.dvq").rename("d/bad.dvq")
    Path("d/good.dvq").write_bytes(Path("photo.dvq").read_bytes())
    result = diveq("decompress", "d", "--json", "-o", "again")
    assert result.exit_code == 1
    bad, good = map(json.loads, result.stdout.splitlines())
    assert (bad["input"], bad["error"]) == ("d/bad.dvq", message)
    assert good["output"] == "again/good.png"


def test_a_forgotten_o_is_guessed() -> None:
    result = diveq("decompress", "photo.dvq", "new.png", "-f")
    assert result.exit_code == 1
    assert errors(result) == ["Error: new.png: no such file. To name the output, use -o new.png"]


@pytest.mark.parametrize("command", ["decompress", "info"])
def test_what_else_lies_in_a_folder_is_named_by_v(command: str) -> None:
    Path("d").mkdir()
    Path("d/good.dvq").write_bytes(DVQ)
    Path("d/notes.txt").write_text("words")
    draw(Path("d/sub/other.png"))
    arguments = (command, "d", *(("-o", "out", "-f") if command == "decompress" else ()))
    said = "Note: d: skipped 2 of 3 files, not .dvq files"
    assert diveq(*arguments).stderr.splitlines()[0] == said
    lines = diveq(*arguments, "-v").stderr.splitlines()
    at = lines.index(said)
    assert lines[at + 1 : at + 3] == [
        "d/notes.txt: not a .dvq file",
        "d/sub/other.png: not a .dvq file",
    ]
    assert not any("not a" in line for line in diveq(*arguments, "--quiet").stderr.splitlines())


def test_times_are_kept_when_asked_for() -> None:
    Path("a.dvq").write_bytes(DVQ)
    os.utime("a.dvq", ns=(10**18, 10**18 + 123_456_789))
    assert diveq("decompress", "a.dvq", "--keep-times").exit_code == 0
    assert Path("a.png").stat().st_mtime_ns == 10**18 + 123_456_789
    assert diveq("decompress", "a.dvq", "-f").exit_code == 0
    assert Path("a.png").stat().st_mtime_ns > 10**18 + 10**17


def test_permissions_are_kept() -> None:
    Path("a.dvq").write_bytes(DVQ)
    Path("a.dvq").chmod(0o600)
    assert diveq("decompress", "a.dvq").exit_code == 0
    assert stat.S_IMODE(Path("a.png").stat().st_mode) == 0o600
    Path("a.png").chmod(0o640)
    Path("a.dvq").chmod(0o755)
    assert diveq("decompress", "a.dvq", "-f").exit_code == 0
    assert stat.S_IMODE(Path("a.png").stat().st_mode) == 0o640
    assert diveq("decompress", "a.dvq", "-o", "b.png").exit_code == 0
    assert stat.S_IMODE(Path("b.png").stat().st_mode) == 0o644


def test_the_end_of_a_batch_is_summed_up() -> None:
    for name in ("a.dvq", "b.dvq"):
        Path(name).write_bytes(DVQ)
    result = diveq("decompress", "a.dvq", "b.dvq", "nope.dvq")
    assert result.exit_code == 1
    written = sum(Path(name).stat().st_size for name in ("a.png", "b.png"))
    expected = f"3 files: 2 done, 1 failed   {2 * len(DVQ)} B -> {written} B   "
    assert result.stderr.splitlines()[-1].startswith(expected)
    result = diveq("decompress", "a.dvq", "b.dvq", "--skip-existing")
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("2 files: 0 done, 2 already there   ")
    for quiet in ("--quiet", "--json"):
        assert "files:" not in diveq("decompress", "a.dvq", "b.dvq", "-f", quiet).stderr
    assert "files:" not in diveq("decompress", "a.dvq", "-f").stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
@pytest.mark.parametrize("command", ["decompress", "info"])
def test_json_with_names_that_are_not_utf8(command: str) -> None:
    name = os.fsdecode(b"caf\xe9.dvq")
    for path in (name, "b.dvq"):
        Path(path).write_bytes(DVQ)
    result = diveq(command, name, "b.dvq", "missing.dvq", "--json")
    assert result.exit_code == 1
    first, second, third = map(json.loads, result.stdout.splitlines())
    assert os.fsencode(first["input"]) == b"caf\xe9.dvq"
    assert (second["input"], third["error"]) == ("b.dvq", "no such file")
    if command == "decompress":
        assert os.fsencode(first["output"]) == b"caf\xe9.png"
        assert Path(first["output"]).exists()
    again = ("-f",) if command == "decompress" else ()
    result = diveq(command, name, "b.dvq", *again)
    assert result.exit_code == 0
    assert "caf" in result.output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "arguments",
    [
        ("decompress", "a.dvq", "--json", "-o", "x.png"),
        ("decompress", "a.dvq", "-o", "-"),
        ("info", "a.dvq", "--json"),
        ("info", "a.dvq"),
    ],
    ids=" ".join,
)
def test_a_stdout_that_cannot_be_written_is_named(arguments: tuple[str, ...]) -> None:
    Path("a.dvq").write_bytes(DVQ)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "diveqcodec", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    assert done.returncode == 1
    assert done.stderr == "Error: <stdout>: cannot be written: no space left on device\n"
