"""What the tests of the command line share: a model to code with, and running a command."""

import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from diveqcodec import zoo
from diveqcodec.cli import main
from tests.support.places import GOLDEN

TINY = GOLDEN / "tiny.safetensors"


def diveq(*arguments: object, stdin: bytes | None = None) -> Result:
    """Run `diveq` with these arguments in this process."""
    return CliRunner().invoke(main, [str(one) for one in arguments], input=stdin)


def errors(result: Result) -> list[str]:
    """The lines of stderr that report errors."""
    return [line for line in result.stderr.splitlines() if line.startswith("Error")]


def install_tiny(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Make the tiny model the only one installed, and the default; the folder of the weights."""
    models = folder / "models-for-tests"
    models.mkdir()
    shutil.copyfile(TINY, models / f"{zoo.DEFAULT}.safetensors")
    monkeypatch.setenv(zoo.VARIABLE, str(models))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "user"))
    monkeypatch.setattr(zoo, "shipped_folder", lambda: folder / "nothing-shipped")
    return models


def draw(path: Path, mode: str = "RGB", size: tuple[int, int] = (40, 24)) -> Path:
    """Write a noisy picture of some mode, no drawing; the format follows from the suffix."""
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 7 % 256, columns * 5 % 256, (rows + columns) * 3 % 256, 40 + rows * 5 % 200]
    chosen = {"L": planes[:1], "LA": [planes[0], planes[3]], "RGB": planes[:3], "RGBA": planes}
    noise = np.random.default_rng(width * height).normal(0, 12, (height, width, 4))
    pixels = np.stack(chosen[mode], axis=-1) + noise[..., : len(chosen[mode])]
    pixels = pixels.clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).save(path)
    return path


def opened(source: bytes | str | Path) -> Image.Image:
    """The picture in these bytes, or in the file of this name, which is closed again."""
    image = Image.open(BytesIO(source if isinstance(source, bytes) else Path(source).read_bytes()))
    image.load()
    return image
