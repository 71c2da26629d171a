"""The log of a run as one picture of curves.

Knows the log's lines, nothing of models. matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diveqcodec.atomic import replacing
from diveqcodec.errors import TrainingError

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of `log.jsonl` in the folder of a run; a line cut short at the end is left out.

    Raises:
        TrainingError: there is no such log, or nothing in it.
    """
    path = folder / "log.jsonl"
    try:
        texts = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read; give the folder of a run") from error
    lines = []
    for number, text in enumerate(texts):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            if number + 1 < len(texts):
                raise TrainingError(f"{path}: line {number + 1} is damaged") from error
    if not lines:
        raise TrainingError(f"{path}: is empty; nothing has been logged yet")
    return lines


def plot(folder: Path, target: Path) -> None:
    """Draw loss, bits, PSNR and the use of codebooks over the steps of a run; format by suffix.

    Raises:
        TrainingError: no log, matplotlib is missing, or `target` cannot be written.
    """
    lines = read_log(folder)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TrainingError(
            "plotting needs matplotlib; install it with: pip install matplotlib"
        ) from error
    training = [line for line in lines if not line.get("validation")]
    validation = [line for line in lines if line.get("validation")]
    figure = Figure(figsize=(12, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).flatten()
    for one, title in zip(
        axes,
        (
            "loss",
            "bits a pixel",
            "PSNR (dB)",
            "bits a pixel, by slice",
            "share of null codewords",
            "perplexity of the other codewords",
        ),
        strict=True,
    ):
        one.set_title(title, fontsize=10)
        one.set_xlabel("step", fontsize=9)
        one.grid(alpha=0.3)
    steps = [line["step"] for line in training]
    grey = {"color": "0.7", "linewidth": 1.0, "label": "training"}
    for one, key in zip(axes, ("loss", "bpp", "psnr"), strict=False):
        if all(key in line for line in training):
            one.plot(steps, [line[key] for line in training], **grey)
    _draw_validation(axes, validation)
    _draw_parts(axes[3:], training, steps)
    axes[1].set_yscale("log")
    axes[3].set_yscale("log")
    for one in axes[[0, 3]]:
        if one.get_legend_handles_labels()[0]:
            one.legend(fontsize=8, framealpha=0.6)
    try:
        with replacing(target) as temporary:
            figure.savefig(temporary, format=target.suffix[1:] or "png", dpi=100)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TrainingError(f"{target}: plot not written ({reason})") from error


def _draw_validation(axes: Any, lines: list[dict[str, Any]]) -> None:
    """A line a trade-off, for loss, bits and PSNR."""
    steps = [line["step"] for line in lines]
    lambdas = [k for k in (lines[0] if lines else {}) if k.replace(".", "").isdigit()]
    for lam, colour in zip(lambdas, _COLOURS, strict=False):
        for one, key in zip(axes, ("loss", "bpp", "psnr"), strict=False):
            values = [line[lam][key] for line in lines]
            one.plot(steps, values, marker=".", color=colour, label=f"validation, λ = {lam}")


def _draw_parts(axes: Any, lines: list[dict[str, Any]], steps: list[int]) -> None:
    """A line a slice: bits, null share, perplexity."""
    for number in range(len(lines[0]["slices"]) if lines else 0):
        parts = [line["slices"][number] for line in lines]
        style = {"color": _COLOURS[number % len(_COLOURS)], "label": f"slice {number}"}
        for one, key in zip(axes, ("bpp", "null", "perplexity"), strict=False):
            one.plot(steps, [part[key] for part in parts], **style)
