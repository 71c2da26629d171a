"""The claims of the DiVeQ paper, measured: every quantizer of this library, by one command.

    python scripts/reproduce.py --train PHOTOS --test KODAK --quick       ten minutes of one core
    python scripts/reproduce.py --train PHOTOS --test KODAK               five to eight core hours
    python scripts/reproduce.py --train PHOTOS --test KODAK --hours 0.5   a piece of that
    python scripts/reproduce.py --page       docs/quantizers.md and its plots from the lines alone

Every run is one line of results/quantizers/quick.jsonl or full.jsonl, and what has a line is not
run again. The page is written anew after every call. One thread is used. The times are a
processor's, by how wide its vectors are: beside other work the clock shows more (`--hours` counts
the clock's).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # `python scripts/reproduce.py` does not put the root there

from diveqcodec.errors import DiveqError  # noqa: E402
from scripts.reproduction import page, photos, plan  # noqa: E402
from scripts.reproduction.lines import Line, Lines, Run  # noqa: E402

RESULTS, PAGE = ROOT / "results" / "quantizers", ROOT / "docs" / "quantizers.md"


def measure(
    scale: str, only: Sequence[str], hours: float, train: Path, test: Path, lines: Lines
) -> int:
    """Makes the runs that have no line yet, until they are done or the hours are over.

    Returns:
        How many are left.
    """
    for folder in (train, test):
        photos.look_into(folder)
    pending = [
        run for run in plan.runs(scale) if plan.belongs(run) in only and run not in lines.by_run
    ]
    begun = time.monotonic()
    for number, run in enumerate(pending):
        if time.monotonic() - begun >= 3600 * hours:
            return len(pending) - number
        start, worked = time.monotonic(), time.process_time()
        result = plan.execute(run, lines, train, test)
        line = Line(run, result, time.monotonic() - start, time.process_time() - worked)
        lines.add(line)
        _show(number + 1, len(pending), run, line.seconds)
    return 0


def _hours(text: str) -> float:
    hours = float(text)
    if not hours >= 0:  # NaN neither
        raise ValueError
    return hours


def _show(number: int, total: int, run: Run, seconds: float) -> None:
    words = " ".join(f"{name}={value}" for name, value in run.settings if name != "steps")
    print(f"{number}/{total} {run.experiment} {words} ({seconds:.1f} s)", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, metavar="DIR", help="photographs to train on")
    parser.add_argument("--test", type=Path, metavar="DIR", help="photographs to judge on")
    parser.add_argument("--quick", action="store_true", help="ten minutes instead of hours")
    parser.add_argument(
        "--hours", type=_hours, default=math.inf, help="stop cleanly after so long by the clock"
    )
    parser.add_argument("--only", nargs="+", choices=plan.EXPERIMENTS, default=plan.EXPERIMENTS)
    parser.add_argument("--page", action="store_true", help="only write the page from the lines")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        stores = {scale: Lines(RESULTS / f"{scale}.jsonl") for scale in ("quick", "full")}
        left = 0
        if not options.page:
            if not options.train or not options.test:
                parser.error("name both folders of photographs: --train DIR --test DIR")
            scale = "quick" if options.quick else "full"
            folders = options.train, options.test
            try:
                left = measure(scale, options.only, options.hours, *folders, stores[scale])
            finally:
                page.write(stores, PAGE, RESULTS)
        else:
            page.write(stores, PAGE, RESULTS)
    except KeyboardInterrupt:
        print("stopped; what is done is kept, the same command goes on", file=sys.stderr)
        return 130
    except DiveqError as error:
        print(error, file=sys.stderr)
        return 1
    if left:
        print(f"{left} runs are left: the same command goes on", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
