"""The ten drawings of scripts/drawings.py and three more, in any size."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from scripts.drawings import DRAWINGS


def squares(width: int, height: int) -> Image.Image:
    """The corners of the cube of colours, side by side in another order in every row."""
    rows, columns = np.mgrid[:height, :width]
    corner = (columns // 25 + 3 * (rows // 15)) % 8
    planes = [255 * (corner >> bit & 1) for bit in range(3)]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def letters(width: int, height: int) -> Image.Image:
    """Lines of small letters whose edges are smoothed in colour, as on a flat screen."""
    wide = Image.new("L", (3 * width, height), 255)
    draw = ImageDraw.Draw(wide)
    for number, top in enumerate(range(4, height - 12, 12)):
        text = "The quick brown fox 0123456789 jumps over lazy dogs; def main(): return x"
        draw.text((4, top), text, fill=60 * (number % 2), font=ImageFont.load_default(11))
    return Image.fromarray(np.asarray(wide).reshape(height, width, 3))


def noisy_dots(width: int, height: int) -> Image.Image:
    """One bit a pixel, and no order in it but how dark each place is."""
    y, x = np.mgrid[:height, :width] / 40
    random = np.random.default_rng(6).random((height, width))
    return Image.fromarray(random < 0.5 + 0.4 * np.sin(x) * np.cos(y))


SMALL_DRAWINGS: dict[str, Callable[..., Image.Image]] = {
    **DRAWINGS,
    "squares": squares,
    "letters": letters,
    "noisy dots": noisy_dots,
}


def small_drawing(name: str, size: tuple[int, int]) -> tuple[Image.Image, NDArray[np.uint8]]:
    """Of some width and height, in mode L or RGB; and its pixels `[H, W, 1 or 3]`."""
    drawing = SMALL_DRAWINGS[name](*size)
    seen = drawing.convert("L" if drawing.mode in ("1", "L") else "RGB")
    return seen, np.asarray(seen).reshape(seen.height, seen.width, -1)
