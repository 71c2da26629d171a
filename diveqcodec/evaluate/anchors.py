"""The classical codecs to measure against, run here and now through Pillow.

Each has the same interface as the project's codec (`diveqcodec.evaluate.run.ImageCodec`): a
picture and a quality to the bytes of a complete file, and back. Knows nothing of files or metrics.
"""

import importlib.util
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image, features

from diveqcodec.errors import ConfigError, DiveqError
from diveqcodec.evaluate.libraries import import_library, version_of
from diveqcodec.image import Picture

_Options = dict[str, object]


@dataclass(frozen=True, slots=True)
class Setting:
    """How hard a codec tries: a whole number of its own, `low` to `high`."""

    value: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Anchor:
    """A codec of Pillow with one parameter, its quality; all else is fixed by its settings.

    Attributes:
        name: What the command line, tables and plots call it.
        description: The settings, as a result file should state them, with `{speed}` and the like.
        suffix: Of its files, with the dot.
        qualities: A grid that covers useful rates (about 0.1 to 3 bits per pixel on photographs),
            in rising order of rate.
        bounds: The lowest and highest quality accepted.
        pillow_format: Pillow's name of the format.
        feature: What `PIL.features.check` calls the library it needs; empty for a plugin.
        options: Quality, number of channels and settings to the arguments of `Image.save`.
        settings: What may be chosen, by name.
        plugin: The module that teaches Pillow the format, and what installs it; empty if none does.
    """

    name: str
    description: str
    suffix: str
    qualities: tuple[float, ...]
    bounds: tuple[float, float]
    pillow_format: str
    feature: str
    options: Callable[[float, int, Mapping[str, int]], _Options]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    plugin: tuple[str, str] | None = None

    def basis(self, _quality: float) -> str:
        """The version of the library that codes; a Pillow may be built with any."""
        if self.plugin is not None:
            return f"{self.plugin[1]} {version_of(self.plugin[1])}"
        turbo = features.version("libjpeg_turbo") if self.feature == "jpg" else None
        return f"{self.feature} {turbo or features.version(self.feature)}"

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
        chosen = {name: setting.value for name, setting in self.settings.items()}
        stream = io.BytesIO()
        try:
            image.save(stream, self.pillow_format, **self.options(quality, channels, chosen))
        except (OSError, RuntimeError, ValueError) as error:
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
        except (OSError, RuntimeError, SyntaxError, ValueError) as error:
            raise DiveqError(f"{self.name}: cannot decode these bytes: {error}") from error
        return Picture(pixels[:, :, None] if pixels.ndim == 2 else pixels)

    def check(self) -> None:
        """See that this Pillow can do it.

        Raises:
            DiveqError: It was built without the library, or the plugin is not installed.
        """
        if self.plugin is not None:
            import_library(*self.plugin)
        elif not features.check(self.feature):
            raise DiveqError(
                f"{self.name}: this Pillow was built without it; "
                "reinstall the wheel of pillow>=11.3 (pip install --force-reinstall pillow)"
            )


def anchor(spec: str) -> Anchor:
    """The anchor of that name, with settings: `avif`, `avif:speed=3`.

    The settings that differ from the anchor's own are part of its name:

    >>> anchor("avif:speed=3").name, anchor("avif:speed=6").name
    ('avif-speed3', 'avif')

    Raises:
        ConfigError: There is no such anchor or setting, or its value is out of range.
        DiveqError: This Pillow cannot do it (see `Anchor.check`).
    """
    found = parse(spec)
    found.check()
    return found


def parse(spec: str) -> Anchor:
    """The same without a look at what is installed.

    Raises:
        ConfigError: There is no such anchor or setting, or its value is out of range.
    """
    name, colon, rest = spec.partition(":")
    found = ANCHORS.get(name)
    if found is None:
        raise ConfigError(f"{name}: no such anchor; there are: {', '.join(ANCHORS)}")
    settings = dict(found.settings)
    for part in rest.split(",") if colon else ():
        key, _, value = part.partition("=")
        if key not in settings:
            known = ", ".join(found.settings) or "none"
            raise ConfigError(f"{spec}: {name} has no setting {key!r}; there are: {known}")
        low, high = settings[key].low, settings[key].high
        if not (re.fullmatch("[0-9]{1,9}", value) and low <= int(value) <= high):
            raise ConfigError(f"{spec}: {key} is a whole number from {low} to {high}")
        settings[key] = replace(settings[key], value=int(value))
    for key, setting in settings.items():
        if setting != found.settings[key]:
            name += f"-{key}{setting.value}"
    values = {key: setting.value for key, setting in settings.items()}
    description = found.description.format(**values)
    return replace(found, name=name, description=description, settings=settings)


def is_installed(name: str) -> bool:
    """Whether this Pillow can do an anchor; loads no plugin."""
    found = ANCHORS[name]
    if found.plugin is not None:
        return importlib.util.find_spec(found.plugin[0]) is not None
    return bool(features.check(found.feature))


def _jpeg_options(quality: float, channels: int, _settings: Mapping[str, int]) -> _Options:
    # Progressive scans with Huffman tables of their own: 1.5 % smaller than baseline, same pixels.
    options: _Options = {"quality": round(quality), "optimize": True, "progressive": True}
    return options if channels == 1 else {**options, "subsampling": "4:2:0"}


def _jpeg2000_options(quality: float, channels: int, _settings: Mapping[str, int]) -> _Options:
    options: _Options = {
        "quality_mode": "rates",
        "quality_layers": [8 * channels / quality],  # OpenJPEG wants the compression ratio
        "irreversible": True,
        "no_jp2": True,  # the bare codestream saves 85 bytes of boxes
    }
    # Pillow's default is no colour transform, which costs JPEG 2000 half its performance.
    return options if channels == 1 else {**options, "mct": 1}


def _webp_options(quality: float, channels: int, settings: Mapping[str, int]) -> _Options:
    return {"quality": quality, "method": settings["method"]}


def _avif_options(quality: float, channels: int, settings: Mapping[str, int]) -> _Options:
    # One thread: more split the picture into tiles and change the bytes with the machine. 4:4:4
    # is better than Pillow's default of 4:2:0 at all rates when PSNR is taken over RGB.
    return {
        "quality": round(quality),
        "speed": settings["speed"],
        "subsampling": "4:0:0" if channels == 1 else "4:4:4",
        "max_threads": 1,
    }


def _jxl_options(quality: float, channels: int, settings: Mapping[str, int]) -> _Options:
    return {"quality": quality, "effort": settings["effort"], "num_threads": 1}


ANCHORS: Mapping[str, Anchor] = {
    codec.name: codec
    for codec in (
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
            description="WebP (Pillow, libwebp), 4:2:0, method {method}",
            suffix=".webp",
            qualities=(0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95),
            bounds=(0, 100),
            pillow_format="WEBP",
            feature="webp",
            options=_webp_options,
            settings={"method": Setting(6, 0, 6)},
        ),
        Anchor(
            name="avif",
            description="AVIF (Pillow, libavif), 4:4:4, speed {speed}, one thread",
            suffix=".avif",
            qualities=(5, 10, 20, 30, 40, 50, 60, 70, 80, 90),
            bounds=(0, 100),
            pillow_format="AVIF",
            feature="avif",
            options=_avif_options,
            settings={"speed": Setting(6, 0, 10)},
        ),
        Anchor(
            name="jxl",
            description="JPEG XL (pillow-jxl-plugin, libjxl), effort {effort}, one thread",
            suffix=".jxl",
            qualities=(5, 15, 30, 45, 60, 70, 80, 85, 90, 95),
            bounds=(1, 99),  # 100 asks for lossless coding, and the plugin refuses to
            pillow_format="JXL",
            feature="",
            options=_jxl_options,
            settings={"effort": Setting(7, 1, 9)},
            plugin=("pillow_jxl", "pillow-jxl-plugin"),
        ),
    )
}
