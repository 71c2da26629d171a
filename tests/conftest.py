from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.support.places import GOLDEN

if TYPE_CHECKING:
    from diveqcodec.codec import Codec
    from diveqcodec.exact.weights import CodingModel

# Before anything imports torch: one thread is faster for the tiny pictures of the tests. What must
# not depend on the number of threads says so in a test of its own, with torch.set_num_threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_model_path() -> Path:
    """A tiny trained model, which coding can load; what training needs was left out of it."""
    return GOLDEN / "tiny.safetensors"


@pytest.fixture(scope="session")
def tiny_model(tiny_model_path: Path) -> CodingModel:
    """The same, loaded. Tests must not change it."""
    from diveqcodec.exact import weights  # only tests that need torch pay for it

    return weights.load(tiny_model_path)


@pytest.fixture(scope="session")
def codec(tiny_model: CodingModel) -> Codec:
    """A codec with it, with networks in single precision, whatever this processor is fast at."""
    import torch

    from diveqcodec.codec import Codec

    return Codec(tiny_model, networks=torch.float32)


@pytest.fixture
def picture_file(tmp_path: Path) -> Path:
    """A smooth 48x32 RGB picture with one sharp edge, as a PNG file of its own folder."""
    rows, columns = np.mgrid[0:32, 0:48]
    pixels = np.stack([rows * 6, columns * 5, (rows + columns) * 3], axis=-1).astype(np.uint8)
    pixels[8:24, 20:40] = (230, 40, 60)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path
