"""docs/quantizers.md: what stands between its markers is written anew from the lines.

<!-- generated: vqvae -->  ...  <!-- end -->
"""

from __future__ import annotations

import re
from pathlib import Path

from diveqcodec.errors import DiveqError
from scripts.reproduction import plots, tables, verdicts
from scripts.reproduction.costs import hours
from scripts.reproduction.plan import runs
from scripts.reproduction.tables import Stores

_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write(stores: Stores, page: Path, results: Path) -> None:
    """Writes the generated parts of the page, and the plots into `results`.

    Raises:
        DiveqError: the page lacks, or has an unknown, generated part.
    """
    text = page.read_text("utf-8")
    made = parts(stores)
    found = {match[2] for match in _PART.finditer(text)}
    if found != made.keys():
        raise DiveqError(
            f"{page}: generated parts {sorted(found)}; it needs {sorted(made)}, each between "
            "<!-- generated: NAME --> and <!-- end -->"
        )
    written = _PART.sub(lambda m: f"{m[1]}{_block(made[m[2]])}{m[3]}", text)
    results.mkdir(parents=True, exist_ok=True)
    plots.draw(stores, results)
    if written != text:
        page.write_text(written, "utf-8")


def parts(stores: Stores) -> dict[str, list[str]]:
    """Every generated part by name, as lines of text."""
    networks = [line for size in (16, 256, 2048) for line in tables.vqvae(stores, size)]
    if networks:
        networks += [*_image("PSNR over rate", "vqvae"), *_image("Codebook use over steps", "use")]
    alone = tables.sources(stores)
    if alone:
        alone += _image("Error above k-means", "sources")
    return {
        "extent": extent(stores),
        "verdicts": verdicts.table(stores),
        "vqvae": networks,
        "sources": alone,
        "choices": tables.choices(stores),
        "rates": tables.rates(stores),
        "sweeps": tables.sweeps(stores),
        "split": tables.split(stores),
    }


def extent(stores: Stores) -> list[str]:
    """How much of each scale has been run, and the processor's time: measured and expected."""
    rows = []
    for scale, lines in stores.items():
        planned = list(runs(scale))
        done = [lines.by_run[run] for run in planned if run in lines.by_run]
        timed = {line.run: line.processor_seconds for line in done if line.processor_seconds}
        rows.append(
            [
                scale,
                f"{len(done)} of {len(planned)}",
                f"{sum(timed.values()) / 3600:.2f} for {len(timed)} runs",
                f"{hours(list(timed)):.2f}",
                f"{hours(planned):.2f}",
            ]
        )
    head = ["scale", "runs done", "processor hours measured", "expected for these"]
    return [*tables.markdown([*head, "expected for all"], rows), ""]


def _image(text: str, name: str) -> list[str]:
    return [f"![{text}](../results/quantizers/{name}.png)", ""]


def _block(lines: list[str]) -> str:
    return "\n".join(["", *(lines or ["Not measured yet.", ""])]) + "\n"
