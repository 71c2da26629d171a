"""The page's plots, drawn from the lines: PNG files beside them."""

from __future__ import annotations

import statistics
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from scripts.reproduction import tables  # noqa: E402
from scripts.reproduction.lines import Line
from scripts.reproduction.methods import METHODS, TITLES  # noqa: E402
from scripts.reproduction.tables import Spread, Stores  # noqa: E402

# Ten colours for eleven methods, and lines that coincide: a marker of its own for each.
COLOURS = {method: f"C{number}" for number, method in enumerate(METHODS)}
COLOURS |= {"gumbel": "black", "bsq": "gold"}
MARKERS = dict(zip(METHODS, "osv^D<>Px*h", strict=True))


def draw(stores: Stores, folder: Path) -> list[str]:
    """Writes the plots that the lines allow, deletes the others; returns their names."""
    names = []
    for name, plot in (("vqvae", _vqvae), ("use", _use), ("sources", _sources)):
        figure, axes = pyplot.subplots(figsize=(7.5, 4.2), layout="constrained")
        if plot(axes, stores):
            axes.grid(alpha=0.3)
            axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
            figure.savefig(folder / f"{name}.png", dpi=90, metadata={"Software": None})
            names.append(name)
        else:  # of lines that are no more
            (folder / f"{name}.png").unlink(missing_ok=True)
        pyplot.close(figure)
    return names


def _whole(lines: list[Line]) -> list[Line]:
    """Without the trainings that diverged, which have nothing to be drawn."""
    return [line for line in lines if not line.has_diverged]


def _vqvae(axes: Axes, stores: Stores) -> bool:
    """PSNR over entropy-coded rate, every K that is whole; bars span the seeds."""
    is_drawn = False
    for method in METHODS:
        points = []
        for size in (16, 256, 2048):
            rows = [{"method": name, "size": size} for name in METHODS]
            found = tables.seeded(stores, "vqvae", rows)
            if found:
                lines = _whole(found[1][METHODS.index(method)])
            if found and lines:
                points.append((Spread.of(lines, "bpp_coded"), Spread.of(lines, "psnr")))
        if points:
            is_drawn = True
            axes.errorbar(
                [rate.mean for rate, _ in points],
                [psnr.mean for _, psnr in points],
                yerr=[
                    [psnr.mean - psnr.low for _, psnr in points],
                    [psnr.high - psnr.mean for _, psnr in points],
                ],
                marker=MARKERS[method], capsize=3, label=TITLES[method], color=COLOURS[method],
            )  # fmt: skip
    axes.set(xlabel="bits a pixel, entropy coded with a static table", ylabel="PSNR, dB")
    return is_drawn


def _use(axes: Axes, stores: Stores) -> bool:
    """Perplexity of the indices over training steps at the largest K that is whole."""
    for size in (2048, 256, 16):
        rows = [{"method": name, "size": size} for name in METHODS]
        found = tables.seeded(stores, "vqvae", rows)
        if found:
            break
    else:
        return False
    for method, lines in zip(METHODS, found[1], strict=True):
        own = _whole(lines)
        if not own:
            continue
        paths = [line.result["use"] for line in own]
        steps = [look[0] for look in paths[0]]
        share = [
            statistics.fmean(path[row][2] for path in paths) / own[0].result["codewords"]
            for row in range(len(steps))
        ]
        axes.plot(steps, share, marker=MARKERS[method], label=TITLES[method], color=COLOURS[method])
    axes.set(
        xlabel="step", ylabel="perplexity / number of points",
        title=f"Codebook use in training, K = {size} ({found[0]})",
    )  # fmt: skip
    return True


def _sources(axes: Axes, stores: Stores) -> bool:
    """Error above k-means over D, mean of the sources and K that are whole."""
    scale = "full" if tables.cells(stores["full"]) else "quick"
    whole = tables.cells(stores[scale])
    dims = sorted({cell[1] for cell in whole})
    for method in METHODS:
        gaps = [
            statistics.fmean(
                tables.gap(stores[scale], method, cell).mean for cell in whole if cell[1] == dim
            )
            for dim in dims
        ]
        axes.plot(
            dims, gaps, marker=MARKERS[method], fillstyle="none", label=TITLES[method],
            color=COLOURS[method],
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_ylim(-3, 5)
    axes.set(xlabel="D", ylabel="dB above k-means", title=f"Sources, mean over K ({scale})")
    return bool(whole)
