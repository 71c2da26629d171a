"""Results as text, JSON and CSV.

The JSON is CompressAI's layout with extra keys, so existing plotting scripts read it, and
`diveqcodec.evaluate.curves.read_curve` reads both. Knows nothing of how the numbers came about;
returns text and leaves printing to the command line.
"""

import csv
import io
import json
import math
from collections.abc import Sequence

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.bdrate import bd_rate
from diveqcodec.evaluate.curves import Curve
from diveqcodec.evaluate.run import Results, Row

# Of the CSV, and keys of a row in the JSON; both add the codec's own parts.
_COLUMNS = (
    "image",
    "width",
    "height",
    "quality",
    "bytes",
    "bpp",
    "psnr_rgb",
    "ms_ssim_rgb",
    "encoding_seconds",
    "decoding_seconds",
)


def results_table(results: Results) -> str:
    """An aligned table, one line a quality, means over the pictures."""
    head = ["quality", "bpp", "PSNR-RGB", "MS-SSIM", "encode s", "decode s"]
    points = results.points()
    parts = list(dict.fromkeys(part for point in points for part in point.parts))
    lines = [
        [
            f"{point.quality:g}",
            f"{point.bpp:.4f}",
            f"{point.psnr:.3f}",
            # A visible dash: at most 160 pixels on a side leave MS-SSIM undefined.
            "-" if point.ms_ssim is None else f"{point.ms_ssim:.5f}",
            f"{point.encoding_seconds:.3f}",
            f"{point.decoding_seconds:.3f}",
            *(f"{point.parts.get(part, 0):.4f}" for part in parts),
        ]
        for point in points
    ]
    return _aligned([head + [f"{part} bpp" for part in parts], *lines], left_columns=0)


def bd_table(tested: Curve, anchors: Sequence[Curve], over: tuple[float, float] | None) -> str:
    """BD-rate of one codec against each anchor, one line an anchor.

    Args:
        tested: The codec in question.
        anchors: What it is measured against.
        over: The range of PSNR in dB, or None for all that the two curves share. An anchor for
            which there is no figure (the range is not covered) has its reason in the table.
    """
    lines = [["anchor", "BD-rate", "over PSNR"]]
    for anchor in anchors:
        try:
            delta = bd_rate(tested, anchor, over)
        except DiveqError as error:
            lines.append([anchor.name, "-", str(error)])
        else:
            span = f"{delta.low:.2f}-{delta.high:.2f} dB"
            lines.append([anchor.name, f"{delta.value:+.1f} %", span])
    title = f"{tested.name}: bits needed for equal PSNR-RGB, negative is better"
    return title + "\n" + _aligned(lines, left_columns=1, last_is_text=True)


def results_json(results: Results) -> str:
    """CompressAI's layout with extra keys: `images`, `environment`, and per-image `rows`.

    An infinite PSNR (a lossless picture) and a missing MS-SSIM are null.
    """
    points = results.points()
    content = {
        "name": results.name,
        "description": results.description,
        "results": {
            "bpp": [point.bpp for point in points],
            "psnr-rgb": [_finite(point.psnr) for point in points],
            "ms-ssim-rgb": [point.ms_ssim for point in points],
            "encoding_time": [point.encoding_seconds for point in points],
            "decoding_time": [point.decoding_seconds for point in points],
        },
        "qualities": [point.quality for point in points],
        "images": list(results.images),
        "environment": dict(results.environment),
        "rows": [_row_record(row) for row in results.rows],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def results_csv(results: Results) -> str:
    """One line a picture and quality, with a header; the bits of each part are the last columns."""
    parts = list(dict.fromkeys(part for row in results.rows for part in row.parts))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["codec", *_COLUMNS, *(f"{part}_bits" for part in parts)])
    for row in results.rows:
        record = _row_record(row)
        values = ["" if record[column] is None else record[column] for column in _COLUMNS]
        writer.writerow([results.name, *values, *(row.parts.get(part, 0) for part in parts)])
    return stream.getvalue()


def _row_record(row: Row) -> dict[str, object]:
    """A row with JSON's types: `_COLUMNS` and the parts."""
    return {
        "image": row.image,
        "width": row.width,
        "height": row.height,
        "quality": row.quality,
        "bytes": row.size,
        "bpp": row.bpp,
        "psnr_rgb": _finite(row.psnr),
        "ms_ssim_rgb": row.ms_ssim,
        "encoding_seconds": row.encoding_seconds,
        "decoding_seconds": row.decoding_seconds,
        "parts": dict(row.parts),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _aligned(lines: Sequence[Sequence[str]], left_columns: int, last_is_text: bool = False) -> str:
    """Columns of equal width: the first `left_columns` flush left, the rest flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    left = set(range(left_columns)) | ({len(widths) - 1} if last_is_text else set())
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
