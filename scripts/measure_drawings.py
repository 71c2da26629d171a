"""Drawings against WebP: lossless size, and PSNR at equal bytes.

    python -m scripts.measure_drawings [-m MODEL] [-q 20,50,80] [--best]

For each of the ten drawings of `scripts.drawings`: bytes of WebP's lossless mode as Pillow writes
it, or with --best the smallest of method 6 and quality 100 too, which takes seconds; then our file
at each quality, and the PSNR of the largest lossy WebP that is no larger. Exit status 1 if a
file is larger than lossless WebP by more than a hundredth, or has a lower PSNR.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diveqcodec import zoo
from diveqcodec.codec import Codec
from diveqcodec.container import bitstream
from diveqcodec.exact import weights
from diveqcodec.image import Picture
from scripts.drawings import DRAWINGS

_EXACT = 99.0  # dB, in place of infinity


def main() -> None:
    """Measure, print a table, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", type=Path)
    parser.add_argument("-q", "--qualities", default="20,50,80")
    parser.add_argument("--best", action="store_true")
    options = parser.parse_args()
    codec = Codec(weights.load(zoo.find(options.model).path))
    print(f"{'drawing':10}{'q':>4}{'bytes':>9}{'lossless WebP':>15}{'dB':>7}{'WebP dB':>9}  tiles")
    failures = 0
    for name, draw in DRAWINGS.items():
        image = draw()
        image = image.convert("L" if image.mode in ("1", "L") else "RGB")
        exact = min(webp(image, setting) for setting in settings(best=options.best))
        pixels = np.asarray(image).reshape(image.height, image.width, -1)
        for quality in map(float, options.qualities.split(",")):
            data = codec.compress(Picture(pixels), quality)
            ours = psnr(codec.decompress(data).pixels, pixels)
            theirs = at_equal_bytes(image, len(data), exact, pixels)
            is_worse = len(data) > 1.01 * exact or ours < theirs - 0.005
            failures += is_worse
            lossless = sum(tile is None for tile in bitstream.read(data).tiles)
            print(
                f"{name:10}{quality:4.0f}{len(data):9,}{exact:15,}{ours:7.2f}{theirs:9.2f}"
                f"  {lossless} lossless{'   WORSE' * int(is_worse)}",
                flush=True,
            )
    raise SystemExit(1 if failures else 0)


def settings(*, best: bool) -> list[dict[str, int]]:
    """What lossless WebP is written with."""
    return [{}, *([{"method": 6, "quality": 100}] if best else [])]


def webp(image: Image.Image, setting: dict[str, int]) -> int:
    """Bytes of lossless WebP."""
    stream = BytesIO()
    image.convert("RGB").save(stream, "WEBP", lossless=True, exact=True, **setting)
    return len(stream.getvalue())


def at_equal_bytes(image: Image.Image, size: int, exact: int, pixels: NDArray[np.uint8]) -> float:
    """PSNR of the best WebP, lossy or lossless, of at most so many bytes; 0 if there is none."""
    if exact <= size:
        return _EXACT
    low, high, best = 0, 101, 0.0
    while high - low > 1:
        middle = (low + high) // 2
        stream = BytesIO()
        image.convert("RGB").save(stream, "WEBP", quality=middle, method=6)
        if len(stream.getvalue()) <= size:
            low = middle
            decoded = np.asarray(Image.open(stream).convert(image.mode))
            best = psnr(decoded.reshape(pixels.shape), pixels)
        else:
            high = middle
    return best


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Of 8-bit pictures, in dB."""
    error = float(np.square(one.astype(np.int32) - other).mean())
    return _EXACT if not error else min(_EXACT, 10 * np.log10(255**2 / error))


if __name__ == "__main__":
    main()
