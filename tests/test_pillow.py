"""`.dvq` files in Pillow: laws that its own formats keep, damage, threads, nothing left behind.

Lossless files show that every pixel comes through; the tiny model codes the others.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import (
    ExifTags,
    Image,
    ImageCms,
    ImageFile,
    PngImagePlugin,
    UnidentifiedImageError,
)

import diveqcodec
import diveqcodec.pillow
from diveqcodec.container import bitstream
from diveqcodec.pillow import DvqImageFile
from tests.support.commands import install_tiny
from tests.support.places import GOLDEN, ROOT
from tests.support.tiles import cut_into
from tests.support.tiny import drawn

MODES = ("L", "LA", "RGB", "RGBA")
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><a>b</a></x:xmpmeta>"


@pytest.fixture(scope="module", autouse=True)
def _weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:  # one folder, so that weights are loaded once
        install_tiny(patch, tmp_path_factory.mktemp("weights"))
        yield


def image_of(mode: str, size: tuple[int, int] = (40, 24), seed: int = 1) -> Image.Image:
    width, height = size
    planes = np.concatenate([drawn(height, width, seed), drawn(height, width, seed + 9)], axis=2)
    channels = {"L": [0], "LA": [0, 3], "RGB": [0, 1, 2], "RGBA": [0, 1, 2, 3]}[mode]
    return Image.fromarray(
        planes[..., channels].squeeze(2) if mode == "L" else planes[..., channels]
    )


def saved(image: Image.Image, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, "DVQ", **options)
    return stream.getvalue()


def opened(data: bytes) -> ImageFile.ImageFile:
    return Image.open(BytesIO(data))


# Opening, loading, saving.


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (67, 1), (13, 31)])
def test_lossless_files_come_back_as_they_were(mode: str, size: tuple[int, int]) -> None:
    image = image_of(mode, size)
    with opened(saved(image, lossless=True)) as back:
        assert (back.format, back.mode, back.size) == ("DVQ", mode, size)
        assert back.get_format_mimetype() == "image/x-dvq"
        assert back.tobytes() == image.tobytes()


@pytest.mark.parametrize("mode", MODES)
def test_coded_files_are_what_decompress_gives(mode: str) -> None:
    data = saved(image_of(mode), quality=70, lossless=False)
    picture = diveqcodec.decompress(data)
    with opened(data) as back:
        assert back.mode == mode
        planes = np.asarray(back).reshape(24, 40, -1)
    assert np.array_equal(planes[..., : picture.pixels.shape[2]], picture.pixels)
    if mode.endswith("A"):
        assert np.array_equal(planes[..., -1], np.asarray(image_of(mode))[..., -1])


def test_files_are_recognised_by_suffix_and_by_content(tmp_path: Path) -> None:
    assert Image.registered_extensions()[".dvq"] == "DVQ"
    assert Image.MIME["DVQ"] == "image/x-dvq"
    image = image_of("RGB")
    image.save(tmp_path / "a.dvq")
    assert (tmp_path / "a.dvq").read_bytes() == saved(image)
    (tmp_path / "a.dvq").rename(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as back:
        assert back.format == "DVQ"
        assert back.load() is not None


def test_options_are_those_of_compress() -> None:
    image = image_of("RGB")
    pixels = np.asarray(image)
    for options in ({}, {"quality": 20}, {"effort": 1}, {"quality": 90, "effort": 1}):
        assert saved(image, **options) == diveqcodec.compress(pixels, **options)  # type: ignore[arg-type]
    assert saved(image, lossless=False) == diveqcodec.compress(pixels, lossless="never")
    assert saved(image, lossless="always") == diveqcodec.compress(pixels, lossless="always")
    path = GOLDEN / "tiny.safetensors"
    assert saved(image, model=path, quality=None) == diveqcodec.compress(pixels, model=path)


@pytest.mark.parametrize(
    "options", [{"quality": 0}, {"quality": 101}, {"effort": 77}, {"lossless": "no"}]
)
def test_wrong_options_are_value_errors_and_leave_no_file(
    options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        image_of("RGB").save(tmp_path / "a.dvq", **options)
    assert not (tmp_path / "a.dvq").exists()


def test_what_cannot_be_saved_is_an_os_error() -> None:
    with pytest.raises(OSError, match="no such model"):
        saved(image_of("RGB"), model="nothing")
    with pytest.raises(OSError, match="0x4 pixels"):
        saved(Image.new("RGB", (0, 4)))


@pytest.mark.parametrize("mode", ["1", "P", "PA", "La", "RGBa", "CMYK", "YCbCr", "HSV"])
def test_other_modes_look_the_same(mode: str) -> None:
    source = image_of("LA" if mode == "La" else "RGBA" if mode in ("PA", "RGBa") else "RGB")
    if mode == "PA":
        source = source.convert("P")
    image = source.convert(mode)
    with opened(saved(image, lossless=True)) as back:
        if mode == "La":
            image = image.convert("LA")
        assert back.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


def test_deep_grey_follows_the_rules_of_files(tmp_path: Path) -> None:
    ramp = np.arange(24 * 40, dtype=np.uint16).reshape(24, 40) * 68
    for values in (ramp, ramp.astype(np.int32), ramp.astype(np.float32) / 65535):
        image = Image.fromarray(values)
        image.save(tmp_path / "a.tif")
        from_file = diveqcodec.image.load(tmp_path / "a.tif")
        with opened(saved(image, lossless=True)) as back:
            assert back.mode == "L"
            assert np.array_equal(np.asarray(back), from_file.pixels[..., 0])
        assert len(np.unique(from_file.pixels)) > 200


def test_white_is_what_the_file_of_an_image_says(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    ramp = np.arange(24 * 40, dtype=np.uint16).reshape(24, 40) * 68
    Image.fromarray(ramp).save(path, tiffinfo={262: 0})  # white is zero
    with Image.open(path) as image, opened(saved(image, lossless=True)) as back:
        assert np.array_equal(np.asarray(back), diveqcodec.image.load(path).pixels[..., 0])
        assert back.getpixel((0, 0)) == 255


# Metadata.


def exif_of(**tags: Any) -> Image.Exif:
    exif = Image.Exif()
    for name, value in tags.items():
        exif[getattr(ExifTags.Base, name)] = value
    return exif


def test_metadata_are_kept_where_they_are_asked_for() -> None:
    data = saved(image_of("RGB"), exif=exif_of(Artist="me"), xmp=XMP, dpi=(300, 150))
    with opened(data) as back:
        assert back.getexif()[ExifTags.Base.Artist] == "me"
        assert back.info["xmp"] == XMP
        assert back.info["dpi"] == (300, 150)
        before = dict(back.info)
        back.load()
        assert back.info == before
    with opened(saved(opened(data))) as again:  # as with JPEG and WebP, not unless asked for
        assert not {"exif", "xmp", "dpi"} & again.info.keys()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"exif": b"junk"}, "unreadable EXIF data left out"),
        ({"icc_profile": b"junk"}, "unreadable ICC profile left out"),
    ],
)
def test_metadata_that_are_left_out_are_logged(
    given: dict[str, bytes], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "diveqcodec"):
        data = saved(image_of("RGB"), lossless=True, **given)
    assert caplog.messages == [said]
    with opened(data) as back:
        assert not {"exif", "icc_profile"} & back.info.keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"exif": 5}, "exif of type int: must be bytes"),
        ({"exif": "text"}, "exif of type str: must be bytes"),
        ({"icc_profile": "text"}, "icc_profile of type str: must be bytes"),
        ({"xmp": ["<x/>"]}, "xmp of type list: must be bytes"),
        ({"dpi": 300}, "dpi 300: must be two numbers"),
        ({"dpi": (300,)}, r"dpi \(300,\): must be two numbers"),
        ({"dpi": "ab"}, "dpi 'ab': must be two numbers"),
    ],
)
def test_what_are_no_metadata_are_value_errors(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        saved(image_of("RGB"), lossless=True, **given)


def test_metadata_may_be_in_whatever_python_keeps_bytes() -> None:
    plain = {"exif": exif_of(Artist="me").tobytes(), "xmp": XMP}
    expected = saved(image_of("RGB"), lossless=True, **plain)
    for kind in (bytearray, memoryview):
        given = {key: kind(value) for key, value in plain.items()}
        assert saved(image_of("RGB"), lossless=True, **given) == expected
    others: dict[str, Any] = {"exif": exif_of(Artist="me"), "xmp": XMP.decode(), "dpi": (0, 0)}
    assert saved(image_of("RGB"), lossless=True, **others) == expected


def test_a_profile_is_kept_by_itself(tmp_path: Path) -> None:
    with Image.open(ROOT / "sample_images" / "cat.png") as cat:
        srgb = cat.info["icc_profile"]
    swapped = srgb.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")
    image = image_of("RGB")
    image.info["icc_profile"] = swapped
    with opened(saved(image)) as back:
        assert back.info["icc_profile"] == swapped
        back.save(tmp_path / "again.dvq")
    with Image.open(tmp_path / "again.dvq") as again:
        assert again.info["icc_profile"] == swapped
    with opened(saved(image, icc_profile=None)) as bare:
        assert "icc_profile" not in bare.info


def test_colours_that_the_file_told_become_srgb() -> None:
    image = image_of("RGB")
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", 100_000))
    stream = BytesIO()
    image.save(stream, "PNG", pnginfo=info)
    wanted = diveqcodec.image.load(BytesIO(stream.getvalue())).pixels
    assert (wanted != np.asarray(image)).any()
    with Image.open(stream) as linear:
        with opened(saved(linear, lossless=True)) as back:
            assert np.array_equal(np.asarray(back), wanted)
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        with opened(saved(linear, lossless=True, icc_profile=profile)) as back:
            assert np.array_equal(np.asarray(back), np.asarray(image))


@pytest.mark.parametrize("as_bytes", [True, False])
def test_an_orientation_that_is_given_is_carried_out(as_bytes: bool) -> None:
    image = image_of("RGB", (30, 20))
    exif = exif_of(Orientation=6, Artist="me")
    data = saved(image, exif=exif.tobytes() if as_bytes else exif, lossless=True)
    with opened(data) as back:
        assert back.size == (20, 30)
        assert back.tobytes() == image.transpose(Image.Transpose.ROTATE_270).tobytes()
        assert dict(back.getexif()) == {ExifTags.Base.Artist: "me"}
    image.info["exif"] = exif.tobytes()
    with opened(saved(image, lossless=True)) as back:  # pixels are stored as they are
        assert back.tobytes() == image.tobytes()


def test_opening_reads_the_header_alone(tmp_path: Path) -> None:
    data = saved(image_of("RGB"), xmp=XMP)
    image = opened(data[: bitstream.HEADER_BYTES])  # no more than that is there
    assert image.size == (40, 24)
    assert image.info == {}
    with pytest.raises(OSError, match="damaged"):
        image.load()
    path = tmp_path / "a.dvq"
    path.write_bytes(data)
    code = (
        "import sys, diveqcodec.pillow\nfrom PIL import Image\n"
        "image = Image.open(sys.argv[1])\n"
        "print(image.size, image.mode, len(image.info['xmp']), 'torch' in sys.modules)\n"
        "image.verify()\n"
        "print('torch' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert run.stdout.split("\n")[:2] == [f"(40, 24) RGB {len(XMP)} False", "False"], run.stderr


# Damage.


def test_what_is_not_ours_is_not_opened() -> None:
    for data in (b"", b"\x8bDV", b"no picture at all", b"DVQ\x8b" + bytes(40)):
        with pytest.raises(SyntaxError, match="not a .dvq file"):
            DvqImageFile(BytesIO(data), "a")
        with pytest.raises(UnidentifiedImageError):
            opened(data)


def test_a_newer_version_says_so() -> None:
    data = bytearray(saved(image_of("L")))
    data[len(bitstream.MAGIC)] = 9
    with (
        pytest.warns(UserWarning, match="version 9; this program reads 1"),
        pytest.raises(UnidentifiedImageError),
    ):
        opened(bytes(data))


def test_every_damage_is_an_error_of_opening_or_loading() -> None:
    data = saved(image_of("RGBA", (9, 7)), quality=5, lossless=False, xmp=XMP)
    header = bitstream.parse_header(data)[1]
    damaged = [(data[:end], end < header) for end in range(len(data))]
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 0x41
        damaged.append((bytes(flipped), position < header))
    for file, is_in_header in damaged:
        if is_in_header:
            with pytest.raises(SyntaxError):
                DvqImageFile(BytesIO(file), "a")
            continue
        with DvqImageFile(BytesIO(file), "a") as image, pytest.raises(OSError, match="."):
            image.load()
        with DvqImageFile(BytesIO(file), "a") as image:
            _ = image.info  # says nothing of it
            with pytest.raises(OSError, match="."):
                image.verify()


def test_a_file_that_is_whole_verifies() -> None:
    for path in (GOLDEN / "colour.dvq", GOLDEN / "lossless" / "glass.dvq"):
        with Image.open(path) as image:
            image.verify()
            with pytest.raises(OSError, match="closed"):
                image.load()


def test_a_model_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = saved(image_of("RGB"), lossless=False)
    monkeypatch.setenv("DIVEQ_MODELS", str(tmp_path / "none"))
    with opened(data) as image, pytest.raises(OSError, match="needs model .*--import"):
        image.load()


def test_truncated_images_are_shown_where_pillow_is_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut_into(monkeypatch, 64)
    image = image_of("RGB", (128, 64))
    data = saved(image, quality=80, lossless=False, effort=1)  # without filters
    whole = np.asarray(opened(data))
    with opened(data[:-9]) as cut, pytest.raises(OSError, match="damaged"):
        cut.load()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    part = np.asarray(opened(data[:-9]))
    assert np.array_equal(part, diveqcodec.decompress(data[:-9], partial=True).pixels)
    assert abs(part[:, :48].astype(int) - whole[:, :48]).max() <= 3  # networks see across borders
    assert (part[:, 64:] == 128).all()


# What programs do with images.


def test_thumbnails_copies_crops_and_pickles() -> None:
    image = image_of("RGBA", (60, 40))
    data = saved(image, lossless=True)
    small, expected = opened(data), image.copy()
    small.thumbnail((16, 16))
    expected.thumbnail((16, 16))
    assert small.size == (16, 11)
    assert small.tobytes() == expected.tobytes()
    assert opened(data).copy().tobytes() == image.tobytes()
    box = (3, 4, 20, 30)
    assert opened(data).crop(box).tobytes() == image.crop(box).tobytes()
    back = pickle.loads(pickle.dumps(opened(data)))
    assert back.tobytes() == image.tobytes()
    changed = opened(data)
    changed.putpixel((0, 0), (1, 2, 3, 4))
    assert changed.getpixel((0, 0)) == (1, 2, 3, 4)
    assert changed.getpixel((1, 1)) == image.getpixel((1, 1))


def test_limits_of_pillow_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.new("RGB", (1000, 1000)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    with pytest.raises(Image.DecompressionBombError):
        opened(data)


def test_a_file_that_a_loaded_image_came_from_may_be_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.dvq"
    image_of("RGB").save(path, lossless=True)
    with Image.open(path) as image:
        before = image.tobytes()
        image.save(path, lossless=True)
    with Image.open(path) as again:
        assert again.tobytes() == before


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_a_thousand_images_leave_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.dvq"
    image_of("RGB", (16, 16)).save(path, lossless=True, xmp=XMP)
    bad = tmp_path / "bad.dvq"
    bad.write_bytes(path.read_bytes()[:9])
    cut = tmp_path / "cut.dvq"
    cut.write_bytes(path.read_bytes()[:-1])

    def rounds(count: int) -> None:
        for _ in range(count):
            with Image.open(path) as image:
                assert image.size == (16, 16)
            loaded = Image.open(path)
            loaded.load()  # closes the file
            with pytest.raises(UnidentifiedImageError):
                Image.open(bad)
            with Image.open(cut) as image, pytest.raises(OSError, match="damaged"):
                image.load()

    rounds(20)
    files = open_files()
    tracemalloc.start()
    try:
        rounds(50)
        before = tracemalloc.get_traced_memory()[0]
        rounds(1000)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert open_files() == files
    assert grown < 100_000, f"{grown} bytes more after a thousand images"


def test_threads_open_load_and_save_at_the_same_time() -> None:
    images = [image_of("RGB", (36, 28), seed) for seed in range(6)]
    expected = [saved(image, quality=60, lossless=False) for image in images]
    pixels = [opened(data).tobytes() for data in expected]
    found: dict[int, tuple[bytes, bytes]] = {}

    def work(number: int) -> None:
        data = saved(images[number], quality=60, lossless=False)
        found[number] = data, opened(data).tobytes()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: (expected[i], pixels[i]) for i in range(len(images))}


# Other programs.


@pytest.fixture(scope="module")
def torchvision() -> Iterator[Any]:
    from diveqcodec.evaluate.compressai_compat import _define_missing_schemas

    _define_missing_schemas()
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    return torchvision


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_of_torchvision(torchvision: Any, tmp_path: Path, workers: int) -> None:
    import torch
    from torch.utils.data import DataLoader

    for number in range(4):
        folder = tmp_path / "set" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image_of("RGB", seed=number).save(folder / f"{number}.dvq", lossless=False)
    dataset = torchvision.datasets.ImageFolder(
        str(tmp_path / "set"),
        torchvision.transforms.ToTensor(),
        is_valid_file=lambda path: path.endswith(".dvq"),
    )
    assert dataset.classes == ["a", "b"]
    pictures, labels = next(iter(DataLoader(dataset, batch_size=4, num_workers=workers)))
    assert pictures.shape == (4, 3, 24, 40)
    assert labels.tolist() == [0, 0, 1, 1]
    for tensor, (path, _) in zip(pictures, dataset.samples, strict=True):
        planes = diveqcodec.decompress(Path(path).read_bytes()).pixels
        assert torch.equal(
            (tensor * 255).round().to(torch.uint8).permute(1, 2, 0), torch.tensor(planes)
        )
