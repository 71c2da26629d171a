"""Rate-distortion curves as a picture (PNG, SVG or PDF).

Draws with matplotlib's non-interactive canvas and touches no global state of it. Knows only
curves. Each curve carries its name at its right end, in its own colour: no legend box to look up.
"""

import io
import itertools
import logging
import statistics
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diveqcodec.atomic import replacing
from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.curves import Curve, Metric
from diveqcodec.evaluate.libraries import import_library
from diveqcodec.evaluate.offered import PLOT_SUFFIXES

log = logging.getLogger(__name__)

_EMPHASIS = ("#c8102e", "#e8730c", "#8f1d6b")
# Muted: thin lines that step back behind the emphasised ones, told apart by hue and lightness.
_MUTED = (
    "#2f5f93",
    "#4c8f5a",
    "#8a6a34",
    "#6f6f6f",
    "#6a4fa0",
    "#2b8a8a",
    "#a5628a",
    "#8f9031",
    "#4f9fd0",
    "#9c7fc4",
    "#404a63",
    "#6fa64a",
)
_AXIS_TITLE = {"psnr": "PSNR-RGB (dB)", "ms-ssim": "MS-SSIM (dB), −10 log₁₀(1 − MS-SSIM)"}


@dataclass(frozen=True, slots=True)
class PlotOptions:
    """How to draw.

    Attributes:
        title: Above the axes, empty for none.
        metric: The vertical axis.
        emphasised: Names of the curves to draw on top, thick and in strong colours.
        rates: The shown range in bits per pixel; None takes that of the emphasised curves.
    """

    title: str = ""
    metric: Metric = "psnr"
    emphasised: Collection[str] = ()
    rates: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class _Series:
    """The points of a curve that can be drawn, as arrays."""

    name: str
    rates: Any
    values: Any


@dataclass(frozen=True, slots=True)
class _Frame:
    """The shown rates in bits per pixel, and the shown distortions in dB."""

    low: float
    high: float
    bottom: float
    top: float


@dataclass(slots=True)
class _Label:
    """A curve's name, its last visible point (x, y), and the height it would like to have."""

    text: str
    colour: str
    is_bold: bool
    x: float
    y: float
    wanted: float


def plot_curves(curves: Sequence[Curve], path: Path, options: PlotOptions | None = None) -> None:
    """Draw the curves into a file whose suffix gives the format, making its folders.

    A curve that has nothing in the frame is left out, and a warning is logged.

    Raises:
        DiveqError: Nothing to draw, an unknown suffix, matplotlib missing, or an unwritable file.
    """
    data = plot_bytes(curves, path, options)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise DiveqError(f"{path}: cannot write the plot: {error.strerror}") from error


def plot_bytes(curves: Sequence[Curve], path: Path, options: PlotOptions | None = None) -> bytes:
    """What such a file holds; nothing is written.

    Raises:
        DiveqError: Nothing to draw, an unknown suffix, or matplotlib missing.
    """
    suffix = path.suffix.lower()
    if suffix not in PLOT_SUFFIXES:
        raise DiveqError(f"{path}: plots are written as {', '.join(PLOT_SUFFIXES)}")
    stream = io.BytesIO()
    with _style():
        figure = _figure(curves, options or PlotOptions(), f"{path}: ")
        figure.savefig(stream, format=suffix[1:], dpi=160, metadata=_metadata(suffix))
    return stream.getvalue()


def plot_svg(curves: Sequence[Curve], options: PlotOptions | None = None) -> str:
    """The same as the text of an SVG file.

    Raises:
        DiveqError: Nothing to draw, or matplotlib is missing.
    """
    stream = io.StringIO()
    with _style():
        figure = _figure(curves, options or PlotOptions())
        figure.savefig(stream, format="svg", metadata=_metadata(".svg"))
    return stream.getvalue()


def check_library() -> None:
    """See that plots can be drawn, before hours of work for one.

    Raises:
        DiveqError: matplotlib is missing.
    """
    import_library("matplotlib.figure", "matplotlib")


def _style() -> AbstractContextManager[None]:
    """Text stays text, and the same curves give the same file."""
    matplotlib: Any = import_library("matplotlib", "matplotlib")
    settings = {"svg.fonttype": "none", "svg.hashsalt": "diveqcodec"}
    style: AbstractContextManager[None] = matplotlib.rc_context(settings)
    return style


def _figure(curves: Sequence[Curve], options: PlotOptions, where: str = "") -> Any:
    """The curves as a figure of matplotlib; `where` begins what is raised."""
    series = [_finite(curve, options.metric) for curve in curves]
    measured = [line for line in series if line.rates.size]
    if not measured:
        raise DiveqError(f"{where}no curve has {options.metric} to draw")
    rates = options.rates or _shown_rates(measured, options.emphasised)
    frame = _frame(measured, rates, options.emphasised)
    if frame is None:
        raise DiveqError(f"{where}no curve has a point from {rates[0]:g} to {rates[1]:g} bpp")
    shown = [line for line in measured if _is_inside(line, frame)]
    for line in series:
        if all(line is not drawn for drawn in shown):
            log.warning("%s: not in the plot, for it has nothing where it is drawn", line.name)
    figures: Any = import_library("matplotlib.figure", "matplotlib")
    figure = figures.Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.add_subplot()
    colours = _colours([line.name for line in shown], options.emphasised)
    labels = [
        _draw(axes, line, frame.high, colour, line.name in options.emphasised)
        for line, colour in zip(shown, colours, strict=True)
    ]
    _dress(axes, frame, options)
    _place_labels(axes, labels)
    return figure


def _finite(curve: Curve, metric: Metric) -> _Series:
    """The points that can be drawn."""
    rates, values = np.array(curve.bpp), np.array(curve.distortion(metric))
    is_finite = np.isfinite(values)
    return _Series(curve.name, rates[is_finite], values[is_finite])


def _shown_rates(series: Sequence[_Series], emphasised: Collection[str]) -> tuple[float, float]:
    """From zero to a little beyond the highest rate of what the plot is about (else the median)."""
    rates = [float(line.rates[-1]) for line in series if line.name in emphasised]
    if rates:
        return 0.0, 1.06 * max(rates)
    return 0.0, 1.06 * statistics.median(float(line.rates[-1]) for line in series)


def _frame(
    series: Sequence[_Series], rates: tuple[float, float], emphasised: Collection[str]
) -> _Frame | None:
    """What is shown of the curves at these rates; None if there are none.

    The top is that of all curves. The bottom is that of the emphasised ones, if there are any: what
    an anchor does below them matters to nobody.
    """
    edges = [(line.name, value) for line in series for value in _edges(line, *rates)]
    if not edges:
        return None
    top = max(value for _, value in edges)
    strong = [value for name, value in edges if name in emphasised]
    bottom = min(strong or [value for _, value in edges])
    margin = 0.05 * ((top - bottom) or 1)
    return _Frame(*rates, bottom - margin, top + margin)


def _is_inside(line: _Series, frame: _Frame) -> bool:
    return any(value >= frame.bottom for value in _edges(line, frame.low, frame.high))


def _edges(line: _Series, low: float, high: float) -> tuple[float, ...]:
    """The curve's heights where it enters and leaves a range of rates; none if it is outside."""
    rates = line.rates
    if rates[0] > high or rates[-1] < low:
        return ()
    ends = (max(low, rates[0]), min(high, rates[-1]))
    return tuple(float(np.interp(end, rates, line.values)) for end in ends)


def _colours(names: Sequence[str], emphasised: Collection[str]) -> list[str]:
    """A colour for every curve; the strong and the muted ones are dealt out separately."""
    strong, muted = itertools.cycle(_EMPHASIS), itertools.cycle(_MUTED)
    return [next(strong if name in emphasised else muted) for name in names]


def _draw(axes: Any, line: _Series, high: float, colour: str, is_bold: bool) -> _Label:
    """A line with its points; returns the label for its right end."""
    rates, values = line.rates, line.values
    axes.plot(
        rates,
        values,
        color=colour,
        linewidth=2.4 if is_bold else 1.1,
        marker="o",
        markersize=5 if is_bold else 2.5,
        zorder=3 if is_bold else 2,
    )
    end = min(high, float(rates[-1]))
    y = float(np.interp(end, rates, values))
    # A curve that ends early has its name where its last segment, straight over log rate, would
    # reach the margin: the leader then follows its neighbours instead of crossing them.
    slope = 0.0
    if end < high and rates.size > 1:
        slope = float((values[-1] - values[-2]) / np.log(rates[-1] / rates[-2]))
    return _Label(line.name, colour, is_bold, end, y, y + slope * float(np.log(high / end)))


def _dress(axes: Any, frame: _Frame, options: PlotOptions) -> None:
    """Limits, grid and titles."""
    axes.set_xlim(frame.low, frame.high)
    axes.set_ylim(frame.bottom, frame.top)
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel(_AXIS_TITLE[options.metric])
    if options.title:
        axes.set_title(options.title, loc="left", fontsize=11)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _place_labels(axes: Any, labels: list[_Label]) -> None:
    """Names in the right margin, top to bottom as the curves end, spread so that none overlap."""
    bottom, top = axes.get_ylim()
    left, right = axes.get_xlim()
    # One line of text is 4 % of the height of the axes at this size.
    spacing = min(0.04, 1 / max(1, len(labels) - 1)) * (top - bottom)
    labels.sort(key=lambda label: label.wanted)
    heights = _spread([label.wanted for label in labels], spacing, bottom, top)
    margin = right + 0.05 * (right - left)
    for label, height in zip(labels, heights, strict=True):
        axes.annotate(
            label.text,
            xy=(label.x, label.y),
            xytext=(margin, height),
            color=label.colour,
            fontsize=8.5,
            fontweight="bold" if label.is_bold else "normal",
            verticalalignment="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": label.colour,
                "linestyle": ":",
                "linewidth": 0.8,
                "alpha": 0.7,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def _spread(wanted: Sequence[float], spacing: float, bottom: float, top: float) -> list[float]:
    """Heights in [bottom, top], at least `spacing` apart, nearest to the wanted ones.

    `wanted` rises: [1, 1.2, 5], spacing 1 in 0..10 -> [0.6, 1.6, 5]. Less one spacing a place the
    heights need only not fall, so least squares is pooling of neighbours that do (isotonic
    regression).
    """
    pools: list[tuple[float, int]] = []  # mean, how many
    for place, value in enumerate(wanted):
        mean, count = value - place * spacing, 1
        while pools and pools[-1][0] > mean:
            before, more = pools.pop()
            mean, count = (mean * count + before * more) / (count + more), count + more
        pools.append((mean, count))
    ceiling = top - (len(wanted) - 1) * spacing
    flat = [min(max(mean, bottom), ceiling) for mean, count in pools for _ in range(count)]
    return [value + place * spacing for place, value in enumerate(flat)]


def _metadata(suffix: str) -> dict[str, None] | None:
    """No date in the file, so that drawing again changes nothing."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)
