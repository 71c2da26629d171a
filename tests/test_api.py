"""The face of the package: compress and decompress in one call."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, features

import diveqcodec
from diveqcodec import api, image, refinement, zoo
from diveqcodec.codec import Codec
from diveqcodec.container import bitstream
from diveqcodec.errors import ConfigError, ImageError, ModelError
from diveqcodec.exact import weights
from diveqcodec.image import Picture
from diveqcodec.model.dvq import DvqModel
from tests.support.places import ROOT
from tests.support.pngs import chunk, png
from tests.support.tiles import cut_into
from tests.support.tiny import TINY, drawn


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    weights.save(DvqModel(TINY).eval(), path, {})
    return path


def test_paths_images_and_arrays_give_the_same_bytes(tmp_path, model) -> None:
    pixels = drawn(40, 52, 1)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    sources = [path, str(path), Image.fromarray(pixels), pixels]
    files = {diveqcodec.compress(source, 40, model=model) for source in sources}
    assert len(files) == 1


def test_decompress_finds_the_model_by_its_id(model, monkeypatch) -> None:
    data = diveqcodec.compress(drawn(33, 20, 2), 60, model=model, lossless="never")
    with pytest.raises(ModelError, match="not installed"):
        diveqcodec.decompress(data)
    monkeypatch.setenv(zoo.VARIABLE, str(model.parent))
    assert diveqcodec.decompress(data).pixels.shape == (33, 20, 3)
    assert diveqcodec.decompress(data, crop=(4, 5, 7, 9)).pixels.shape == (9, 7, 3)


def test_lossless_needs_no_model(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(zoo.VARIABLE, str(tmp_path))
    pixels = drawn(21, 35, 3)
    data = diveqcodec.compress(pixels, lossless="always")
    assert np.array_equal(diveqcodec.decompress(data).pixels, pixels)
    cut = diveqcodec.decompress(data, crop=(3, 2, 11, 13)).pixels
    assert np.array_equal(cut, pixels[2:15, 3:14])


@pytest.mark.parametrize("wish", ["always", True])
@pytest.mark.parametrize("by_codec", [False, True])
def test_true_is_lossless_and_false_is_not(wish, by_codec: bool, model: Path) -> None:
    pixels = drawn(21, 35, 3)
    codec = Codec.load(model)

    def sizes(lossless: Any) -> bytes:
        if by_codec:
            return codec.compress(Picture(pixels), 10, lossless=lossless)
        return diveqcodec.compress(pixels, 10, model=model, lossless=lossless)

    assert np.array_equal(diveqcodec.decompress(sizes(wish)).pixels, pixels)
    assert sizes(False) == sizes("never") != sizes(wish)
    assert sizes(None) == sizes("auto")


@pytest.mark.parametrize("lossless", ["auto", "always"])  # checked whatever comes of it
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lossless": "lossless"}, r"lossless 'lossless': must be \"auto\", \"always\""),
        ({"lossless": 1}, "lossless 1: must be"),
        ({"lossless": []}, r"lossless \[\]: must be"),
        ({"quality": "50"}, "quality '50': must be a number"),
        ({"quality": None}, "quality None: must be a number"),
        ({"quality": float("nan")}, "quality nan: must be from 1 to 100"),
        ({"quality": 0}, "quality 0: must be from 1 to 100"),
        ({"effort": 0}, "effort 0: use one of 1, 3, 5, 7, 9"),
        ({"effort": 4}, "effort 4: use one of"),
        ({"effort": "5"}, "effort '5': use one of"),
        ({"effort": 5.0}, "effort 5.0: use one of"),
    ],
)
def test_what_is_asked_is_checked(
    wrong: dict[str, Any], message: str, lossless: str, model: Path
) -> None:
    options = {"lossless": lossless, **wrong}
    with pytest.raises(ConfigError, match=f"^{message}"):
        diveqcodec.compress(drawn(8, 8, 1), model=model, **options)
    with pytest.raises(ConfigError, match=f"^{message}"):
        Codec.load(model).compress(Picture(drawn(8, 8, 1)), **options)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        *(
            ({"gain": gain}, rf"gain {gain!r}: must be a whole number from 0 to 65535$")
            for gain in (65536, 70000, -1, 1.5, None, "3", float("nan"))
        ),
        ({"effort": 4}, "effort 4: use one of"),
        ({"picture": "a.png"}, "a codec compresses a Picture, not a str: give what"),
        ({"picture": np.zeros((4, 4, 3), np.uint8)}, "a codec compresses a Picture, not a ndarr"),
    ],
)
def test_what_is_asked_of_the_model_alone_is_checked_before_any_work(
    wrong: dict[str, Any], message: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Codec, "_compress", lambda *_: pytest.fail("has begun"))
    codec = Codec.load(model)
    with pytest.raises(ConfigError, match=f"^{message}"):
        codec.compress_at(**{"picture": Picture(drawn(8, 8, 1)), "gain": 5, **wrong})
    if "picture" in wrong:
        for lossless in ("always", "never"):
            with pytest.raises(ConfigError, match=f"^{message}"):
                codec.compress(wrong["picture"], lossless=lossless)


@pytest.mark.parametrize("wrong", [5, b"diveq-5", [], Picture])
@pytest.mark.parametrize("lossless", ["auto", "always"])
def test_a_model_is_a_name_or_a_path(wrong: Any, lossless: Any) -> None:
    message = r"^model .*: must be the name, id or path of weights$"
    with pytest.raises(ConfigError, match=message):
        diveqcodec.compress(drawn(8, 8, 1), model=wrong, lossless=lossless)
    with pytest.raises(ConfigError, match=message):
        Codec.load(wrong)


def test_a_path_of_weights_that_no_file_can_have_is_one_line() -> None:
    with pytest.raises(ModelError, match=r"^a{5000}: cannot be read \(File name too long\)$"):
        zoo.find("a" * 5000)


def test_what_had_to_be_changed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "diveqcodec"):
        diveqcodec.compress(deep("I;16"), lossless=True)
    assert caplog.messages == ["16-bit input coded as 8-bit"]


def test_numbers_of_numpys_are_numbers(model: Path) -> None:
    pixels = drawn(8, 8, 1)
    quality: Any = np.float32(40)
    effort: Any = np.int64(3)
    data = diveqcodec.compress(pixels, quality, effort=effort, model=model)
    assert data == diveqcodec.compress(pixels, 40, effort=3, model=model)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("foo", "device foo: is none of torch's"),
        (None, "device None: is none of torch's"),
        ("cuda", "device cuda: no CUDA device is available; use cpu"),
        ("xpu", "device xpu: cannot be used"),
    ],
)
def test_a_device_that_is_not_there_is_named(device, message: str, monkeypatch, model) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"^{message}"):
        diveqcodec.compress(drawn(8, 8, 1), model=model, device=device)
    with pytest.raises(ConfigError, match=f"^{message}"):
        Codec.load(model, device)


def test_bytes_are_bytes(tmp_path: Path, model: Path) -> None:
    pixels = drawn(9, 7, 1)
    data = diveqcodec.compress(pixels, lossless=True)
    for same in (bytearray(data), memoryview(data)):
        assert np.array_equal(diveqcodec.decompress(same).pixels, pixels)
    wrong: Any
    codec = Codec.load(model)
    coded = codec.compress(Picture(pixels), lossless="never")
    expected = codec.decompress(coded).pixels
    for same in (bytearray(coded), memoryview(coded)):
        assert np.array_equal(codec.decompress(same).pixels, expected)
    for wrong in ("a.dvq", tmp_path / "a.dvq", None, 7):
        for decompress in (diveqcodec.decompress, codec.decompress):
            with pytest.raises(ConfigError, match="^cannot decompress a .*give the bytes"):
                decompress(wrong)


@pytest.mark.parametrize(
    "crop", [(0.5, 0, 2, 2), (0, 0, 2), (0, 0, 2, 2, 2), 5, "abcd", (0, 0, 2, None)]
)
def test_a_crop_is_four_whole_numbers(crop) -> None:
    data = diveqcodec.compress(drawn(9, 7, 1), lossless=True)
    with pytest.raises(ConfigError, match=r"^crop .*: must be left, top, width and height"):
        diveqcodec.decompress(data, crop=crop)


def test_weights_that_are_replaced_are_noticed(tmp_path: Path) -> None:
    path, pixels = tmp_path / "m.safetensors", drawn(20, 20, 4)

    def id_of(seed: int) -> str:
        torch.manual_seed(seed)
        weights.save(DvqModel(TINY).eval(), path, {})
        data = diveqcodec.compress(pixels, model=path, lossless="never")
        assert bitstream.read_header(data).model_id.hex() == zoo.find(path).model_id
        return zoo.find(path).model_id

    assert len({id_of(1), id_of(2), id_of(1)}) == 2


# Pillow 11 lists BGR;15 and its like, which it no longer makes.
@pytest.mark.parametrize("mode", [mode for mode in Image.MODES if mode[0] not in "IFB"])
def test_every_mode_of_pillow_looks_the_same(mode: str) -> None:
    planes = np.concatenate([drawn(20, 30, 4), drawn(20, 30, 5)[..., :1]], axis=2)
    via = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA", "LA": "LA", "RGBA": "RGBA"}.get(mode, "RGB")
    source = Image.fromarray(planes).convert(via).convert(mode)
    picture = diveqcodec.decompress(diveqcodec.compress(source, lossless="always"))
    expected = source.convert("LA").convert("RGBA") if mode == "La" else source.convert("RGBA")
    alpha = np.full((20, 30), 255) if picture.alpha is None else picture.alpha
    assert np.array_equal(alpha, np.asarray(expected)[..., 3])
    assert (np.asarray(expected)[..., :3] == picture.pixels).all()
    assert api.from_pillow(source).notices == ()


def deep(mode: str) -> Image.Image:
    """A ramp over most of 16 bits."""
    ramp = np.arange(20 * 30).reshape(20, 30) * 109
    if mode.startswith("I;16"):
        data = ramp.astype(">u2" if mode == "I;16B" else "<u2").tobytes()
        return Image.frombytes(mode, (30, 20), data)
    return Image.fromarray(ramp.astype(np.int32 if mode == "I" else np.float32))


@pytest.mark.parametrize("mode", [mode for mode in Image.MODES if mode[0] in "IF"])
def test_every_mode_of_deep_grey_is_the_same_grey(mode: str) -> None:
    source = deep(mode)
    pixels = api.from_pillow(source).pixels
    assert np.array_equal(pixels, api.from_pillow(deep("I;16")).pixels)
    assert pixels.shape == (20, 30, 1)
    assert (pixels[0, 0], pixels[-1, -1]) == (0, round(599 * 109 / 257))
    source.info["transparency"] = 218  # the third pixel
    picture = api.from_pillow(source)
    assert picture.alpha is not None
    assert np.argwhere(picture.alpha < 255).tolist() == [[0, 2]]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = deep(mode)
    turned.info["exif"] = exif.tobytes()
    assert np.array_equal(api.from_pillow(turned).pixels, np.rot90(pixels, -1))


def test_an_image_of_a_file_knows_what_the_file_says(tmp_path: Path) -> None:
    """White that is zero, and the bits of samples; of what Pillow forgets, only until loaded."""
    path = tmp_path / "a.tif"
    deep("I;16").save(path, tiffinfo={262: 0})
    expected = image.load(path).pixels
    assert expected[0, 0] > expected[-1, -1]
    with Image.open(path) as opened:
        for _ in range(2):  # the second time it is loaded
            assert np.array_equal(api.from_pillow(opened).pixels, expected)
    small = np.array([[0, 85, 170, 255]], np.uint8)
    data = png(small[..., None] // 85, 2, chunk(b"tRNS", b"\0\2"))
    with Image.open(BytesIO(data)) as opened:
        for _ in range(2):
            picture = api.from_pillow(opened)
            assert picture.pixels[..., 0].tolist() == small.tolist()
            assert picture.alpha is not None
            assert picture.alpha.tolist() == [[255, 255, 0, 255]]


def test_an_image_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    Image.fromarray(drawn(20, 20, 4)).save(tmp_path / "a.png")
    opened = Image.open(tmp_path / "a.png")
    opened.close()
    with pytest.raises(ImageError, match=r"^image: cannot be read \(Operation on closed image\)$"):
        diveqcodec.compress(opened)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow was built without OpenJPEG")
@pytest.mark.parametrize("name", ["white.jp2", "full-16.jp2", "lossy-16.jp2", "full-grey-9.jp2"])
def test_an_image_that_was_only_opened_keeps_its_white(name: str) -> None:
    path = ROOT / "tests" / "image" / "deep" / name
    with Image.open(path) as opened:
        data = diveqcodec.compress(opened, lossless="always")
    assert data == diveqcodec.compress(path, lossless="always")


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4)), 7, None])
def test_what_is_no_picture_is_refused(wrong) -> None:
    with pytest.raises(ConfigError, match="give a path|must be uint8"):
        diveqcodec.compress(wrong)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(ImageError, match=r"^'a\\x00b\.png': is no name of a file"):
        diveqcodec.compress("a\0b.png")
    with pytest.raises(ImageError, match=r"nothing\.png: no such file"):
        diveqcodec.compress(tmp_path / "nothing.png")


@pytest.fixture(scope="module")
def folder(model: Path) -> Path:
    """Five models, one more than are kept loaded."""
    for seed in range(1, 5):
        torch.manual_seed(seed)
        weights.save(DvqModel(TINY).eval(), model.parent / f"other-{seed}.safetensors", {})
    return model.parent


@dataclass(frozen=True)
class Task:
    """A picture, and what is asked of `compress`."""

    pixels: NDArray[np.uint8]
    options: Mapping[str, Any]

    def run(self, codec: Codec | None = None) -> tuple[bytes, bytes, bytes]:
        """The file, its pixels, and those of a part of it; by a codec, or by the face."""
        options = dict(self.options)
        if codec is None:
            data = diveqcodec.compress(self.pixels, **options)
            parts = [diveqcodec.decompress(data, crop=crop) for crop in (None, (5, 3, 13, 12))]
        else:
            del options["model"]
            data = codec.compress(api.from_pillow(Image.fromarray(self.pixels)), **options)
            parts = [codec.decompress(data, crop=crop) for crop in (None, (5, 3, 13, 12))]
        whole, part = (
            part.pixels.tobytes() + (b"" if part.alpha is None else part.alpha.tobytes())
            for part in parts
        )
        return data, whole, part


def tasks(folder: Path) -> list[Task]:
    """Colour, grey and transparency; one tile and several; all efforts; every model."""
    models = sorted(folder.glob("*.safetensors")) * 5
    found = []
    for number, size in enumerate([(36, 28), (30, 130), (90, 70), (33, 47), (20, 20)]):
        planes = drawn(*size, seed=number), drawn(*size, seed=number + 50)[..., :1]
        pixels = (planes[0], planes[1][..., 0], np.concatenate(planes, axis=2))[number % 3]
        found.append(
            Task(
                pixels,
                {
                    "quality": 20 + 15 * number,
                    "effort": (1, 5, 5, 7, 5)[number],
                    "lossless": ("auto", "never", "auto", "auto", "always")[number],
                    "model": models[number],
                },
            )
        )
    return found


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For torch: with another number floats may be rounded otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TwoTilesAtOnce(Codec):
    """A codec as one would load it where torch has two threads."""

    @classmethod
    def load(cls, reference: str | Path | None = None, device: str | torch.device = "cpu") -> Codec:
        return cls(zoo.load(reference, torch.device(device)), workers=2)


def test_threads_may_mix_everything(
    folder: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """Whatever runs beside it, a call gives what it gives alone."""
    monkeypatch.setenv(zoo.VARIABLE, str(folder))
    monkeypatch.setattr(api, "Codec", TwoTilesAtOnce)
    monkeypatch.setattr(api, "_codecs", {})
    cut_into(monkeypatch, 64)
    wanted = tasks(folder)
    expected = [task.run() for task in wanted]
    monkeypatch.setattr(api, "_codecs", {})  # so that loading is raced for, too
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(Task.run, wanted * 2))
    assert found == expected * 2
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_threads_may_share_one_codec(
    model: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None, workers: int
) -> None:
    cut_into(monkeypatch, 64)
    wanted = tasks(model.parent)
    expected = [task.run(Codec(weights.load(model), workers=workers)) for task in wanted]
    codec = Codec(weights.load(model), workers=workers)
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(Task.run, wanted * 2, [codec] * 2 * len(wanted)))
    assert found == expected * 2


def test_what_training_left_is_loaded_once_for_all_threads(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def load(of: Any) -> DvqModel:
        loaded.append(of)
        time.sleep(0.2)
        return refinement.trainable(of)

    monkeypatch.setattr("diveqcodec.codec.trainable", load)
    codec = Codec(weights.load(model), workers=1)
    picture = Picture(drawn(20, 20, 1))
    with ThreadPoolExecutor(3) as pool:
        files = set(pool.map(lambda _: codec.compress(picture, effort=7), range(3)))
    assert len(files) == len(loaded) == 1


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_passively_unless_told_otherwise(given, expected) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if given:
        environment["OMP_WAIT_POLICY"] = given
    code = "import diveqcodec, os; print(os.environ['OMP_WAIT_POLICY'])"
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == expected
