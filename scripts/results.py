"""The figures on sets of pictures: measure, then write the tables and the plots.

    python scripts/results.py measure --kodak DIR --cid22 DIR   results/SET/*.json, from real files
    python scripts/results.py table     README.md and docs/results.md, between their two markers
    python scripts/results.py plot      results/kodak.png and .svg, and the other sets'

README.md gets what a newcomer asks for, docs/results.md all of it.

`make results KODAK=DIR CID22=DIR` is the first (each set on its own, too), `make results-table` and
`make results-plot` the others, which need no pictures. `--only diveq-e5 webp` measures these codecs
again and leaves the other files alone; AVIF at its slowest takes an hour for each set. BD-rates on
Kodak are against the published curve of VTM over a fixed range of PSNR.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from diveqcodec import zoo
from diveqcodec.codec import DEFAULT_EFFORT, EFFORTS
from diveqcodec.errors import DiveqError
from diveqcodec.evaluate import anchors, dvq
from diveqcodec.evaluate.bdrate import bd_rate
from diveqcodec.evaluate.comparison import Figure, Range, compare
from diveqcodec.evaluate.curves import published_curves
from diveqcodec.evaluate.journal import Journal
from diveqcodec.evaluate.offered import QUALITIES
from diveqcodec.evaluate.plot import PlotOptions, plot_curves
from diveqcodec.evaluate.resultfiles import read_results, results_json
from diveqcodec.evaluate.results import Results, Row
from diveqcodec.evaluate.trials import Trial
from diveqcodec.evaluate.trials import measure as measure_trials
from diveqcodec.processes import LocalProcesses
from diveqcodec.store import Place

ROOT = Path(__file__).resolve().parent.parent
README, FULL, RESULTS = ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "results"
START, END = "<!-- results:", "<!-- end of results -->"
DEFAULT = f"diveq-e{DEFAULT_EFFORT}"
OURS = tuple(f"diveq-e{effort}" for effort in EFFORTS)
# avif twice: at Pillow's default speed and at the slowest that is practical (docs/evaluation.md)
ANCHORS = {
    anchors.parse(spec).name: spec
    for spec in ("jpeg", "jpeg2000", "webp", "avif", "avif:speed=3", "jxl")
}


@dataclass(frozen=True, slots=True)
class Set:
    """Pictures that are measured.

    Attributes:
        title: What the tables call them.
        over: The range of PSNR in dB of their BD-rates.
    """

    title: str
    over: Range


SETS = {"kodak": Set("Kodak", (28.5, 38.5)), "cid22": Set("CID22", (30.0, 40.0))}


def measure(
    folder: Path, names: Sequence[str], target: Path, jobs: int = 1, journal: Journal | None = None
) -> None:
    """Code every PNG picture of `folder` with each codec: `target`/NAME.json.

    Raises:
        DiveqError: there is no such picture, or one cannot be coded.
    """
    files = sorted(folder.glob("*.png"))
    if not files:
        raise DiveqError(f"{folder}: no PNG pictures there; give the folder that holds the set's")
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        # every codec on its own: what is measured stays measured, whatever comes
        engine = LocalProcesses(jobs) if jobs > 1 else None
        trials = [_trial(name)]
        measured = measure_trials(trials, files, _show, _refuse, journal=journal, engine=engine)
        (target / f"{name}.json").write_text(results_json(measured.results[0]), "utf-8")


def table(readme: Path, full: Path, results: Path) -> None:
    """Write the tables of `results`/*/*.json between the markers of two files.

    `readme` gets rates and PSNRs, the BD-rates against VTM and the plot of Kodak; `full` all
    figures and plots. A codec that was not measured on a set has no row there, and a set without
    ours is left out.

    Raises:
        DiveqError: our results on Kodak are missing, a file is damaged, lacks rows, or is of other
            pictures than the others of its set or of another model, or the markers are not there.
    """
    found = _found(results)
    short = [*_qualities(found, with_similarity=False), "", *_ranking(found["kodak"]), ""]
    short.append(f"![Rate-distortion curves on {SETS['kodak'].title}](results/kodak.png)")
    long = [*_qualities(found), "", *_against_vtm(found["kodak"]), ""]
    for name in OURS[OURS.index(DEFAULT) :]:  # a lower effort is for speed
        if name in found["kodak"]:
            long += [*_against_anchors(name, found), ""]
    for name in found:
        long += [f"![Rate-distortion curves on {SETS[name].title}](../results/{name}.png)"]
    texts = {readme: _between_markers(readme, short), full: _between_markers(full, long)}
    for path, text in texts.items():  # both or none
        path.write_text(text, "utf-8")


def _between_markers(path: Path, lines: Sequence[str]) -> str:
    """The text of a file with these lines in place of those between its markers."""
    head, start, rest = path.read_text("utf-8").partition(START)
    marker, _, rest = rest.partition("\n")
    _, end, tail = rest.partition(END)
    if not (start and end):
        raise DiveqError(f"{path}: the lines {START} ... --> and {END} are not in it")
    return head + START + marker + "\n\n" + "\n".join(lines) + "\n\n" + END + tail


def plot(results: Path) -> None:
    """Draw the curves of every set there, as PNG and SVG."""
    for name, found in _found(results).items():
        ours = [codec for codec in found if codec in OURS]
        curves = [found[codec].curve() for codec in found]
        if name == "kodak":
            published = published_curves("kodak")
            curves += [published[codec] for codec in ("vtm", "bmshj2018-hyperprior")]
        title = f"{SETS[name].title}: whole files, PSNR of 8-bit RGB"
        for suffix in (".png", ".svg"):
            options = PlotOptions(title=title, emphasised=frozenset(ours))
            plot_curves(curves, results / f"{name}{suffix}", options)


def _trial(name: str) -> Trial:
    if name in OURS:
        effort = int(name.removeprefix("diveq-e"))
        entry = zoo.find()
        make = partial(dvq.load, entry, "cpu", effort, by_part=False)
        codec = make()
        codec.name = name  # whatever the weights are called
        return Trial(codec, QUALITIES, make)
    spec = ANCHORS[name]
    anchor = anchors.anchor(spec)
    return Trial(anchor, anchor.qualities, partial(anchors.anchor, spec))


def _found(results: Path) -> dict[str, dict[str, Results]]:
    """The results of every set that has ours; Kodak must. All of ours are of one model."""
    found = {
        name: _read(results / name)
        for name in SETS
        if name == "kodak" or (results / name / f"{DEFAULT}.json").exists()
    }
    model = _model(found["kodak"][DEFAULT])
    for of_set, codecs in found.items():
        for name in set(codecs).intersection(OURS):
            if _model(codecs[name]) != model:
                where = f"{results / of_set / name}.json: is of {_model(codecs[name])}"
                raise DiveqError(f"{where}, not of {model}; measure it again")
    return found


def _model(results: Results) -> str:
    """What a description says of the model: "model 0123456789abcdef"."""
    parts = results.description.split(", ")
    return next((part for part in parts if part.startswith("model ")), "no model")


def _read(folder: Path) -> dict[str, Results]:
    """The results of a set by codec, ours first, after a look at their pictures."""
    found: dict[str, Results] = {}
    for name in (*OURS, *ANCHORS):
        path = folder / f"{name}.json"
        if not path.exists() and name != DEFAULT:
            continue
        results = read_results(path)
        if results is None:
            raise DiveqError(f"{path}: has no rows; measure it again")
        found[name] = results
    images = found[DEFAULT].images
    for name, results in found.items():
        if results.images != images:
            where = f"{folder / name}.json: is of other pictures than {DEFAULT}.json"
            raise DiveqError(f"{where}; measure both again")
        counts = Counter(row.quality for row in results.rows)
        if set(counts.values()) != {len(images)}:
            where = f"{folder / name}.json: lacks rows of some pictures"
            raise DiveqError(f"{where}; measure it again")
    return found


def _qualities(
    found: Mapping[str, Mapping[str, Results]], *, with_similarity: bool = True
) -> list[str]:
    """What each quality costs and brings, the sets beside one another."""
    ours = {name: codecs[DEFAULT] for name, codecs in found.items()}
    sets = [f"{SETS[name].title}, {len(ours[name].images)} pictures" for name in found]
    lines = [f"{'; '.join(sets)}; one model ({ours['kodak'].description}), bytes on disk:", ""]
    columns = ["bpp", "PSNR-RGB", "MS-SSIM"][: 3 if with_similarity else 2]
    head = ["`-q`"]
    for name in found:
        head += [f"{SETS[name].title}: {columns[0]}", *columns[1:]]
    points = [{point.quality: point for point in results.points()} for results in ours.values()]
    lines += _markdown(head)
    for quality in dict.fromkeys(quality for of_set in points for quality in of_set):
        cells = [f"{quality:g}"]
        for of_set in points:
            point = of_set.get(quality)
            if point is None:
                cells += ["–"] * len(columns)
                continue
            similarity = "–" if point.ms_ssim is None else f"{point.ms_ssim:.4f}"
            its = [f"{point.bpp:.3f}", f"{point.psnr:.2f} dB", similarity]
            cells += its[: len(columns)]
        lines.append(_row(cells))
    return lines


@dataclass(frozen=True, slots=True)
class _Place:
    """What a codec needs for VTM's PSNR on Kodak.

    Attributes:
        name: As the tables call it.
        figure: Percent of bits more than VTM.
        source: "here" is this codec, "here, Pillow" another one that was run, "published" a curve.
    """

    name: str
    figure: float
    source: str


def _places(codecs: Mapping[str, Results]) -> list[_Place]:
    """All codecs whose curves cover the range, from the fewest bits."""
    over = SETS["kodak"].over
    published = published_curves("kodak")
    vtm = published.pop("vtm")
    places = []
    for name, results in codecs.items():
        if _covers(results.curve().psnr, over):
            where = "here" if name in OURS else "here, Pillow"
            figure = bd_rate(results.curve(), vtm, over).value
            places.append(_Place(_title(name), figure, where))
    for name, curve in published.items():
        if _covers(curve.psnr, over):
            places.append(_Place(name, bd_rate(curve, vtm, over).value, "published"))
    return sorted(places, key=lambda place: place.figure)


def _against_vtm(codecs: Mapping[str, Results]) -> list[str]:
    over = SETS["kodak"].over
    lines = [f"Bits for equal PSNR on Kodak against VTM (BD-rate, {over[0]:g}–{over[1]:g} dB):", ""]
    lines += _markdown(["codec", "BD-rate", "measured"])
    for place in _places(codecs):
        shown = f"**{place.name}**" if place.source == "here" else place.name
        lines.append(_row([shown, f"{place.figure:+.1f} %", place.source]))
    return lines


def _ranking(codecs: Mapping[str, Results]) -> list[str]:
    """The same as one line for each source."""
    over, places = SETS["kodak"].over, _places(codecs)
    lines = [
        "More bits than VTM, the reference encoder of H.266, for equal PSNR on Kodak (BD-rate over "
        f"{over[0]:g}–{over[1]:g} dB; less is better):",
        "",
    ]
    for source, title in (
        ("here", "**diveq**"),
        ("here, Pillow", "measured here, by Pillow"),
        ("published", "as published"),
    ):
        figures = [
            f"{place.name} {place.figure:+.1f} %" for place in places if place.source == source
        ]
        if figures:
            lines.append(f"- {title}: {', '.join(figures)}")
    return lines


def _against_anchors(name: str, found: Mapping[str, Mapping[str, Results]]) -> list[str]:
    """BD-rates against what was measured here: of the mean curve, and picture by picture."""
    compared = {}
    for of_set, codecs in found.items():
        if name in codecs:
            rivals = [results for codec, results in codecs.items() if codec in ANCHORS]
            compared[of_set] = compare(codecs[name], rivals, SETS[of_set].over)
    ranges = ", ".join(
        f"{SETS[of_set].title} {SETS[of_set].over[0]:g}–{SETS[of_set].over[1]:g} dB"
        for of_set in compared
    )
    lines = [
        f"{_title(name)} against each: BD-rate of the mean curves (median of the pictures' own, "
        f"pictures won); PSNR over {ranges}:",
        "",
    ]
    head = ["against"]
    for of_set in compared:
        head += [f"{SETS[of_set].title}, PSNR", f"{SETS[of_set].title}, MS-SSIM"]
    lines += _markdown(head)
    for anchor in ANCHORS:
        cells = [anchor]
        for comparisons in compared.values():
            its = next((item for item in comparisons if item.anchor == anchor), None)
            figures = [None, None] if its is None else [its.psnr, its.ms_ssim]
            cells += [_figure(figure) for figure in figures]
        if set(cells[1:]) != {"–"}:
            lines.append(_row(cells))
    return lines


def _figure(figure: Figure | None) -> str:
    """+4.9 % (+3.7 %, 16 of 41)."""
    if figure is None or (figure.delta is None and not figure.of_images):
        return "–"
    mean = "–" if figure.delta is None else f"{figure.delta.value:+.1f} %"
    if not figure.of_images:
        return mean
    return f"{mean} ({figure.median:+.1f} %, {figure.won} of {len(figure.of_images)})"


def _title(name: str) -> str:
    """diveq-e5 -> diveq -e 5, as one would type it."""
    return name.replace("-e", " -e ") if name in OURS else name


def _covers(psnr: Iterable[float], over: Range) -> bool:
    values = list(psnr)
    return min(values) <= over[0] and max(values) >= over[1]


def _markdown(head: Sequence[str]) -> list[str]:
    return [_row(head), "|" + "---|" * len(head)]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _show(row: Row) -> None:
    sys.stderr.write(f"{row.image} q{row.quality:g} {row.bpp:.4f} bpp {row.psnr:.3f} dB\n")


def _refuse(path: Place, error: Exception) -> None:
    raise error


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="code folders of PNG pictures")
    for name, pictures in SETS.items():
        measuring.add_argument(f"--{name}", type=Path, help=f"folder of {pictures.title}")
    names = (*OURS, *(name for name in ANCHORS if anchors.is_installed(name.partition("-")[0])))
    measuring.add_argument("--only", nargs="+", choices=names, default=names)
    measuring.add_argument("--jobs", type=int, default=1, help="processes; times are then worse")
    measuring.add_argument("--resume", type=Path, help="journal of rows, as of diveq eval")
    measuring.add_argument("--threads", type=int, default=0)
    commands.add_parser("table", help="write the tables of README.md and docs/results.md")
    commands.add_parser("plot", help="draw results/SET.png and .svg")
    arguments = parser.parse_args()
    try:
        if arguments.command == "measure":
            _measure_sets(parser, arguments)
        elif arguments.command == "table":
            table(README, FULL, RESULTS)
        else:
            plot(RESULTS)
    except DiveqError as error:
        parser.exit(1, f"Error: {error}\n")


def _measure_sets(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    folders = {name: getattr(arguments, name) for name in SETS if getattr(arguments, name)}
    if not folders:
        parser.error("say where the pictures are: --kodak DIR, --cid22 DIR")
    if arguments.jobs < 1 or arguments.threads < 0:
        parser.error("--jobs and --threads are positive numbers")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with nullcontext() if arguments.resume is None else Journal(arguments.resume) as journal:
        for name, folder in folders.items():
            measure(folder, arguments.only, RESULTS / name, arguments.jobs, journal)


if __name__ == "__main__":
    main()
