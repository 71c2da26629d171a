"""What docs/scale.md states: pictures a second and a core, engines, a batch of many pictures.

    python -m scripts.measure_scale PICTURES [-m MODEL] [-q QUALITY] [-n N] [--many N]
                                    [--side PIXELS] [--ray PYTHON] [--only core|engines|batch ...]

PICTURES is a folder of photographs, such as Kodak's. Three measurements, each a Markdown table:

- core: the first N of them, on one thread: from the file to bytes, and back to a PNG file's bytes;
  of each the fastest of three, for whatever else is at work makes it slower.
- engines: what a task costs in Dask, and in Ray where the Python of `--ray` has it
  (`scripts.engine_cost`, each in a process of its own).
- batch: `--many` crops of PIXELS × PIXELS, and some files that are no pictures among them, by
  `diveq compress --cluster local -j 2`. After half of them one of the two workers is killed. The
  table has the rate over time and how much of one core client and scheduler take, which are one
  process there; below it stands what was lost, what was refused, and what a second run with
  `--skip-existing` takes.

Nothing else should be at work on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from diveqcodec import zoo  # before torch: it says how threads are to wait

# isort: split
import torch

from diveqcodec.codec import Codec
from diveqcodec.errors import DiveqError
from diveqcodec.exact import weights
from diveqcodec.folders import files_below
from diveqcodec.image import Picture, load, save
from scripts.engine_cost import Cost

Record = dict[str, object]  # of one picture, as `--json` writes it

PARTS = ("core", "engines", "batch")
BAD = 3  # files of a batch that are no pictures
ROWS = 5  # of the table of rates
WORKERS = 2
REPEATS = 3
_WAYS = ("compress", "decompress", "bytes")
_PER_FOLDER = 1000  # files: folders of millions are slow


def main() -> None:
    """Measure what was asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("-m", "--model", type=Path, help="weights; default: those of `diveq`")
    parser.add_argument("-q", "--quality", type=float, default=35.0)
    parser.add_argument("-n", "--count", type=int, default=24, help="photographs for one core")
    parser.add_argument("--many", type=int, default=10_000, help="crops of the batch")
    parser.add_argument("--side", type=int, default=64, help="of a crop, in pixels")
    parser.add_argument("--tasks", type=int, default=300, help="for the engines")
    parser.add_argument("--ray", default=sys.executable, metavar="PYTHON", help="that has Ray")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    options = parser.parse_args()
    try:
        paths, model = photographs(options.pictures), zoo.find(options.model).path
    except DiveqError as error:
        parser.exit(1, f"Error: {error}\n")
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {model.stem}")
    if "core" in options.only:
        print(core_table(one_core(paths[: options.count], model, options.quality)), flush=True)
    if "engines" in options.only:
        pythons = {"dask": sys.executable, "ray": options.ray}
        found = {name: engine(name, python, options.tasks) for name, python in pythons.items()}
        print(engine_table(found), flush=True)
    if "batch" in options.only:
        with tempfile.TemporaryDirectory() as folder:
            inputs, outputs = Path(folder, "in"), Path(folder, "out")
            bad = crops(paths, inputs, options.many, options.side)
            more = ["-m", str(model), "-q", str(options.quality), "--cluster", "local"]
            command = compressing(inputs, outputs, [*more, "-j", str(WORKERS)])
            print(batch_table(run_batch(command, options.many // 2), options.many, bad))
            written = len(list(outputs.rglob("*.dvq")))
            again = run_batch([*command, "--skip-existing"])
        print(f"{written:,} files written; the same command again with --skip-existing: ", end="")
        print(f"{len(again.records):,} records, {len(again.failed)} errors, {again.seconds:.0f} s")


def photographs(folder: Path) -> list[Path]:
    """The files of a folder, sorted.

    Raises:
        DiveqError: it is none, or empty.
    """
    found = sorted(files_below(folder, lambda error: None))
    if not found:
        raise DiveqError(f"{folder}: has no pictures")
    return found


# One core.


@dataclass(frozen=True, slots=True)
class Coded:
    """One photograph: its pixels, its files' bytes, and seconds both ways."""

    pixels: int
    bytes_in: int
    bytes_out: int
    compress: float
    decompress: float


def one_core(paths: Sequence[Path], model: Path, quality: float) -> list[Coded]:
    """Code photographs with one thread: from the file to bytes, and back to the bytes of a PNG."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        codec = Codec(weights.load(model), workers=1)
        code(codec, paths[0], quality)  # libraries load what they need
        return [fastest([code(codec, path, quality) for _ in range(REPEATS)]) for path in paths]
    finally:
        torch.set_num_threads(threads)


def code(codec: Codec, path: Path, quality: float) -> Coded:
    """Code one."""
    start = time.perf_counter()
    picture: Picture = load(path)
    data = codec.compress(picture, quality)
    middle = time.perf_counter()
    save(codec.decompress(data), BytesIO(), "png")
    end = time.perf_counter()
    pixels = picture.pixels.shape[0] * picture.pixels.shape[1]
    return Coded(pixels, path.stat().st_size, len(data), middle - start, end - middle)


def fastest(tries: Sequence[Coded]) -> Coded:
    """One photograph with the least time of each way."""
    return replace(
        tries[0],
        compress=min(one.compress for one in tries),
        decompress=min(one.decompress for one in tries),
    )


def core_table(found: Sequence[Coded]) -> str:
    """Means over the photographs; the rows that multiply them say so."""
    compress = statistics.mean(one.compress for one in found)
    decompress = statistics.mean(one.decompress for one in found)
    size = statistics.mean(one.bytes_out for one in found)
    pixels = statistics.mean(one.pixels for one in found)
    read = statistics.mean(one.bytes_in for one in found)
    hours = 1e6 / 3600
    rows = (
        (f"{len(found)} pictures of {pixels / 1e6:.2f} MP, {read / 1e6:.2f} MB", *_WAYS),
        ("---", "---", "---", "---"),
        ("a picture, one core", f"{compress:.3f} s", f"{decompress:.3f} s", f"{size:,.0f}"),
        ("a second and a core", f"{1 / compress:.1f}", f"{1 / decompress:.1f}", ""),
        (
            "a million, by arithmetic",
            f"{compress * hours:.0f} core hours",
            f"{decompress * hours:.0f} core hours",
            f"{size / 1e3:.1f} GB",
        ),
    )
    return "\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


# The engines.


def engine(name: str, python: str, tasks: int) -> Cost | None:
    """What `scripts.engine_cost` finds; None if this Python has no such engine.

    Raises:
        SystemExit: it failed otherwise.
    """
    root = Path(__file__).parent.parent
    command = [python, "-m", "scripts.engine_cost", name, "--tasks", str(tasks)]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{name}: {result.stderr.strip()}")
    found: Cost = json.loads(result.stdout.splitlines()[-1])
    return None if "missing" in found else found


def engine_table(found: dict[str, Cost | None]) -> str:
    """Engines side by side."""
    rows = {
        "version": "{version}",
        "start of a local cluster": "{start:.1f} s",
        "memory of it, without work": "{megabytes:.0f} MB in {processes} processes",
        "a task, few at a time: wall, processor": "{wall_ms:.1f} ms, {processor_ms:.1f} ms",
    }
    lines = ["", f"| | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    for label, form in rows.items():
        cells = []
        for cost in found.values():
            if cost is None:
                cells.append("not installed")
                continue
            scaled = {
                "megabytes": float(cost["memory"]) / 1e6,
                "wall_ms": 1e3 * float(cost["wall"]),
                "processor_ms": 1e3 * float(cost["processor"]),
            }
            cells.append(form.format(**cost, **scaled))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


# The batch.


def crops(paths: Sequence[Path], folder: Path, count: int, side: int) -> set[str]:
    """Write crops of photographs as PNG, from places that a seed chooses, and some bad files.

    Returns:
        The names of the bad files.
    """
    generator = np.random.default_rng(0)
    bad = {int(place) for place in np.linspace(count // 3, count - 1, BAD)} if count > BAD else {0}
    names = set()
    opened = [np.asarray(Image.open(path).convert("RGB")) for path in paths[:50]]
    for number in range(count):
        pixels = opened[number % len(opened)]
        top, left = (int(generator.integers(max(1, size - side))) for size in pixels.shape[:2])
        target = folder / f"{number // _PER_FOLDER:03}" / f"{number:07}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = BytesIO()
        Image.fromarray(pixels[top : top + side, left : left + side]).save(stream, "png")
        data = stream.getvalue()
        if number in bad:
            data = data[: len(data) // 2]
            names.add(str(target))
        target.write_bytes(data)
    return names


def compressing(inputs: Path, outputs: Path, more: Sequence[str]) -> list[str]:
    """A command that writes a record for every picture."""
    return [
        *(sys.executable, "-m", "diveqcodec", "compress", str(inputs)),
        *("-o", str(outputs), "--json", "--strict", *more),
    ]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a command did.

    Attributes:
        records: Of the pictures, as they were done.
        times: When each was, in seconds since the start.
        processor: What the command's own process had computed by then, in seconds, at the end of
            each of `ROWS` equal parts and when the first record came.
        seconds: All of it.
        computed: Seconds of the processors, in all processes.
        others: The same of all other programs on the machine.
        killed: Workers that were killed.
        status: The command's exit status.
    """

    records: list[Record]
    times: list[float]
    processor: dict[int, float]
    seconds: float
    computed: float
    others: float
    killed: int
    status: int

    @property
    def failed(self) -> list[str]:
        """Inputs with an error."""
        return [str(record["input"]) for record in self.records if "error" in record]


def run_batch(command: Sequence[str], kill_after: int | None = None) -> Batch:
    """Run a command that writes records to stdout, and watch it.

    Args:
        command: What to run.
        kill_after: When a worker is killed, in records; None: none is.
    """
    import psutil

    records, times = list[Record](), list[float]()
    processor, killed = dict[int, float](), 0
    last, before = 0.0, busy()
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        assert process.stdout is not None
        for line in process.stdout:
            times.append(time.perf_counter() - start)
            records.append(json.loads(line))
            if len(records) == kill_after:
                killed += kill_a_worker(process.pid)
            with contextlib.suppress(psutil.Error):  # it may have ended before it is read
                last = sum(watched.cpu_times()[:2])
            processor[len(records)] = last
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # it is waited for already
    seconds = time.perf_counter() - start
    computed = usage.ru_utime + usage.ru_stime
    others = busy() - before - computed
    return Batch(records, times, processor, seconds, computed, others, killed, process.returncode)


def busy() -> float:
    """Seconds that all processors of the machine have computed, for anybody."""
    import psutil

    found = psutil.cpu_times()
    return float(found.user + found.system + getattr(found, "nice", 0.0))


def kill_a_worker(parent: int) -> int:
    """Kill the worker that has computed most; how many were killed, 0 or 1."""
    import psutil

    workers = [
        process
        for process in psutil.Process(parent).children(recursive=True)
        if "spawn_main" in " ".join(process.cmdline())
    ]
    if not workers:
        return 0
    busiest = max(workers, key=lambda process: sum(process.cpu_times()[:2]))
    os.kill(busiest.pid, signal.SIGKILL)
    return 1


def batch_table(batch: Batch, count: int, bad: set[str]) -> str:
    """The rate over time, the engine's share, and what was lost."""
    done = len(batch.records)
    ends = [round(done * (row + 1) / ROWS) for row in range(ROWS)]
    lines = [
        "",
        f"| of {count:,} pictures | seconds | a second | client and scheduler, of a core |",
        "|---|---|---|---|",
    ]
    last = 1
    for end in ends:
        seconds = batch.times[end - 1] - batch.times[last - 1]
        used = batch.processor[end] - batch.processor[last]
        lines.append(
            f"| {last:,} to {end:,} | {seconds:.1f} | {(end - last) / seconds:.1f} "
            f"| {used / seconds:.0%} |"
        )
        last = end
    seconds = batch.times[-1] - batch.times[0]
    used = (batch.processor[done] - batch.processor[1]) / (done - 1)
    names = [str(record["input"]) for record in batch.records]
    return "\n".join(
        [
            *lines,
            f"\nfirst record after {batch.times[0]:.1f} s, all after {batch.seconds:.1f} s; "
            f"{(done - 1) / seconds:.1f} a second; {batch.computed:.0f} s of the processors, "
            f"{batch.others:.0f} s more in other programs",
            f"client and scheduler: {1e3 * used:.2f} ms of a core a picture, {used * done:.0f} s "
            f"in all; one full core at {1 / used:.0f} pictures a second, by arithmetic",
            f"workers killed: {batch.killed}; records {done:,}, of different pictures "
            f"{len(set(names)):,}; exit status {batch.status}; errors {len(batch.failed)}, "
            f"{'exactly' if set(batch.failed) == bad else 'NOT'} the {len(bad)} damaged files",
        ]
    )


if __name__ == "__main__":
    main()
