"""An evaluation as one HTML file to look at: plots, every picture, crops side by side.

Self-contained: pictures, style and script are in the file, and its policy forbids loading anything.
Knows nothing of how codecs run, but for the crops, which it has coded.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate import report
from diveqcodec.evaluate.comparison import Comparison, Range, Rival, compare, curve_of
from diveqcodec.evaluate.crops import SIDE, Coded, Comparable, at_equal_bytes
from diveqcodec.evaluate.curves import Metric
from diveqcodec.evaluate.plot import PlotOptions, plot_svg
from diveqcodec.evaluate.results import Results
from diveqcodec.evaluate.run import picture_names
from diveqcodec.evaluate.trials import Trial
from diveqcodec.store import Place

_MOST_PICTURES = 8  # with crops: half a megabyte each


@dataclass(frozen=True, slots=True)
class Report:
    """What the page is about.

    Attributes:
        trials: The codecs, the one in question first.
        results: Of each.
        known: Other curves to compare with.
        files: The pictures.
        over: The range of PSNR of the BD-rates.
        ours: How many of the first codecs are the project's own.
    """

    trials: Sequence[Trial]
    results: Sequence[Results]
    known: Sequence[Rival]
    files: Sequence[Place]
    over: Range | None
    ours: int = 1


def html_report(content: Report) -> str:
    """The text of the page.

    Raises:
        DiveqError: matplotlib is missing, or a picture can no longer be read or coded.
    """
    tested = content.results[0]
    rivals: list[Rival] = [*content.results, *content.known]
    compared = [
        compare(found, [rival for rival in rivals if rival is not found], content.over)
        for found in content.results[: content.ours]
    ]
    chosen = [_comparable(content, image) for image in _chosen(tested, compared[0])]
    pictures = len(tested.images)
    titles = [report.bd_title(found.name) for found in content.results]
    parts = {
        "title": html.escape(f"{tested.name}: {pictures} picture{'' if pictures == 1 else 's'}"),
        "subtitle": html.escape(_subtitle(tested)),
        "style": _data("report.css"),
        "script": _data("report.js"),
        "plots": _plots(rivals, [found.name for found in content.results[: content.ours]]),
        "comparisons": "".join(
            _block(title, report.bd_cells(part), report.bd_notes(part))
            for title, part in zip(titles, compared, strict=False)
            if part
        )
        or "<p>Nothing was measured or named to compare with.</p>",
        "pictures": _pictures(tested, compared[0]),
        "croptext": html.escape(
            f"{SIDE} pixels at twice the size; every codec to the bytes of {tested.name}. Drag the "
            "slider; choose what stands left and right of it."
        ),
        "results": "".join(
            _block(found.name, report.results_cells(found), report.results_notes(found))
            for found in content.results
        ),
        "crops": _script_json([_record(item) for item in chosen]),
    }
    # one pass: what is put in may hold anything
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _data("report.html"))


def _script_json(value: object) -> str:
    r"""JSON for the text of a script, which ends at `</script>` in whatever language it is.

    Behind `<!--<script` it does not even end there. So no character that HTML knows is left; the
    line separators of Unicode are not either, as all of it is ASCII.

    >>> _script_json("<!--<script>&")
    '"\\u003c!--\\u003cscript\\u003e\\u0026"'
    """
    text = json.dumps(value, ensure_ascii=True)
    return re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _data(name: str) -> str:
    return (resources.files("diveqcodec") / "data" / "report" / name).read_text("utf-8")


def _subtitle(results: Results) -> str:
    versions = [
        f"{name} {results.environment[name]}"
        for name in ("diveqcodec", "pillow", "torch", "machine")
        if name in results.environment
    ]
    return "; ".join([results.description, *versions])


def _plots(rivals: Sequence[Rival], emphasised: Sequence[str]) -> str:
    """Both metrics, as pictures of their own, so that the files' names cannot meet."""
    curves = [curve_of(rival) for rival in rivals]
    metrics: dict[Metric, str] = {"psnr": "PSNR", "ms-ssim": "MS-SSIM"}
    shown = []
    for metric, title in metrics.items():
        try:
            svg = plot_svg(curves, PlotOptions(title, metric, emphasised))
        except DiveqError as error:
            shown.append(f"<p>No plot over {title}: {html.escape(str(error))}.</p>")
            continue
        data = base64.b64encode(svg.encode()).decode()
        shown.append(f'<img alt="{title} over rate" src="data:image/svg+xml;base64,{data}">')
    return "".join(shown)


def _block(title: str, cells: report.Cells, notes: Iterable[str]) -> str:
    head, *rows = cells
    lines = "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)
    return (
        f'<h3>{html.escape(title)}</h3><div class="wide"><table><thead>{_row(head, "th")}</thead>'
        f"<tbody>{''.join(_row(row, 'td') for row in rows)}</tbody></table></div>{lines}"
    )


def _row(cells: Iterable[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _pictures(tested: Results, compared: Sequence[Comparison]) -> str:
    """Every picture's own BD-rate against each anchor, the best and the worst of them marked."""
    columns = [
        (f"{item.anchor}{label}", figure)
        for item in compared
        for label, figure in (("", item.psnr), (", MS-SSIM", item.ms_ssim))
        if figure.of_images
    ]
    sizes = {row.image: (row.width, row.height) for row in tested.rows}
    body = []
    for image, (width, height) in sizes.items():
        cells = [f'<td data-value="{html.escape(image)}">{html.escape(image)}</td>']
        cells.append(f'<td data-value="{width * height}">{width}×{height}</td>')
        for _, figure in columns:
            value = figure.of_images.get(image)
            if value is None:
                why = html.escape(figure.without.get(image, ""))
                cells.append(f'<td data-value="" title="{why}">-</td>')
                continue
            mark = ""
            if len(figure.of_images) > 1:
                mark = {figure.best: "best", figure.worst: "worst"}.get(image, "")
            cells.append(f'<td class="{mark}" data-value="{value:.4f}">{value:+.1f} %</td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    head = _row(["picture", "size", *(name for name, _ in columns)], "th")
    return (
        f"<p>Bits that {html.escape(tested.name)} needs for equal distortion, BD-rate of each "
        "picture over what the two codecs share; negative is better. A click on a head sorts.</p>"
        f'<div class="wide"><table id="pictures"><thead>{head}</thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _chosen(tested: Results, compared: Sequence[Comparison]) -> list[str]:
    """The worst and best picture against each anchor; without anchors, those of extreme PSNR."""
    figures = [item.psnr for item in compared if item.psnr.of_images]
    chosen = [image for figure in figures for image in (figure.worst, figure.best)]
    if not chosen:
        rows = sorted(tested.rows, key=lambda row: row.psnr)
        chosen = [rows[0].image, rows[-1].image]
    return list(dict.fromkeys(chosen))[:_MOST_PICTURES]


def _comparable(content: Report, image: str) -> Comparable:
    paths = dict(zip(picture_names(content.files), content.files, strict=True))
    codecs = [trial.codec for trial in content.trials]
    return at_equal_bytes(paths[image], image, codecs, content.results)


def _record(item: Comparable) -> dict[str, object]:
    """What the page's script shows of a picture."""
    original = {"name": "original", "says": "original"}
    return {
        "image": item.image,
        "codecs": [original, *({"name": c.name, "says": _says(c)} for c in item.coded)],
        "crops": [
            {
                "title": f"{crop.title} (at {crop.left}, {crop.top})",
                "width": crop.width,
                "height": crop.height,
                "beside": 0 if crop.rival is None else crop.rival + 1,  # the original is first
                "images": [
                    base64.b64encode(data).decode() for data in (crop.original, *crop.decoded)
                ],
            }
            for crop in item.crops
        ],
    }


def _says(coded: Coded) -> str:
    return f"{coded.name}, quality {coded.quality:g}: {coded.size:,} bytes, {coded.psnr:.2f} dB"
