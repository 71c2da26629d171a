"""What bytes and names claim to be, and what is said of pictures that nothing here reads."""

import sys
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image, features

from diveqcodec.container import bitstream
from diveqcodec.errors import ImageError
from diveqcodec.image import kinds, load

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "JPEG2000", "AVIF"])
def test_formats_of_pillow(format: str) -> None:
    stream = BytesIO()
    Image.new("RGB", (20, 20)).save(stream, format)
    kind = kinds.sniff(stream.getvalue()[: kinds.HEAD_BYTES])
    assert kind is not None
    assert (kind.name, kind.package) == (format, None)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (HEIC, "a HEIC picture, which Pillow cannot read by itself; pip install pillow-heif"),
        (
            b"\xff\x0a\xfa\x1f",
            "a JPEG XL picture, which Pillow cannot read by itself; pip install pillow-jxl-plugin",
        ),
        (
            b"\0\0\0\x0cJXL \r\n\x87\n",
            "a JPEG XL picture, which Pillow cannot read by itself; pip install pillow-jxl-plugin",
        ),
        (
            b"FUJIFILMCCD-RAW 0201",
            "a camera's raw file (Fujifilm), not developed; make a TIFF or PNG of it first, "
            "such as with rawpy",
        ),
        (
            b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom",
            "a camera's raw file (Canon), not developed; make a TIFF or PNG of it first, "
            "such as with rawpy",
        ),
        (
            b"II*\0\x10\0\0\0CR\x02\0",
            "a camera's raw file (Canon), not developed; make a TIFF or PNG of it first, "
            "such as with rawpy",
        ),
        (b"\x8bDVQ\x01", "a .dvq file already"),
        (b"", "not an image that Pillow can read: it is empty"),
        (b"words", "not an image that Pillow can read"),
        (
            b"\x89PNG\r\n\x1a\n\0\0\0\0",
            "a PNG file that cannot be read (broken PNG file (chunk b''))",
        ),
    ],
)
def test_what_is_said(head: bytes, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for plugin in ("pillow_heif", "pillow_jxl"):  # as if they were not installed
        monkeypatch.setitem(sys.modules, plugin, None)
    Image.init()
    known = [name for name in Image.ID if name not in ("HEIF", "JXL")]
    monkeypatch.setattr(Image, "ID", known)
    monkeypatch.setattr(Image, "OPEN", {name: Image.OPEN[name] for name in known})
    with pytest.raises(ImageError) as caught:
        load(BytesIO(head), name="x")
    assert str(caught.value) == f"x: {told}"


@pytest.mark.parametrize("format", ["AVIF", "JPEG", "JPEG2000", "WEBP"])
@pytest.mark.parametrize("lacks_plugin", [False, True])
def test_a_pillow_without_a_library_is_named(
    format: str, lacks_plugin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older ones have no plugin of AVIF, later ones one that cannot read without the library."""
    stream = BytesIO()
    Image.new("RGB", (20, 20)).save(stream, format)

    def refuse(*_: Any) -> Any:
        raise SyntaxError("not installed")

    known = [name for name in Image.ID if name != format]
    opened = {name: Image.OPEN[name] for name in known}
    if not lacks_plugin:
        known.append(format)
        opened[format] = (refuse, None)
        monkeypatch.setattr(features, "check", lambda name: False)
    monkeypatch.setattr(Image, "ID", known)
    monkeypatch.setattr(Image, "OPEN", opened)
    with pytest.raises(ImageError) as caught:
        load(stream, name="x")
    assert str(caught.value) == (
        f"x: {format}, which this Pillow was built without; its wheel has it: "
        "pip install --force-reinstall 'pillow>=11.3'"
    )


def test_an_installed_plugin_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for pillow-heif, which reads every such file as red."""
    plugin = ModuleType("pillow_heif")

    def register() -> None:
        Image.register_open(
            "HEIF", lambda file, name: red, lambda head: head[4:8] == b"ftyp" and b"heic" in head
        )

    red: Any = Image.new("RGB", (3, 2), (255, 0, 0))
    vars(plugin)["register_heif_opener"] = register
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    Image.init()
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    assert load(BytesIO(HEIC)).pixels[1, 2].tolist() == [255, 0, 0]


def test_files_that_claim_to_be_pictures(tmp_path: Path) -> None:
    contents = {
        "empty.jpg": b"",
        "a.HEIC": b"x",
        "shot.nef": b"x",
        "no suffix": b"\x89PNG\r\n\x1a\n",
        "b.dat": HEIC,
    }
    others = {
        "notes.txt": b"P5 is a chess move",
        "c.jpg.xmp": b"<x/>",
        "d.dvq": b"\x8bDVQ\x01",
        "e": b"",
    }
    for name, content in (contents | others).items():
        (tmp_path / name).write_bytes(content)
    found = {path.name for path in tmp_path.iterdir() if kinds.claims_to_be_a_picture(path)}
    assert found == set(contents)


def test_the_magic_is_that_of_the_container() -> None:
    assert kinds._DVQ == bitstream.MAGIC
