"""Colours that a file describes by gamma, primaries or a code instead of a profile -> sRGB.

Source: PNG third edition, gAMA, cHRM, sRGB and cICP, whose codes are of ITU-T H.273; DCF 2.0 for
Adobe RGB in EXIF; IEC 61966-2-1 for the curve of sRGB; the chromatic adaptation is Bradford's.
Knows no files but by what Pillow says of them, and the chunks of PNG that it passes over.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from diveqcodec.image.picture import Pixels

Floats = NDArray[np.float64]

# As cHRM orders them: white, red, green, blue; x and y of each.
_SRGB: Final = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE_RGB: Final = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_ADOBE_GAMMA: Final = 256 / 563
_CODED_PRIMARIES: Final[dict[int, tuple[float, ...] | None]] = {
    1: None,
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
}
_CODED_GAMMAS: Final = {13: None, 8: 1.0, 4: 1 / 2.2}  # transfer: sRGB, linear, 2.2
_SRGB_GAMMA: Final = 0.45455
# What still counts as sRGB: writers round, and 1 / 2.2 is what they mean by it.
_GAMMA_TOLERANCE: Final = 0.01
_PRIMARY_TOLERANCE: Final = 0.005
_GAMMAS: Final = (0.05, 5.0)  # beyond them, an error of the writer
_BRADFORD: Final = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_ROWS: Final = 256
_MAX_CHUNKS: Final = 1000  # of a PNG that are looked at


@dataclass(frozen=True, slots=True)
class Encoding:
    """How samples become light: light = sample ** (1 / gamma), of these primaries.

    Attributes:
        gamma: As gAMA has it; None: the curve of sRGB.
        primaries: As cHRM has them; None: those of sRGB.
        name: What both together are called.
    """

    gamma: float | None
    primaries: tuple[float, ...] | None
    name: str | None = None

    @property
    def notice(self) -> str:
        """What is said of pictures that are converted."""
        if self.name is not None:
            return f"colours converted to sRGB from {self.name}"
        told = [] if self.gamma is None else [f"gamma {self.gamma:g}"]
        told += [] if self.primaries is None else ["primaries of its own"]
        return f"colours converted to sRGB from {' and '.join(told)}"

    def curve(self, samples: Floats) -> Floats:
        """Grey samples in 0 ... 1 as samples of sRGB."""
        return _encoded(self._light(samples))

    def convert(self, pixels: Pixels) -> Pixels:
        """8-bit pixels `[H, W, 1 or 3]` as such of sRGB."""
        light = self._light(np.arange(256) / 255)
        if pixels.shape[2] == 1 or self.primaries is None:
            table = np.floor(_encoded(light) * 255 + 0.5).astype(np.uint8)
            mapped: Pixels = table[pixels]
            return mapped
        matrix = np.linalg.inv(_to_xyz(_SRGB)) @ _to_xyz(self.primaries)
        result = np.empty_like(pixels)
        for top in range(0, len(pixels), _ROWS):
            rows = light[pixels[top : top + _ROWS]] @ matrix.T
            result[top : top + _ROWS] = np.floor(_encoded(rows) * 255 + 0.5)
        return result

    def _light(self, samples: Floats) -> Floats:
        if self.gamma is not None:
            result: Floats = samples ** (1 / self.gamma)
            return result
        return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


@dataclass(frozen=True, slots=True)
class Colours:
    """What a file says of its colours, profiles aside.

    Attributes:
        encoding: Of colours that are not those of sRGB, else None.
        notice: Of colours that are taken for sRGB although they are not.
    """

    encoding: Encoding | None = None
    notice: str | None = None


def colours_of(image: Image.Image) -> Colours:
    """What an image that was opened says of its colours; PNG's cICP only until it is loaded."""
    return Colours(_encoding_of(image), _unknown_code(image))


def _encoding_of(image: Image.Image) -> Encoding | None:
    """What a file without a colour profile says of its colours; None if that is sRGB, or nothing.

    PNG's cICP wins over a profile, which wins over sRGB, and that over gAMA and cHRM.
    """
    info = image.info
    code = _code(image)
    if code is not None and code[0] in _CODED_PRIMARIES and code[1] in _CODED_GAMMAS:
        if code == (1, 13):
            return None
        name = f"cICP {code[0]}/{code[1]}"
        return Encoding(_CODED_GAMMAS[code[1]], _CODED_PRIMARIES[code[0]], name)
    if info.get("icc_profile") or "srgb" in info:
        return None
    if _is_adobe_rgb(image):
        return Encoding(_ADOBE_GAMMA, _ADOBE_RGB, "Adobe RGB, which EXIF states")
    gamma, primaries = _gamma(info.get("gamma")), _primaries(info.get("chromaticity"))
    return Encoding(gamma, primaries) if gamma is not None or primaries is not None else None


def _unknown_code(image: Image.Image) -> str | None:
    """What to say of a PNG whose cICP names colours that are not converted, such as of HDR."""
    code = _code(image)
    if code is None or (code[0] in _CODED_PRIMARIES and code[1] in _CODED_GAMMAS):
        return None
    return f"colours of cICP {code[0]}/{code[1]} coded as if they were sRGB"


def _code(image: Image.Image) -> tuple[int, int] | None:
    """Primaries and transfer of PNG's cICP, which Pillow passes over."""
    file: Any = getattr(image, "fp", None)
    if image.format != "PNG" or file is None:
        return None
    back, code, at = file.tell(), None, 8
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        head = file.read(10)
        if len(head) < 10 or head[4:8] == b"IDAT":
            break
        if head[4:8] == b"cICP":
            code = head[8], head[9]
            break
        at += 12 + int.from_bytes(head[:4], "big")
    file.seek(back)
    return code


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Whether EXIF says so, as cameras do that embed no profile."""
    if image.format not in ("JPEG", "MPO") or "exif" not in image.info:
        return False
    try:
        index = image.getexif().get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
    except Exception:  # a block that is damaged says nothing
        return False
    return isinstance(index, str) and index.startswith("R03")


def _gamma(value: Any) -> float | None:
    if not isinstance(value, float) or not _GAMMAS[0] <= value <= _GAMMAS[1]:
        return None
    return None if abs(value - _SRGB_GAMMA) <= _GAMMA_TOLERANCE else value


def _primaries(value: Any) -> tuple[float, ...] | None:
    """The chromaticities if they make a triangle around white that is not that of sRGB."""
    if not isinstance(value, tuple) or len(value) != 8 or min(value[1::2]) <= 0:
        return None
    if max(abs(a - b) for a, b in zip(value, _SRGB, strict=True)) <= _PRIMARY_TOLERANCE:
        return None
    try:
        matrix = _to_xyz(value)
    except np.linalg.LinAlgError:
        return None
    return value if np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 1e-6 else None


def _to_xyz(chromaticities: tuple[float, ...]) -> Floats:
    """The matrix from linear colours to XYZ, adapted to the white of sRGB."""
    points = np.array(chromaticities, dtype=np.float64).reshape(4, 2)
    xyz = np.stack([points[:, 0] / points[:, 1], np.ones(4), _z(points)])  # of Y = 1, by column
    white, primaries = xyz[:, 0], xyz[:, 1:]
    matrix = primaries * np.linalg.solve(primaries, white)
    target = np.array([_SRGB[0] / _SRGB[1], 1, (1 - _SRGB[0] - _SRGB[1]) / _SRGB[1]])
    scale = (_BRADFORD @ target) / (_BRADFORD @ white)
    adapted: Floats = np.linalg.inv(_BRADFORD) @ (scale[:, None] * _BRADFORD) @ matrix
    return adapted


def _z(points: Floats) -> Floats:
    result: Floats = (1 - points[:, 0] - points[:, 1]) / points[:, 1]
    return result


def _encoded(light: Floats) -> Floats:
    """Linear light as samples of sRGB, cut to 0 ... 1."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
