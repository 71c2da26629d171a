"""Crops of text, windows and shapes for training: what photographs hold too little of.

Such content is lossless in files where it is clean, so most crops are as people pass it on: scaled,
or after JPEG. A crop is a function of its random numbers. Knows nothing of pictures or models.
"""

from __future__ import annotations

import functools
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

_LETTERS = "etaoinshrdlucmfwypvbgkjqxz" * 2 + "ETAOINSHRDLUCMFWYPVBGKJQXZ0123456789.,:;-+()/&%"
_SIZES = 9, 11, 12, 14, 16, 20, 28, 44  # of letters, in pixels
_LARGER = 1.6  # times: what is drawn before it is scaled


def drawn_crop(photograph: Pixels, random: np.random.Generator) -> Pixels:
    """Something drawn, uint8 `[side, side, 3]`.

    Args:
        photograph: uint8 `[side, side, 3]`; it is the ground in a third of the crops, and stands in
            a page in another.
        random: Decides everything.
    """
    side = len(photograph)
    factor = random.uniform(1.0, _LARGER) if random.random() < 0.5 else 1.0
    size = round(side * factor)
    picture = Image.fromarray(photograph)
    kind = random.integers(3)
    if kind == 0:
        page = picture.resize((size, size), Image.Resampling.BICUBIC)
    else:
        page = Image.new("RGB", (size, size), _colour(random))
        if kind == 1:
            part = picture.crop((0, 0, side // 2, side // 2))
            page.paste(part, (int(random.integers(size // 2)), int(random.integers(size // 2))))
    canvas = ImageDraw.Draw(page)
    for _ in range(int(random.integers(1, 7))):
        _DRAW[int(random.integers(len(_DRAW)))](canvas, size, random)
    if size != side:
        filters = Image.Resampling.LANCZOS, Image.Resampling.BILINEAR
        page = page.resize((side, side), filters[int(random.integers(2))])
    if random.random() < 0.5:
        stream = BytesIO()
        page.save(stream, "JPEG", quality=int(random.integers(60, 96)))
        page = Image.open(stream)
    return np.array(page.convert("RGB"))


def _text(canvas: ImageDraw.ImageDraw, size: int, random: np.random.Generator) -> None:
    """Some lines of one size, in a box or not."""
    height = int(random.choice(_SIZES))
    font, ink = _font(height), _colour(random)
    left, top = random.integers(-size // 4, size * 3 // 4, 2).tolist()
    lines, letters = int(random.integers(1, 9)), int(random.integers(4, 50))
    if random.random() < 0.4:
        box = left - 6, top - 4, left + letters * height // 2, top + lines * height * 5 // 4 + 4
        canvas.rectangle(box, fill=_colour(random))
    rim = int(random.random() < 0.15 and height > 16)
    for line in range(lines):
        found = random.integers(len(_LETTERS), size=letters)
        words = "".join(" " if random.random() < 0.17 else _LETTERS[i] for i in found)
        place = left, top + line * height * 5 // 4
        canvas.text(place, words, font=font, fill=ink, stroke_width=2 * rim, stroke_fill="black")


def _box(canvas: ImageDraw.ImageDraw, size: int, random: np.random.Generator) -> None:
    (left, right), (top, bottom) = (np.sort(random.integers(0, size, 2)) for _ in range(2))
    outline = _colour(random) if random.random() < 0.5 else None
    fill = _colour(random) if random.random() < 0.7 else None
    width = int(random.integers(1, 4))
    shapes = canvas.rectangle, canvas.ellipse
    shape = shapes[int(random.random() < 0.25)]
    shape((left, top, right, bottom), fill=fill, outline=outline, width=width)


def _lines(canvas: ImageDraw.ImageDraw, size: int, random: np.random.Generator) -> None:
    """A line of several corners, or a grid."""
    colour, width = _colour(random), int(random.integers(1, 4))
    if random.random() < 0.5:
        step = int(random.integers(6, 60))
        for place in range(int(random.integers(step)), size, step):
            canvas.line((place, 0, place, size), fill=colour, width=width)
            canvas.line((0, place, size, place), fill=colour, width=width)
        return
    corners = random.integers(0, size, (int(random.integers(2, 12)), 2))
    canvas.line([(int(x), int(y)) for x, y in corners], fill=colour, width=width)


_DRAW = _text, _text, _text, _box, _box, _lines


@functools.cache
def _font(height: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(height)


def _colour(random: np.random.Generator) -> tuple[int, int, int]:
    """Black, white or grey in half of the cases."""
    if random.random() < 0.5:
        grey = int(random.choice([0, 255, 255, random.integers(256)]))
        return grey, grey, grey
    red, green, blue = random.integers(0, 256, 3).tolist()
    return red, green, blue
