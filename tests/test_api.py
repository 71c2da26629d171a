"""The face of the package: compress and decompress in one call."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

import diveqcodec
from diveqcodec import zoo
from diveqcodec.errors import ConfigError, ImageError, ModelError
from diveqcodec.exact import weights
from diveqcodec.model.dvq import DvqModel
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


def test_modes_of_pillow_that_png_lacks_are_converted() -> None:
    image = Image.fromarray(drawn(20, 20, 4)).convert("CMYK")
    data = diveqcodec.compress(image, lossless="always")
    assert np.array_equal(diveqcodec.decompress(data).pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4)), 7, None])
def test_what_is_no_picture_is_refused(wrong) -> None:
    with pytest.raises(ConfigError, match="give a path|must be uint8"):
        diveqcodec.compress(wrong)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(ImageError, match=r"nothing\.png: no such file"):
        diveqcodec.compress(tmp_path / "nothing.png")


def test_threads_share_a_codec(model, monkeypatch) -> None:
    monkeypatch.setenv(zoo.VARIABLE, str(model.parent))
    pictures = [drawn(36, 28, seed) for seed in range(6)]
    expected = [diveqcodec.compress(picture, 50, model=model) for picture in pictures]
    found: dict[int, bytes] = {}

    def work(number: int) -> None:
        found[number] = diveqcodec.compress(pictures[number], 50, model=model)
        diveqcodec.decompress(found[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(pictures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(len(pictures))] == expected


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
