"""Ten screenshots and drawings, made by this script alone: what a picture codec is not trained for.

    python -m scripts.drawings FOLDER

Text pages, windows, plots, dithers, palettes, a flat colour: drawn with Pillow and the font that it
ships, the same on every machine of one version of Pillow. Knows nothing of the codec.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Draw = ImageDraw.ImageDraw

_TEXT = (
    "the quantizer of a codec is read by its decoder and so every tile keeps what it was told "
    "while rows of pixels wait for the next symbol to come out of a table of whole numbers"
)
_WORDS = _TEXT.split()


def main() -> None:
    """Write all drawings as PNG."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        draw().save(folder / f"{name}.png", optimize=True)


def text_page(width: int = 1240, height: int = 1754) -> Image.Image:
    """A page of smoothed grey text with a heading."""
    image = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(image)
    random = np.random.default_rng(1)
    draw.text((width // 12, height // 20), "On lossless tiles", fill=0, font=_font(48))
    for top in range(height // 8, height - height // 12, 27):
        draw.text((width // 12, top), _line(random, width // 11), fill=20, font=_font(20))
    return image


def one_bit_page(width: int = 1240, height: int = 1754) -> Image.Image:
    """The same page as a fax machine sees it."""
    return text_page(width, height).point(lambda v: 255 if v > 128 else 0).convert("1")


def desktop(width: int = 1920, height: int = 1080) -> Image.Image:
    """Windows with title bars, buttons, lists and text before a plain ground."""
    image = Image.new("RGB", (width, height), (58, 110, 165))
    draw = ImageDraw.Draw(image)
    random = np.random.default_rng(2)
    for i in range(5):
        w, h = width * 2 // 5, height * 2 // 5
        x, y = (int(v) for v in random.integers(0, (width - w, height - h)))
        _window(draw, (x, y, w, h), f"Folder {i}", random)
    draw.rectangle((0, height - 40, width, height), fill=(212, 208, 200))
    draw.text((12, height - 32), "Start", fill="black", font=_font(18))
    return image


def dark_editor(width: int = 1600, height: int = 1000) -> Image.Image:
    """An editor with coloured code on a dark ground."""
    image = Image.new("RGB", (width, height), (30, 30, 30))
    draw = ImageDraw.Draw(image)
    random = np.random.default_rng(3)
    colours = [(86, 156, 214), (206, 145, 120), (106, 153, 85), (220, 220, 170), (212, 212, 212)]
    draw.rectangle((0, 0, 220, height), fill=(37, 37, 38))
    for number, top in enumerate(range(8, height - 20, 22)):
        draw.text((180, top), f"{number:4}", fill=(133, 133, 133), font=_font(16))
        x = 240 + 32 * int(random.integers(0, 5))
        for _ in range(int(random.integers(0, 9))):
            word = _WORDS[random.integers(len(_WORDS))] + " "
            draw.text((x, top), word, fill=colours[random.integers(5)], font=_font(16))
            x += round(draw.textlength(word, font=_font(16)))
    return image


def plot(width: int = 1200, height: int = 800) -> Image.Image:
    """Curves with smoothed lines, axes, a grid and a legend."""
    scale = 4
    image = Image.new("RGB", (scale * width, scale * height), "white")
    draw = ImageDraw.Draw(image)
    random = np.random.default_rng(4)
    for i in range(11):
        x, y = scale * (80 + (width - 160) * i // 10), scale * (60 + (height - 140) * i // 10)
        bottom, right = scale * (height - 80), scale * (width - 80)
        draw.line((x, scale * 60, x, bottom), fill=(225, 225, 225), width=scale)
        draw.line((scale * 80, y, right, y), fill=(225, 225, 225), width=scale)
    for colour in ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728"):
        steps = np.cumsum(random.normal(0, 12, 60)) + height / 2
        xs = np.linspace(80, width - 80, 60)
        points = [(scale * float(x), scale * float(y)) for x, y in zip(xs, steps, strict=True)]
        draw.line(points, fill=colour, width=2 * scale, joint="curve")
    image = image.resize((width, height), Image.Resampling.BOX)
    draw = ImageDraw.Draw(image)
    for i in range(11):
        draw.text((70 + (width - 160) * i // 10, height - 70), f"{i / 10}", "black", _font(16))
    draw.text((width // 3, 16), "Bits against error", fill="black", font=_font(28))
    return image


def dither(width: int = 800, height: int = 600) -> Image.Image:
    """A smooth picture in black and white dots (Floyd and Steinberg)."""
    return Image.fromarray(_waves(width, height)).convert("L").convert("1")


def palette(width: int = 800, height: int = 600) -> Image.Image:
    """A smooth picture in sixteen colours, without dither."""
    image = Image.fromarray(_waves(width, height))
    return image.quantize(16, dither=Image.Dither.NONE)


def pixel_art(width: int = 960, height: int = 640) -> Image.Image:
    """Tiles of an old game, every pixel drawn as eight by eight."""
    random = np.random.default_rng(5)
    colours = random.integers(0, 256, (12, 3), dtype=np.uint8)
    kinds = random.integers(0, 12, (20, 16, 16)) * (random.random((20, 16, 16)) < 0.4)
    cells = random.integers(0, 20, (height // 128 + 1, width // 128 + 1))
    grid = np.block([[kinds[cell] for cell in row] for row in cells])
    pixels = colours[grid].repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    return Image.fromarray(np.ascontiguousarray(pixels))


def checkers(width: int = 640, height: int = 480) -> Image.Image:
    """Black and white, changing with every pixel."""
    board = (np.add.outer(np.arange(height), np.arange(width)) % 2 * 255).astype(np.uint8)
    return Image.fromarray(board)


def flat(width: int = 1500, height: int = 1100) -> Image.Image:
    """One colour."""
    return Image.new("RGB", (width, height), (12, 200, 77))


DRAWINGS: dict[str, Callable[..., Image.Image]] = {
    "text": text_page,
    "fax": one_bit_page,
    "desktop": desktop,
    "editor": dark_editor,
    "plot": plot,
    "dither": dither,
    "palette": palette,
    "game": pixel_art,
    "checkers": checkers,
    "flat": flat,
}


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _line(random: np.random.Generator, letters: int) -> str:
    """Words of about so many letters together."""
    words: list[str] = []
    while sum(map(len, words)) < letters * 4 // 5:
        words.append(_WORDS[random.integers(len(_WORDS))])
    return " ".join(words)


def _window(
    draw: Draw, box: tuple[int, int, int, int], title: str, random: np.random.Generator
) -> None:
    """A window at x, y of some width and height."""
    x, y, w, h = box
    draw.rectangle((x, y, x + w, y + h), fill=(212, 208, 200), outline=(64, 64, 64))
    for i in range(w - 6):  # a title bar that fades from one blue to another
        blue = (10 + 156 * i // w, 36 + 166 * i // w, 106 + 134 * i // w)
        draw.line((x + 3 + i, y + 3, x + 3 + i, y + 26), fill=blue)
    draw.text((x + 10, y + 4), title, fill="white", font=_font(17))
    for i, letter in enumerate("_ox"):
        left = x + w - 70 + 22 * i
        draw.rectangle((left, y + 6, left + 18, y + 23), fill=(212, 208, 200), outline=(0, 0, 0))
        draw.text((left + 5, y + 3), letter, fill="black", font=_font(15))
    draw.rectangle((x + 8, y + 34, x + w - 8, y + h - 8), fill="white", outline=(128, 128, 128))
    for top in range(y + 42, y + h - 30, 20):
        text = _line(random, max(4, w // 14))
        draw.text((x + 40, top), text[: w // 10], fill="black", font=_font(14))
        colour = tuple(int(v) for v in random.integers(60, 256, 3))
        draw.rectangle((x + 16, top, x + 30, top + 14), fill=colour, outline=(90, 90, 90))


def _waves(width: int, height: int) -> NDArray[np.uint8]:
    """Smooth colours `[height, width, 3]`."""
    y, x = np.mgrid[:height, :width] / 100
    planes = [np.sin(x + y / 2), np.cos(x * 0.7 - y), np.sin(np.hypot(x - 4, y - 3) * 1.5)]
    colours: NDArray[np.uint8] = (np.stack(planes, axis=-1) * 110 + 128).astype(np.uint8)
    return colours


if __name__ == "__main__":
    main()
