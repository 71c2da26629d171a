"""What used to go wrong with files of a folder, their names, and the streams."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diveqcodec.cli import batch, files
from diveqcodec.cli.console import Console, OutputError
from diveqcodec.cli.kinds import PICTURES
from diveqcodec.codec import Codec
from diveqcodec.container import pixelfile
from diveqcodec.image import Picture, load
from tests.support.commands import diveq, draw, errors, opened
from tests.support.places import ROOT
from tests.support.plans import planned, touch
from tests.support.profiles import ADOBE_RGB

# Compression of pictures is tested elsewhere; here it is a stand-in that costs nothing.
DVQ = pixelfile.compress(Picture(np.zeros((1, 1, 3), np.uint8), None, None, None, None))

pytestmark = pytest.mark.usefixtures("models")


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> list[Picture]:
    """The pictures that were coded, each to `DVQ`."""
    seen: list[Picture] = []

    def compress(self: Codec, picture: Picture, *_: object, **__: object) -> bytes:
        seen.append(picture)
        return DVQ

    monkeypatch.setattr(Codec, "compress", compress)
    return seen


# --- nothing that claims to be a picture vanishes ---


def test_bad_pictures_of_a_folder_are_errors_with_their_names(coded: list[Picture]) -> None:
    draw(Path("d/good.png"))
    Path("d/empty.jpg").touch()
    Path("d/head.jpg").write_bytes(b"\0" * 20 + b"JFIF")
    png = bytearray(Path("d/good.png").read_bytes())
    png[33 + 4 + 4] ^= 255  # a bit of IDAT's head
    png[20] ^= 1  # and one of IHDR, whose checksum is wrong now
    Path("d/crc.png").write_bytes(png)
    Path("d/phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    Path("d/no suffix").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    os.symlink("nowhere", "d/link.png")
    Path("d/notes.txt").write_text("words")
    result = diveq("compress", "d", "--json", "-v")
    assert result.exit_code == 1
    records = {
        record["input"]: record.get("error", "done")
        for record in map(json.loads, result.stdout.splitlines())
    }
    assert list(records) == sorted(records)
    assert set(records) == {
        *(f"d/{name}" for name in ("good.png", "empty.jpg", "head.jpg", "crc.png")),
        *(f"d/{name}" for name in ("phone.heic", "no suffix", "link.png")),
    }
    assert records["d/good.png"] == "done"
    assert records["d/empty.jpg"] == "not an image that Pillow can read: it is empty"
    assert "pip install pillow-heif" in records["d/phone.heic"]
    assert "IHDR" in records["d/crc.png"]
    assert records["d/link.png"] == "no such file"
    assert "d/notes.txt: not a picture" in result.stderr.splitlines()
    assert "not a picture" not in diveq("compress", "d", "-f").stderr


def test_folders_that_cannot_be_read_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("d/a.png", "d/locked/b.png")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    a, locked = batch.expand(["d"], PICTURES, Console())
    assert (a.name, a.problem) == ("d/a.png", None)
    assert (locked.name, locked.problem) == ("d/locked", "cannot be read: permission denied")


def test_our_own_png_with_large_metadata_is_read_again() -> None:
    """Pillow alone refuses a PNG with more than a megabyte of a profile or of XMP."""
    filler = np.random.default_rng(0).bytes(1_300_000)
    profile = ADOBE_RGB + filler  # more than it says that it has, which deflate cannot shorten
    xmp = b"<x:xmpmeta>" + filler.hex().encode()[:1_200_000] + b"</x:xmpmeta>"
    opened(draw(Path("a.png"))).save("a.tif", icc_profile=profile, tiffinfo={700: xmp})
    options = ("--lossless", "--metadata", "all")
    assert diveq("compress", "a.tif", *options).exit_code == 0
    assert diveq("decompress", "a.dvq", "-o", "b.png").exit_code == 0
    result = diveq("compress", "b.png", *options)
    assert result.exit_code == 0
    assert "Note" not in result.stderr
    assert Path("b.dvq").read_bytes() == Path("a.dvq").read_bytes()
    picture = load("b.png")
    assert (picture.icc, picture.xmp) == (profile, xmp)


# --- names ---


@pytest.mark.parametrize(
    ("name", "output", "kept"),
    [
        ("a.jpg", "a.dvq", "a.jpg.dvq"),
        ("A.JPEG", "A.dvq", "A.JPEG.dvq"),
        ("v1.2 final", "v1.2 final.dvq", "v1.2 final.dvq"),
        ("v1.2 final.png", "v1.2 final.dvq", "v1.2 final.png.dvq"),
        ("photo.NEF", "photo.dvq", "photo.NEF.dvq"),
        ("2024.05.01", "2024.05.01.dvq", "2024.05.01.dvq"),
        ("a.tar.gz", "a.tar.gz.dvq", "a.tar.gz.dvq"),
    ],
)
def test_only_suffixes_of_pictures_are_replaced(name: str, output: str, kept: str) -> None:
    touch(name)
    assert planned([name])[0].target_name == output
    assert planned([name], keeps_suffix=True)[0].target_name == kept


def test_a_collision_hurts_its_own_files_only(coded: list[Picture]) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        draw(Path("d", name))
    result = diveq("compress", "d")
    assert result.exit_code == 1
    assert errors(result) == [
        f"Error: d/{name}: d/a.dvq would be the output of d/{other} too; "
        "do them apart, with -o, or use --keep-suffix"
        for name, other in (("a.jpg", "a.png"), ("a.png", "a.jpg"))
    ]
    assert len(coded) == 1
    assert Path("d/b.dvq").exists()
    assert not Path("d/a.dvq").exists()
    result = diveq("compress", "d", "--keep-suffix")
    assert result.exit_code == 0
    written = sorted(path.name for path in Path("d").glob("*.dvq"))
    assert written == ["a.jpg.dvq", "a.png.dvq", "b.dvq", "b.png.dvq"]


def test_links_do_not_hide_a_collision(coded: list[Picture]) -> None:
    draw(Path("d/a.png"))
    draw(Path("d/b.png"))
    Path("out").mkdir()
    os.symlink("b.dvq", "out/a.dvq")
    result = diveq("compress", "d", "-o", "out", "-f")
    assert errors(result) == [
        f"Error: d/{name}.png: out/{name}.dvq would be the output of d/{other}.png too; "
        "do them apart, with -o, or use --keep-suffix"
        for name, other in ("ab", "ba")
    ]
    assert not coded
    os.symlink("d", "same")
    assert diveq("compress", "d/a.png", "same/a.png").exit_code == 0
    assert len(coded) == 1  # one picture with two names


def test_what_is_given_twice_is_done_once() -> None:
    touch("d/a.png", "d/b.png")
    assert [job.source.name for job in planned(["d", "d/a.png", "./d/b.png"])] == [
        "d/a.png",
        "d/b.png",
    ]


def test_names_as_long_as_the_file_system_allows(coded: list[Picture]) -> None:
    longest = os.pathconf(".", "PC_NAME_MAX")
    name = "x" * (longest - 4) + ".png"
    draw(Path("a.png")).rename(name)
    assert diveq("compress", name).exit_code == 0
    output = name[:-4] + ".dvq"
    assert set(os.listdir()) == {name, output}
    assert Path(output).read_bytes() == DVQ
    result = diveq("compress", name, "--keep-suffix")
    assert result.exit_code == 1
    assert errors(result) == [f"Error: {name}.dvq: cannot be written: file name too long"]
    result = diveq("compress", "y" * (longest + 1))  # no such file can exist
    assert result.exit_code == 1
    assert errors(result)[0].endswith(": file name too long")
    assert set(os.listdir()) == {name, output}


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_json_with_names_that_are_not_utf8(coded: list[Picture]) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    draw(Path("a.png")).rename(name)
    draw(Path("b.png"))
    result = diveq("compress", name, "b.png", "--json")
    assert result.exit_code == 0
    first, second = map(json.loads, result.stdout.splitlines())
    assert os.fsencode(first["input"]) == b"caf\xe9.png"
    assert second["input"] == "b.png"
    assert "caf" in diveq("compress", name, "b.png", "-f").stderr


# --- streams ---


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["--json", "-o", "x.dvq"], ["-o", "-"]])
def test_a_stdout_that_cannot_be_written_is_named(arguments: list[str]) -> None:
    draw(Path("a.png"))
    script = (
        "import sys, types; from diveqcodec.cli import main, options; "
        f"codec = types.SimpleNamespace(compress=lambda *_: {DVQ!r}); "
        "options.Session.timed_codec = lambda *_: (codec, 0.0); main(sys.argv[1:])"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", script, "compress", "a.png", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "stdout" in line and "->" not in line]
    assert line == "Error: <stdout>: cannot be written: no space left on device"
    assert "Traceback" not in done.stderr


# --- outputs ---


@pytest.mark.parametrize("output", ["b.png", "b.JPG", "sub/b.heic"])
def test_compress_does_not_write_what_is_named_like_a_picture(output: str) -> None:
    draw(Path("a.png"))
    result = diveq("compress", "a.png", "-o", output)
    assert result.exit_code == 2
    path = Path(output)
    assert errors(result) == [
        f"Error: -o {output}: what is written is no {path.suffix} file; "
        f"name it {path.with_suffix('.dvq')}"
    ]
    assert os.listdir() == ["a.png"]


def test_damage_that_leaves_the_picture_whole_is_a_note_and_strict_refuses(
    coded: list[Picture],
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("a.jpg")
    Path("a.jpg").write_bytes(Path("a.jpg").read_bytes()[:-2])
    result = diveq("compress", "a.jpg", "--strict")
    assert result.exit_code == 1
    assert "truncated" in errors(result)[0]
    result = diveq("compress", "a.jpg", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["notices"] == ["damaged: the JPEG end marker is missing"]


def test_permissions_are_kept(coded: list[Picture]) -> None:
    draw(Path("a.png")).chmod(0o600)
    assert diveq("compress", "a.png").exit_code == 0
    assert stat.S_IMODE(Path("a.dvq").stat().st_mode) == 0o600
    Path("a.dvq").chmod(0o640)
    Path("a.png").chmod(0o755)
    assert diveq("compress", "a.png", "-f").exit_code == 0
    assert stat.S_IMODE(Path("a.dvq").stat().st_mode) == 0o640
    assert diveq("compress", "a.png", "-o", "b.dvq").exit_code == 0
    assert stat.S_IMODE(Path("b.dvq").stat().st_mode) == 0o644


def test_times_are_kept_when_asked_for(coded: list[Picture]) -> None:
    draw(Path("a.png"))
    os.utime("a.png", ns=(10**18, 10**18 + 123_456_789))
    assert diveq("compress", "a.png", "--keep-times").exit_code == 0
    assert Path("a.dvq").stat().st_mtime_ns == 10**18 + 123_456_789
    assert diveq("compress", "a.png", "-f").exit_code == 0
    assert Path("a.dvq").stat().st_mtime_ns > 10**18 + 10**17


def test_a_second_run_that_skips_is_quiet_and_does_nothing(
    coded: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        draw(Path(f"d/{name}.png"))
    assert diveq("compress", "d/a.png").exit_code == 0
    result = diveq("compress", "d", "--skip-existing")
    assert result.exit_code == 0
    assert "3 files: 2 done, 1 already there   " in result.stderr.splitlines()[-1]
    assert len(coded) == 3
    monkeypatch.setattr("diveqcodec.image.load", None)  # nothing is even read
    result = diveq("compress", "d", "--skip-existing")
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("3 files: 0 done, 3 already there   ")
    records = map(
        json.loads, diveq("compress", "d", "--skip-existing", "--json").stdout.split("\n")[:-1]
    )
    assert [record["skipped"] for record in records] == [True, True, True]
    assert diveq("compress", "d", "--skip-existing", "-f").exit_code == 2


def test_the_end_of_a_batch_is_summed_up(coded: list[Picture]) -> None:
    sizes = [draw(Path(f"{name}.png")).stat().st_size for name in "ab"]
    result = diveq("compress", "a.png", "b.png", "nope.png")
    last = result.stderr.splitlines()[-1]
    expected = f"3 files: 2 done, 1 failed   {sum(sizes):,} B -> {2 * len(DVQ):,} B   "
    assert last.startswith(expected)
    assert "files:" not in diveq("compress", "a.png", "-f").stderr
    assert "files:" not in diveq("compress", "a.png", "b.png", "-f", "--quiet").stderr
    assert "files:" not in diveq("compress", "a.png", "b.png", "-f", "--json").stderr


def test_what_does_not_verify_is_not_kept(coded: list[Picture]) -> None:
    draw(Path("a.png"))
    Path("a.dvq").write_text("precious")
    result = diveq("compress", "a.png", "-f", "--verify")
    assert result.exit_code == 1
    assert errors(result)[0].startswith("Error: a.png: not verified")
    assert Path("a.dvq").read_text() == "precious"
    assert sorted(os.listdir()) == ["a.dvq", "a.png"]


@pytest.mark.parametrize("what", ["pixels", "alpha", "icc"])
def test_what_verifies_and_what_does_not(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(Path("a.png"), "RGBA")
    assert diveq("compress", "a.png", "--verify", "--metadata", "all").exit_code == 0
    decompress = Codec.decompress

    def another(self: Codec, data: bytes) -> Picture:
        picture = decompress(self, data)
        assert picture.alpha is not None
        pixels, alpha = picture.pixels, picture.alpha
        if what == "pixels":
            return Picture(pixels[1:], alpha[1:], picture.icc)
        icc = b"another" if what == "icc" else picture.icc
        return Picture(pixels, alpha ^ np.uint8(1) if what == "alpha" else alpha, icc)

    monkeypatch.setattr(Codec, "decompress", another)
    result = diveq("compress", "a.png", "-f", "--verify")
    assert result.exit_code == 1
    told = {"pixels": "size", "alpha": "transparency", "icc": "ICC profile"}[what]
    assert errors(result) == [
        f"Error: a.png: not verified: decoded with another {told}; please report it"
    ]


def test_a_private_picture_is_private_from_the_first_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path("a.png")
    source.write_bytes(b"x")
    source.chmod(0o600)
    modes = []

    def spy(data: bytes) -> None:
        (temporary,) = [path for path in Path().iterdir() if path.name.startswith(".diveq-")]
        modes.append(stat.S_IMODE(temporary.stat().st_mode))

    files.write_atomic(Path("a.dvq"), b"data", source, check=spy)
    assert modes == [0o600]
    with pytest.raises(OutputError, match="is a folder"):
        files.check_target(Path(), None, False)


def test_a_file_larger_than_its_input_is_noted(coded: list[Picture]) -> None:
    small = Path("dot.pgm")
    small.write_bytes(b"P5 1 1 255 \x07")
    assert len(DVQ) > small.stat().st_size
    result = diveq("compress", "dot.pgm")
    assert result.exit_code == 0
    assert f"larger than the input, which has {small.stat().st_size:,} B" in result.stderr
    assert len(coded) == 1
