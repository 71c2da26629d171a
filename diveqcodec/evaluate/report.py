"""Results as tables and CSV.

Knows nothing of how the numbers came about; returns text and leaves printing to the command line.
"""

import csv
import io
from collections.abc import Iterator, Sequence

from diveqcodec.evaluate.comparison import Comparison, Figure
from diveqcodec.evaluate.resultfiles import row_record
from diveqcodec.evaluate.results import HIGHEST_PSNR, Results
from diveqcodec.ssim import SMALLEST_SIDE

# Of the CSV, and keys of a row in result files; both add the codec's own parts.
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
_SHOWN = 3  # names of pictures in a line

Cells = list[list[str]]  # the first row is the head


def results_cells(results: Results) -> Cells:
    """A head and one row a quality, means over the pictures."""
    head = ["quality", "bpp", "PSNR-RGB", "MS-SSIM", "encode s", "decode s"]
    points = results.points()
    parts = list(dict.fromkeys(part for point in points for part in point.parts))
    rows = [
        [
            f"{point.quality:g}",
            f"{point.bpp:.4f}",
            f"{point.psnr:.3f}" + ("*" if point.lossless else ""),
            # A visible dash: at most 160 pixels on a side leave MS-SSIM undefined.
            "-" if point.ms_ssim is None else f"{point.ms_ssim:.5f}",
            f"{point.encoding_seconds:.3f}",
            f"{point.decoding_seconds:.3f}",
            *(f"{point.parts.get(part, 0):.4f}" for part in parts),
        ]
        for point in points
    ]
    return [head + [f"{part} bpp" for part in parts], *rows]


def results_notes(results: Results) -> list[str]:
    """What the table's figures leave out: lossless pictures, and those too small for MS-SSIM."""
    total = len(results.images)
    notes = [
        f"* quality {point.quality:g}: {_of(point.lossless, total)} lossless,"
        f" counted as {HIGHEST_PSNR:g} dB; not in plots and BD-rates over PSNR"
        for point in results.points()
        if point.lossless
    ]
    small = results.small_images
    if small:
        count = f"{_of(len(small), total)} with a side below {SMALLEST_SIDE} pixels"
        notes.append(f"no MS-SSIM: {count} ({_named(small)})")
    return notes


def results_table(results: Results) -> str:
    """The same as text: an aligned table, and a line for every note below it."""
    return "\n".join([_aligned(results_cells(results), left_columns=0), *results_notes(results)])


def bd_cells(comparisons: Sequence[Comparison]) -> Cells:
    """A head and one row an anchor: BD-rates, medians of the pictures' own and pictures won."""
    head = ["anchor", "BD-rate", "over PSNR", "median", "won"]
    head += ["MS-SSIM: BD-rate", "median", "won"]
    rows = []
    for comparison in comparisons:
        psnr, ms_ssim = comparison.psnr, comparison.ms_ssim
        span = f"{psnr.delta.low:.2f}-{psnr.delta.high:.2f} dB" if psnr.delta is not None else "-"
        first, *rest = _figure_cells(psnr)
        rows.append([comparison.anchor, first, span, *rest, *_figure_cells(ms_ssim)])
    return [head, *rows]


def bd_notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Why figures are missing, and what is not in them."""
    anchors_of: dict[str, list[str]] = {}  # what holds for several is said once
    for comparison in comparisons:
        for label, figure in (("PSNR", comparison.psnr), ("MS-SSIM", comparison.ms_ssim)):
            for note in _figure_notes(figure):
                anchors_of.setdefault(f"{label}: {note}", []).append(comparison.anchor)
    return [f"{', '.join(anchors)}, {note}" for note, anchors in anchors_of.items()]


def bd_title(tested: str) -> str:
    """What the table of BD-rates says."""
    return f"{tested}: bits needed for equal distortion, negative is better"


def bd_table(tested: str, comparisons: Sequence[Comparison]) -> str:
    """The same as text, below a title."""
    table = _aligned(bd_cells(comparisons), left_columns=1)
    return "\n".join([bd_title(tested), table, *bd_notes(comparisons)])


def results_csv(results: Sequence[Results]) -> str:
    """One line a codec, picture and quality, with a head; bits of each part in the last columns."""
    parts = list(dict.fromkeys(p for found in results for row in found.rows for p in row.parts))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["codec", *_COLUMNS, *(f"{part}_bits" for part in parts)])
    for found in results:
        for row in found.rows:
            record = row_record(row)
            values = ["" if record[column] is None else record[column] for column in _COLUMNS]
            bits = [row.parts.get(part, 0) if row.parts else "" for part in parts]
            writer.writerow([found.name, *values, *bits])
    return stream.getvalue()


def _figure_notes(figure: Figure) -> Iterator[str]:
    if figure.reason:
        yield figure.reason
    elif figure.delta is not None and figure.delta.left_out:
        points = "point" if figure.delta.left_out == 1 else "points"
        yield f"{figure.delta.left_out} lossless {points} left out"
    if figure.without and figure.of_images:
        total = len(figure.without) + len(figure.of_images)
        name, reason = next(iter(figure.without.items()))
        yield f"{_of(len(figure.without), total)} without a BD-rate of its own ({name}: {reason})"


def _figure_cells(figure: Figure) -> list[str]:
    """BD-rate of the means, median of the pictures', pictures won."""
    mean = "-" if figure.delta is None else f"{figure.delta.value:+.1f} %"
    if not figure.of_images:
        return [mean, "-", "-"]
    return [mean, f"{figure.median:+.1f} %", f"{figure.won} of {len(figure.of_images)}"]


def _of(count: int, total: int) -> str:
    """1 of 1 picture, 2 of 5 pictures."""
    return f"{count} of {total} picture{'' if total == 1 else 's'}"


def _named(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _aligned(cells: Cells, left_columns: int) -> str:
    """Columns of equal width: the first `left_columns` flush left, the rest flush right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )
