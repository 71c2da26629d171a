"""The classical codecs to measure against, run here and now through Pillow.

Each has the same interface as the project's codec (`diveqcodec.evaluate.run.ImageCodec`): a
picture and a quality to the bytes of a complete file, and back. Knows nothing of files or metrics.
JPEG XL is left out: Pillow reads and writes it through a plugin only.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, features

from diveqcodec.errors import ConfigError, DiveqError
from diveqcodec.image import Picture

_Options = dict[str, object]


@dataclass(frozen=True, slots=True)
class Anchor:
    """A codec of Pillow with fixed settings and one parameter, its quality.

    Attributes:
        name: What the command line, tables and plots call it.
        description: The settings, as a result file should state them.
        suffix: Of its files, with the dot.
        qualities: A grid that covers useful rates (about 0.1 to 3 bits per pixel on photographs),
            in rising order of rate.
        bounds: The lowest and highest quality accepted.
        pillow_format: Pillow's name of the format.
        feature: What `PIL.features.check` calls the library it needs.
        options: Quality and number of channels to the arguments of `Image.save`.
    """

    name: str
    description: str
    suffix: str
    qualities: tuple[float, ...]
    bounds: tuple[float, float]
    pillow_format: str
    feature: str
    options: Callable[[float, int], _Options]

    def compress(self, picture: Picture, quality: float) -> bytes:
        """Code the picture's pixels; transparency and metadata are left out.

        Raises:
            ConfigError: The quality is outside the codec's bounds.
            DiveqError: The codec refuses the picture (too large for the format).
        """
        low, high = self.bounds
        if not low <= quality <= high:
            raise ConfigError(f"{self.name}: quality {quality:g} is not in {low:g}-{high:g}")
        channels = picture.pixels.shape[2]
        image = Image.fromarray(picture.pixels[:, :, 0] if channels == 1 else picture.pixels)
        stream = io.BytesIO()
        try:
            image.save(stream, self.pillow_format, **self.options(quality, channels))
        except (OSError, ValueError) as error:
            raise DiveqError(f"{self.name}: cannot code this picture: {error}") from error
        return stream.getvalue()

    def decompress(self, data: bytes) -> Picture:
        """Decode a file that `compress` made.

        Raises:
            DiveqError: The bytes are not a file of this format.
        """
        try:
            with Image.open(io.BytesIO(data), formats=[self.pillow_format]) as image:
                decoded = image if image.mode == "L" else image.convert("RGB")
                pixels = np.array(decoded, dtype=np.uint8)
        except (OSError, SyntaxError, ValueError) as error:
            raise DiveqError(f"{self.name}: cannot decode these bytes: {error}") from error
        return Picture(pixels[:, :, None] if pixels.ndim == 2 else pixels)


def anchor(name: str) -> Anchor:
    """The anchor of that name: `jpeg`, `jpeg2000`, `webp` or `avif`.

    Raises:
        ConfigError: There is no such anchor.
        DiveqError: This Pillow was built without the library it needs.
    """
    found = ANCHORS.get(name)
    if found is None:
        raise ConfigError(f"{name}: no such anchor; there are: {', '.join(ANCHORS)}")
    if not features.check(found.feature):
        raise DiveqError(
            f"{name}: this Pillow was built without it; "
            "reinstall the wheel of pillow>=11.3 (pip install --force-reinstall pillow)"
        )
    return found


def _jpeg_options(quality: float, channels: int) -> _Options:
    # Progressive scans with Huffman tables of their own: 1.5 % smaller than baseline, same pixels.
    options: _Options = {"quality": round(quality), "optimize": True, "progressive": True}
    return options if channels == 1 else {**options, "subsampling": "4:2:0"}


def _jpeg2000_options(quality: float, channels: int) -> _Options:
    options: _Options = {
        "quality_mode": "rates",
        "quality_layers": [8 * channels / quality],  # OpenJPEG wants the compression ratio
        "irreversible": True,
        "no_jp2": True,  # the bare codestream saves 85 bytes of boxes
    }
    # Pillow's default is no colour transform, which costs JPEG 2000 half its performance.
    return options if channels == 1 else {**options, "mct": 1}


def _webp_options(quality: float, channels: int) -> _Options:
    return {"quality": quality, "method": 6}


def _avif_options(quality: float, channels: int) -> _Options:
    # One thread: more split the picture into tiles and change the bytes with the machine. 4:4:4
    # is better than Pillow's default of 4:2:0 at all rates when PSNR is taken over RGB.
    subsampling = "4:0:0" if channels == 1 else "4:4:4"
    return {"quality": round(quality), "speed": 6, "subsampling": subsampling, "max_threads": 1}


ANCHORS: Mapping[str, Anchor] = {
    one.name: one
    for one in (
        Anchor(
            name="jpeg",
            description="JPEG (Pillow), 4:2:0, progressive, optimised Huffman tables",
            suffix=".jpg",
            qualities=(5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95),
            bounds=(1, 100),
            pillow_format="JPEG",
            feature="jpg",
            options=_jpeg_options,
        ),
        Anchor(
            name="jpeg2000",
            description="JPEG 2000 (Pillow, OpenJPEG), 9/7, quality is the bits per pixel aimed at",
            suffix=".j2k",
            qualities=(0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 1.6, 2.4, 3.2),
            bounds=(0.01, 24),
            pillow_format="JPEG2000",
            feature="jpg_2000",
            options=_jpeg2000_options,
        ),
        Anchor(
            name="webp",
            description="WebP (Pillow, libwebp), 4:2:0, method 6",
            suffix=".webp",
            qualities=(0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95),
            bounds=(0, 100),
            pillow_format="WEBP",
            feature="webp",
            options=_webp_options,
        ),
        Anchor(
            name="avif",
            description="AVIF (Pillow, libavif), 4:4:4, speed 6, one thread",
            suffix=".avif",
            qualities=(5, 10, 20, 30, 40, 50, 60, 70, 80, 90),
            bounds=(0, 100),
            pillow_format="AVIF",
            feature="avif",
            options=_avif_options,
        ),
    )
}
