"""What is run, in which order: what belongs together is together, the cheap before the dear.

`--quick` is the same experiments, smaller: fewer dimensions and sizes, a smaller network, fewer
steps. Its figures are measured as honestly, but of networks that have hardly begun to learn. What
each scale costs is in `costs`; more than half of it is the table of photographs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from diveqcodec.errors import TrainingError
from scripts.reproduction import rates, sources, split, vqvae
from scripts.reproduction.lines import DIVERGED, Lines, Run
from scripts.reproduction.methods import METHODS

SEEDS = (0, 1, 2)
SWEPT = ("diveq", "sf-diveq", "ema", "rotation")
EXPERIMENTS = ("sources", "vqvae", "sweeps", "rates", "split")


def runs(scale: str) -> Iterator[Run]:
    """Every run of a scale, in order."""
    yield from _source_knobs(scale)
    yield from _rates(scale)
    yield from _split(scale)
    if scale == "quick":
        yield from _sources(scale)
    yield from _network_knobs(scale)
    yield from _vqvae(scale, (256,))
    yield from _sweeps(scale)
    if scale == "full":
        yield from _sources(scale)
    yield from _vqvae(scale, () if scale == "quick" else (16, 2048))


def belongs(run: Run) -> str:
    """The experiment that a run is part of, as `--only` names it."""
    return {"vqvae-knob": "vqvae", "sources-knob": "sources"}.get(
        run.experiment, "sweeps" if run.experiment.startswith("sweep") else run.experiment
    )


def execute(run: Run, lines: Lines, train: Path, test: Path) -> dict[str, Any]:
    """Makes one run; learning rates come from the lines of the search.

    Returns:
        What was measured, by name; of a training that ended in NaN or infinity only that it did.
    """
    try:
        result = _execute(run, lines, train, test)
    except TrainingError:  # what a quantizer says of latents that are no numbers
        return {DIVERGED: True}
    figures = [value for value in result.values() if isinstance(value, float)]
    return result if all(map(math.isfinite, figures)) else {DIVERGED: True}


def _execute(run: Run, lines: Lines, train: Path, test: Path) -> dict[str, Any]:
    if run.experiment == "sources-knob":
        return sources.run(run, train, run["knob"])
    if run.experiment == "sources":
        return sources.run(run, train, chosen(lines, run, "sources-knob", "mse"))
    if run.experiment == "rates":
        return rates.run(run, train)
    if run.experiment == "split":
        return split.run(run, train)
    if run.experiment == "vqvae-knob":
        return vqvae.run(run, train, test, run["knob"])
    return vqvae.run(run, train, test, chosen(lines, run, "vqvae-knob", "validation"))


def chosen(lines: Lines, run: Run, search: str, by: str) -> str:
    """The knob with which the method of a run did best in its search; the middle without one."""
    found = [line for line in lines.of(search, method=run["method"]) if line.run.scale == run.scale]
    if not found:
        return "middle"
    knob: str = min(found, key=lambda line: float(line.result.get(by, math.inf))).run["knob"]
    return knob


def _source_knobs(scale: str) -> Iterator[Run]:
    is_quick = scale == "quick"
    for method, knob in product(METHODS, sources.KNOBS):
        yield Run.of(
            "sources-knob", scale, source="gaussian", dim=8, size=128, method=method, seed=0,
            knob=knob, steps=300 if is_quick else 600,
        )  # fmt: skip


def _network_knobs(scale: str) -> Iterator[Run]:
    is_quick = scale == "quick"
    for method, knob in product(METHODS, vqvae.RATES):
        yield Run.of(
            "vqvae-knob", scale, shape="small", size=256, method=method, seed=0, knob=knob,
            batch=16, steps=150 if is_quick else 300,
        )  # fmt: skip


def _vqvae(scale: str, sizes: tuple[int, ...]) -> Iterator[Run]:
    is_quick = scale == "quick"
    for size, seed, method in product(sizes, SEEDS, METHODS):
        yield Run.of(
            "vqvae", scale, shape="small" if is_quick else "large", size=size, method=method,
            seed=seed, batch=16, steps=200 if is_quick else 1000,
        )  # fmt: skip


def _sweeps(scale: str) -> Iterator[Run]:
    is_quick = scale == "quick"
    common: dict[str, Any] = {"shape": "small", "size": 256, "steps": 120 if is_quick else 400}
    rhos: tuple[float | str, ...] = (1.0,) if is_quick else NOISES
    for seed, method in product(SEEDS, SWEPT):
        # Times 1 is the point that all three sweeps go through: batch 16, the noise as published.
        for times in (0.1, 1.0, 10.0) if is_quick else (0.1, 0.3, 1.0, 3.0, 10.0):
            yield Run.of(
                "sweep-rate", scale, **common, method=method, seed=seed, batch=16, times=times
            )
        for batch in (4,) if is_quick else (4, 64):
            yield Run.of("sweep-batch", scale, **common, method=method, seed=seed, batch=batch)
        for rho in rhos if method in ("diveq", "sf-diveq") else ():
            yield Run.of("sweep-rho", scale, **common, method=method, seed=seed, batch=16, rho=rho)


def _rates(scale: str) -> Iterator[Run]:
    is_quick = scale == "quick"
    kinds = ("gaussian",) if is_quick else ("gaussian", "patches")
    dims, sizes = ((2, 8), (6,)) if is_quick else ((2, 4, 8, 16), (6, 8))
    for kind, dim, bits, way, seed in product(kinds, dims, sizes, rates.WAYS, SEEDS):
        yield Run.of(
            "rates", scale, source=kind, dim=dim, bits=bits, way=way, seed=seed,
            steps=300 if is_quick else 1500,
        )  # fmt: skip


def _split(scale: str) -> Iterator[Run]:
    steps = 200 if scale == "quick" else 2000
    rules = [(name, "pair", 1.0) for name in split.SPLITS if name != "diveq"]
    noises: tuple[float | str, ...] = (0.0, 1.0, "inf") if scale == "quick" else NOISES
    more = [("diveq", group, rho) for group, rho in product(("pair", "joint"), noises)]
    for assignment, (name, group, rho), seed in product(
        ("nearest", "rate-aware"), [*rules, *more], SEEDS
    ):
        yield Run.of(
            "split", scale, split=name, group=group, rho=rho, assignment=assignment, seed=seed,
            steps=steps,
        )  # fmt: skip


NOISES: tuple[float | str, ...] = (0.0, 0.3, 1.0, 3.0, "inf")


def _sources(scale: str) -> Iterator[Run]:
    is_quick = scale == "quick"
    kinds = ("gaussian", "patches") if is_quick else ("gaussian", "laplacian", "patches")
    dims = (2, 16) if is_quick else (2, 4, 16, 64)
    sizes = (256,) if is_quick else (16, 256, 2048)
    for dim, size, kind, method, seed in product(dims, sizes, kinds, ("k-means", *METHODS), SEEDS):
        yield Run.of(
            "sources", scale, source=kind, dim=dim, size=size, method=method, seed=seed,
            steps=200 if is_quick else 800,
        )  # fmt: skip
