"""Rate-distortion curves: the type, its files, and the published ones that come with the package.

Reads CompressAI's result layout (`{"name", "description", "results": {"bpp": [...], ...}}`), which
`diveqcodec.evaluate.report` also writes, and the project's own collection of published curves. It
knows nothing of codecs or pictures.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from diveqcodec.errors import DiveqError

Metric = Literal["psnr", "ms-ssim"]


@dataclass(frozen=True, slots=True)
class Curve:
    """The operating points of one codec on one set of pictures, in order of rising rate.

    Attributes:
        name: What tables and plots call the codec.
        bpp: Bits per pixel, strictly rising.
        psnr: PSNR-RGB in dB; NaN where a file gives none.
        ms_ssim: MS-SSIM in [0, 1]; NaN where a file gives none.
        description: Settings, version or source.
    """

    name: str
    bpp: tuple[float, ...]
    psnr: tuple[float, ...]
    ms_ssim: tuple[float, ...]
    description: str = ""

    @classmethod
    def from_points(
        cls,
        name: str,
        bpp: Sequence[float],
        psnr: Sequence[float],
        ms_ssim: Sequence[float | None] | None = None,
        description: str = "",
    ) -> "Curve":
        """Sort the points by rate; points that repeat one another are kept once.

        Two qualities that give the same files (a clamped setting) are one operating point.

        Raises:
            DiveqError: No points, lists of unequal length, or a rate that is not positive.
        """
        if ms_ssim is None:
            ms_ssim = [None] * len(bpp)
        if not bpp or not len(bpp) == len(psnr) == len(ms_ssim):
            raise DiveqError(
                f"{name}: a curve needs as many rates as distortions, and one at least, "
                f"not {len(bpp)}, {len(psnr)} and {len(ms_ssim)}"
            )
        if not all(math.isfinite(rate) and rate > 0 for rate in bpp):
            raise DiveqError(f"{name}: every rate must be a positive number of bits per pixel")
        similarities = [math.nan if value is None else value for value in ms_ssim]
        points: dict[float, tuple[float, float]] = {}
        for rate, *values in sorted(zip(bpp, psnr, similarities, strict=True)):
            points[rate] = (values[0], values[1])
        return cls(
            name,
            tuple(points),
            tuple(point[0] for point in points.values()),
            tuple(point[1] for point in points.values()),
            description,
        )

    def distortion(self, metric: Metric) -> tuple[float, ...]:
        """The curve's other axis in decibels: PSNR, or MS-SSIM as `-10 log10(1 - MS-SSIM)`."""
        if metric == "psnr":
            return self.psnr
        return tuple(ms_ssim_decibels(value) for value in self.ms_ssim)


def ms_ssim_decibels(value: float) -> float:
    """MS-SSIM in [0, 1] to decibels: 0.9 -> 10, 0.99 -> 20, 1 -> infinity."""
    return math.inf if value >= 1 else -10 * math.log10(1 - value)


def read_curve(path: Path) -> Curve:
    """Read a result file in CompressAI's layout (ours is the same with extra keys).

    Raises:
        DiveqError: The file cannot be read or lacks a name, rates or PSNR.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DiveqError(f"{path}: not a readable JSON file of results: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise DiveqError(f'{path}: no "results" in it; expected CompressAI\'s JSON layout')
    return _curve(content, content["results"], str(path))


def published_curves(pictures: str = "kodak") -> dict[str, Curve]:
    """The curves that others published, by name (`jpeg`, `vtm`, `mbt2018-mean`, ...).

    The rates of the classical codecs are those of whole files; the learned ones' leave out any
    file header.

    Raises:
        DiveqError: There is no collection for these pictures.
    """
    folder = resources.files("diveqcodec") / "data" / "curves"
    file = folder / f"published_{pictures}.json"
    if not file.is_file():
        raise DiveqError(f"{pictures}: no published curves for these pictures; there are: kodak")
    content = json.loads(file.read_text(encoding="utf-8"))
    curves = (_curve(entry, entry["results"], file.name) for entry in content["curves"])
    return {curve.name: curve for curve in curves}


def _curve(entry: Mapping[str, Any], results: Mapping[str, Any], source: str) -> Curve:
    try:
        rates = [float(str(value)) for value in results["bpp"]]
        psnr = [_number(value) for value in _either(results, "psnr-rgb", "psnr")]
        similarities = results.get("ms-ssim-rgb", results.get("ms-ssim"))
        return Curve.from_points(
            str(entry["name"]),
            rates,
            psnr,
            None if similarities is None else [_number(value) for value in similarities],
            str(entry.get("description", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DiveqError(
            f"{source}: not a curve in CompressAI's JSON layout: {type(error).__name__}: {error}"
        ) from error


def _either(results: Mapping[str, Any], *keys: str) -> Sequence[Any]:
    """The first of the keys that is there: CompressAI's own files use both spellings."""
    found: Sequence[Any] = next((results[key] for key in keys if key in results), ())
    return found


def _number(value: object) -> float:
    """A number of a JSON file; null (a lossless PSNR, an MS-SSIM too small to have) is NaN.

    By its text: of a whole number of 400 digits, `float` makes an OverflowError, of that infinity.
    """
    return math.nan if value is None else float(str(value))
