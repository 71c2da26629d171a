"""Photographs with text and windows on them: what patches save, and AVIF at equal bytes.

    python -m scripts.measure_captions PHOTOS [-m MODEL] [-q 20,35,50] [--first 4] [--save FOLDER]

Each photograph is drawn on in three ways: a caption in a box, a web page around it, and white
letters with a black rim straight on it, for which patches can do nothing. For each way and quality:
bytes and PSNR with patches and without (`--lossy`), AVIF's PSNR at as many bytes as with them
(Pillow, speed 6, 4:4:4), and the processor time with patches relative to that without. Means over
the photographs. --save writes our decoding above AVIF's, to look at.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from diveqcodec import image, zoo
from diveqcodec.codec import Codec
from diveqcodec.exact import weights
from diveqcodec.image import Picture

Pixels = NDArray[np.uint8]

_TEXT = "Pack my box with five dozen liquor jugs, 0123456789, and then some more words"
_INK, _PAPER = (250, 220, 90), (20, 20, 30)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("-m", "--model", type=Path)
    parser.add_argument("-q", "--qualities", default="20,35,50")
    parser.add_argument("--first", type=int, default=4, help="so many photographs")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    codec = Codec(weights.load(zoo.find(options.model).path))
    paths = sorted(options.photos.glob("*.png"))[: options.first]
    if not paths:
        raise SystemExit(f"{options.photos}: no PNG files")
    print("| | `-q` | patches: bytes | dB | without: bytes | dB | AVIF, dB | time |")
    print("|---|---|---|---|---|---|---|---|")
    for name, draw in WAYS.items():
        drawn = [draw(Image.open(path).convert("RGB")) for path in paths]
        for quality in map(float, options.qualities.split(",")):
            rows = [row_of(codec, one, quality, options.save, f"{name}-{i}-q{quality:g}")
                    for i, one in enumerate(drawn)]  # fmt: skip
            size, ours, plain, without, theirs, slower = np.mean(rows, axis=0)
            print(
                f"| {name} | {quality:g} | {size:,.0f} | {ours:.2f} | {plain:,.0f} | {without:.2f} "
                f"| {theirs:.2f} | {slower:.1f} |",
                flush=True,
            )


def row_of(
    codec: Codec, drawn: Image.Image, quality: float, save: Path | None, name: str
) -> tuple[float, ...]:
    """Bytes and dB with patches and without, AVIF's dB, and the time with relative to without."""
    pixels = np.asarray(drawn)
    found, seconds = [], []
    for lossless in ("auto", "never"):
        start = time.process_time()
        found.append(codec.compress(Picture(pixels), quality, lossless=lossless))
        seconds.append(time.process_time() - start)
    ours, without = (codec.decompress(data).pixels for data in found)
    theirs = avif(drawn, len(found[0]))
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
        image.save(Picture(np.concatenate([ours, theirs])), save / f"{name}.png", "png")
    decibels = [psnr(one, pixels) for one in (ours, without, theirs)]
    sizes = [float(len(data)) for data in found]
    return (sizes[0], decibels[0], sizes[1], *decibels[1:], seconds[0] / seconds[1])


def caption(photo: Image.Image) -> Image.Image:
    """A box with three lines of text at the bottom."""
    width, height = photo.size
    canvas = ImageDraw.Draw(photo)
    canvas.rectangle((width // 19, height - 112, width * 15 // 16, height - 12), fill=_PAPER)
    large, small = ImageFont.load_default(28), ImageFont.load_default(14)
    canvas.text((width // 12, height - 102), _TEXT[:43], font=large, fill="white")
    for line in range(2):
        canvas.text((width // 12, height - 62 + 20 * line), _TEXT, font=small, fill=_INK)
    return photo


def page(photo: Image.Image) -> Image.Image:
    """A page of text with the photograph in it, at three quarters of its size."""
    width, height = photo.size
    small = photo.resize((width * 3 // 4, height * 3 // 4), Image.Resampling.LANCZOS)
    result = Image.new("RGB", (width, height + 200), "white")
    canvas = ImageDraw.Draw(result)
    canvas.rectangle((0, 0, width, 40), fill=(40, 90, 160))
    canvas.text((20, 5), _TEXT[:30], font=ImageFont.load_default(24), fill="white")
    result.paste(small, (width // 8, 60))
    for top in range(80 + small.height, height + 180, 19):
        shift = top % len(_TEXT)
        text = (_TEXT[shift:] + " " + _TEXT)[:90]
        canvas.text((24, top), text, font=ImageFont.load_default(14), fill=(30, 30, 30))
    return result


def letters(photo: Image.Image) -> Image.Image:
    """White letters with a black rim."""
    font = ImageFont.load_default(photo.width // 14)
    place = photo.width // 14, photo.height // 14
    canvas = ImageDraw.Draw(photo)
    canvas.text(place, "TEXT ON TOP", font=font, fill="white", stroke_width=3, stroke_fill="black")
    return photo


WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "caption": caption,
    "page": page,
    "letters": letters,
}


def avif(drawn: Image.Image, size: int) -> Pixels:
    """The best AVIF of at most so many bytes; the smallest if all are larger."""
    low, high = 0, 101
    best: Image.Image | None = None
    while high - low > 1:
        middle = (low + high) // 2
        stream = BytesIO()
        drawn.save(stream, "AVIF", quality=middle, speed=6, subsampling="4:4:4")
        if len(stream.getvalue()) <= size or middle == 1:
            low, best = middle, Image.open(stream).convert("RGB")
        else:
            high = middle
    assert best is not None
    return np.asarray(best)


def psnr(one: Pixels, other: Pixels) -> float:
    """Of 8-bit pictures, in dB."""
    return float(10 * np.log10(255**2 / np.square(one.astype(np.int32) - other).mean()))


if __name__ == "__main__":
    main()
