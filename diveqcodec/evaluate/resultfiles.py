"""Result files: written, and read back with every row.

JSON in CompressAI's layout with extra keys, so existing plotting scripts read it, and
`diveqcodec.evaluate.curves.read_curve` reads both. Knows nothing of how the numbers came about.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.results import Results, Row

_LARGEST = 1 << 53


def results_json(results: Results) -> str:
    """CompressAI's layout with extra keys: `images`, `environment`, and per-image `rows`.

    The PSNR of a point with a lossless picture is null, and so is a missing MS-SSIM.
    """
    points = results.points()
    content = {
        "name": results.name,
        "description": results.description,
        "results": {
            "bpp": [point.bpp for point in points],
            "psnr-rgb": [None if point.lossless else point.psnr for point in points],
            "ms-ssim-rgb": [point.ms_ssim for point in points],
            "encoding_time": [point.encoding_seconds for point in points],
            "decoding_time": [point.decoding_seconds for point in points],
        },
        "qualities": [point.quality for point in points],
        "lossless": [point.lossless for point in points],
        "images": list(results.images),
        "environment": dict(results.environment),
    }
    head = json_text(content, indent=1)
    rows = [json_text(row_record(row)) for row in results.rows]
    # A row is a line: a third of what the same takes with every number on its own.
    return head[:-2] + ',\n "rows": [\n  ' + ",\n  ".join(rows) + "\n ]\n}\n"


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON as people read it; in ASCII where the name of a file is not UTF-8: nothing is lost."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent, allow_nan=False)
    return text


def read_results(path: Path) -> Results | None:
    """The inverse of `results_json`; None for a file without rows, such as CompressAI's own.

    Raises:
        DiveqError: The file cannot be read, or its rows are damaged.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not content.get("rows"):
            return None
        rows = tuple(row_from_record(record) for record in content["rows"])
        environment = dict(content.get("environment", {}))
        return Results(str(content["name"]), str(content.get("description", "")), rows, environment)
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DiveqError(f"{path}: not a readable JSON file of results: {error}") from error


def row_record(row: Row) -> dict[str, Any]:
    """A row with JSON's types; an infinite PSNR (a lossless picture) is null.

    >>> row = Row("a.png", 10, 8, 50, 100, math.inf, None, 0.5, 0.25)
    >>> record = row_record(row)
    >>> record["bpp"], record["psnr_rgb"], record["ms_ssim_rgb"]
    (10.0, None, None)
    >>> row_from_record(record) == row
    True
    """
    return {
        "image": row.image,
        "width": row.width,
        "height": row.height,
        "quality": row.quality,
        "bytes": row.size,
        "bpp": row.bpp,
        "psnr_rgb": row.psnr if math.isfinite(row.psnr) else None,
        "ms_ssim_rgb": row.ms_ssim,
        "encoding_seconds": row.encoding_seconds,
        "decoding_seconds": row.decoding_seconds,
        "parts": dict(row.parts),
    }


def row_from_record(record: Mapping[str, Any]) -> Row:
    """The row of such an object.

    Raises:
        KeyError, TypeError, ValueError: It is not one.
    """
    psnr, ms_ssim = record["psnr_rgb"], record["ms_ssim_rgb"]
    row = Row(
        image=str(record["image"]),
        width=_whole(record["width"]),
        height=_whole(record["height"]),
        quality=_finite(record["quality"]),
        size=_whole(record["bytes"]),
        psnr=math.inf if psnr is None else _finite(psnr),
        ms_ssim=None if ms_ssim is None else _finite(ms_ssim),
        encoding_seconds=_finite(record["encoding_seconds"]),
        decoding_seconds=_finite(record["decoding_seconds"]),
        parts={str(part): _whole(bits) for part, bits in dict(record.get("parts", {})).items()},
    )
    if min(row.width, row.height, row.size) < 1:
        raise ValueError("a picture has pixels, and a file bytes")
    return row


def _finite(value: Any) -> float:
    """A number; Python's JSON has NaN, Infinity and 1e400 too, which no row is written with."""
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError("a number is too large") from error
    if not math.isfinite(number):
        raise ValueError(f"{number} is not a finite number")
    return number


def _whole(value: Any) -> int:
    """A whole number that a float holds exactly, so that rates can be computed of it."""
    number = _finite(value)
    if not number.is_integer() or abs(number) > _LARGEST:
        raise ValueError(f"{number:g} is not a whole number, or too large")
    return int(number)
