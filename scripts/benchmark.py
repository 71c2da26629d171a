"""How long and how much memory compressing takes, as ratios that survive a change of machine.

    python -m scripts.benchmark PICTURE [-m MODEL] [-q QUALITY] [--threads N] [--loaded N]

Warm: the picture is compressed and decompressed with the model loaded, and the shares of the float
networks, the exact prior, the search, the entropy coder and the choice of lossless tiles are
measured. Cold: a whole `python -m diveqcodec compress` against `import torch` alone. Large: the
picture tiled to 6, 12 and 24 megapixels, each in a process of its own: time, seconds of all cores
together, and memory, against the 6 megapixel one. `--loaded N`, instead of all these: compressing
on a machine where N programs keep the cores busy, beside the same without them; with threads that
wait for each other as those of `diveq` do, with threads that spin, and with one.

It prints and measures; it knows nothing that the package does not.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diveqcodec import zoo  # before torch: it says how threads are to wait

# isort: split
import torch

from diveqcodec.codec import Codec
from diveqcodec.container import entropy, lossless, pixelfile
from diveqcodec.errors import DiveqError
from diveqcodec.exact import tile as tilecoder
from diveqcodec.exact import weights
from diveqcodec.exact.prior import FixedPrior
from diveqcodec.image import Picture, load
from diveqcodec.model.dvq import Transforms
from diveqcodec.quality import gain_index

MEGAPIXELS = (6, 12, 24)
REPEATS = 5


def main() -> None:
    """Measure what was asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("-m", "--model", type=Path, help="weights; default: those of `diveq`")
    parser.add_argument("-q", "--quality", type=float, default=50.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--loaded", type=int, metavar="N", help="busy programs beside it")
    parser.add_argument("--megapixels", type=int, nargs="*", default=MEGAPIXELS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        gain_index(options.quality)  # what is no quality is refused before anything is measured
        model, picture = zoo.find(options.model).path, load(options.picture)
    except DiveqError as error:
        parser.exit(1, f"Error: {error}\n")
    height, width = picture.pixels.shape[:2]
    print(f"{options.picture.name}, {width}x{height}, {torch.get_num_threads()} threads")
    if options.loaded:
        print_loaded(options, model)
        return
    print_warm(Codec(weights.load(model), workers=1), picture, options.quality)
    print_cold(options.picture, model)
    print_large(options, model)


def print_warm(codec: Codec, picture: Picture, quality: float) -> None:
    """Seconds of compressing and decompressing, and where they go."""
    data = codec.compress(picture, quality)
    codec.decompress(data)
    actions: dict[str, Callable[[], object]] = {
        "compress": lambda: codec.compress(picture, quality),
        "decompress": lambda: codec.decompress(data),
    }
    print(f"{len(data):,} bytes; warm, median of {REPEATS}; shares from a run that is watched")
    parts = ("networks", "prior", "search", "coder", "choice")
    names = "".join(f"{part:>8}" for part in (*parts[1:], "rest"))
    print(f"{'':12}{'seconds':>9}{'networks':>10}{names}")
    for name, action in actions.items():
        seconds = statistics.median(timed(action) for _ in range(REPEATS))
        total, spent = watched(action)
        shares = [spent[part] / total for part in parts]
        cells = "".join(f"{share:{10 if not i else 8}.0%}" for i, share in enumerate(shares))
        print(f"{name:12}{seconds:9.3f}{cells}{1 - sum(shares):8.0%}")


def timed(action: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def watched(action: Callable[[], object]) -> tuple[float, dict[str, float]]:
    """Seconds of a call, and of its parts, less what other parts took inside of them."""
    targets: list[tuple[Any, str, str]] = [
        (Transforms, "encode_latent", "networks"),
        (Transforms, "decode_latent", "networks"),
        (FixedPrior, "walk", "prior"),
        (tilecoder, "choose", "search"),
        (tilecoder, "choose_pair", "search"),
        (tilecoder.TileCoder, "code", "rest"),
        (entropy.Encoder, "code", "coder"),
        (entropy.Decoder, "code", "coder"),
        (entropy.Encoder, "finish", "coder"),
        (entropy.Decoder, "finish", "coder"),
        (lossless, "is_drawn", "choice"),
        (pixelfile, "is_of_one_colour", "choice"),
    ]
    spent = dict.fromkeys(("networks", "prior", "search", "coder", "choice", "rest"), 0.0)
    running: list[str] = []
    last = time.perf_counter()

    def wrap(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal last
            now = time.perf_counter()
            if running:
                spent[running[-1]] += now - last
            running.append(part)
            last = now
            result = function(*args, **kwargs)
            now = time.perf_counter()
            spent[running.pop()] += now - last
            last = now
            return result

        return wrapper

    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in targets]
    try:
        for owner, name, part in targets:
            setattr(owner, name, wrap(getattr(owner, name), part))
        return timed(action), spent
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)


def print_cold(path: Path, model: Path) -> None:
    """A whole run of the command line against the import that it cannot avoid."""
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / "out.dvq")
        command = [sys.executable, "-m", "diveqcodec", "compress", str(path), "-o", target]
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "diveq compress": [*command, "-f", "-m", str(model)],
        }
        seconds = {}
        for name, arguments in commands.items():
            runs = [timed(lambda a=arguments: run(a)) for _ in range(3)]  # type: ignore[misc]
            seconds[name] = min(runs)
    base = seconds["import torch"]
    print("\ncold, whole processes, best of 3")
    for name, value in seconds.items():
        print(f"{name:16}{value:7.2f} s {value / base:7.2f} times `import torch`")


def run(arguments: list[str]) -> None:
    """Run a command, and stop with its message if it fails."""
    result = subprocess.run(arguments, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{' '.join(arguments[:4])}: {result.stderr.strip()}")


def print_large(options: argparse.Namespace, model: Path) -> None:
    """Time and peak memory of pictures tiled to megapixels, against the first of them."""
    print("\nlarge: seconds and peak memory (above that of the loaded model)")
    print(
        f"{'MP':>4}{'encode':>9}{'decode':>9}{'cores':>9}{'ratio':>7}"
        f"{'MB':>7}{'bytes/pixel':>13}{'ratio':>7}{'MB in all':>11}"
    )
    first: list[float] = []
    context = multiprocessing.get_context("spawn")
    for megapixels in options.megapixels:
        with context.Pool(1) as pool:  # a fresh process: its peak is this picture's
            arguments = (options.picture, model, options.quality, megapixels, options.threads)
            seconds, memory, peak, pixels = json.loads(pool.apply(large, arguments))
        encode, decode, cores = seconds
        now = [cores, memory]
        first = first or now
        print(
            f"{megapixels:4}{encode:9.2f}{decode:9.2f}{cores:9.2f}{now[0] / first[0]:7.2f}"
            f"{memory / 1e6:7.0f}{memory / pixels:13.1f}{now[1] / first[1]:7.2f}{peak / 1e6:11.0f}"
        )


WAITING = {  # what a row is called -> how OpenMP's threads wait, and how many there are
    "as diveq does": ("PASSIVE", None),
    "spinning": ("ACTIVE", None),
    "one thread": ("PASSIVE", 1),
}


def print_loaded(options: argparse.Namespace, model: Path) -> None:
    """Seconds of compressing with idle cores, and with busy programs beside it."""
    print(f"\nloaded: {options.loaded} busy programs; compress, warm, median of {REPEATS}, seconds")
    print(f"{'threads wait':16}{'threads':>8}{'idle':>9}{'loaded':>9}{'ratio':>7}")
    context = multiprocessing.get_context("spawn")
    for name, (policy, threads) in WAITING.items():
        os.environ["OMP_WAIT_POLICY"] = policy  # read by the fresh process when it loads torch
        arguments = (options.picture, model, options.quality, threads or options.threads)
        with context.Pool(1) as pool:
            idle, count = pool.apply(warm, arguments)
            with busy(options.loaded):
                loaded, _ = pool.apply(warm, arguments)
        print(f"{name:16}{count:8}{idle:9.3f}{loaded:9.3f}{loaded / idle:7.1f}")


@contextlib.contextmanager
def busy(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Programs that do nothing but compute, for as long as the block runs."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield running
    finally:
        for one in running:
            one.kill()
            one.wait()


def warm(path: Path, model: Path, quality: float, threads: int | None) -> tuple[float, int]:
    """Seconds of compressing with the model loaded, and the number of threads."""
    if threads:
        torch.set_num_threads(threads)
    codec, picture = Codec(weights.load(model)), load(path)
    codec.compress(picture, quality)
    seconds = statistics.median(
        timed(lambda: codec.compress(picture, quality)) for _ in range(REPEATS)
    )
    return seconds, torch.get_num_threads()


def large(path: Path, model: Path, quality: float, megapixels: int, threads: int | None) -> str:
    """Compress and decompress a tiled picture: JSON of seconds, bytes, bytes in all, pixels."""
    if threads:
        torch.set_num_threads(threads)
    codec = Codec(weights.load(model))
    small = load(path)
    codec.decompress(codec.compress(small, quality))  # warm: libraries keep what they built
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    width = round(megapixels * 1e6 / height)
    h, w = small.pixels.shape[:2]
    pixels = np.empty((height, width, small.pixels.shape[2]), np.uint8)
    for top in range(0, height, h):  # no second array of all pixels: it would count as ours
        for left in range(0, width, w):
            part = pixels[top : top + h, left : left + w]
            part[:] = small.pixels[: part.shape[0], : part.shape[1]]
    picture = Picture(pixels, None, None, None, None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cores = time.process_time()
    start = time.perf_counter()
    data = codec.compress(picture, quality)
    middle = time.perf_counter()
    codec.decompress(data)
    end = time.perf_counter()
    seconds = middle - start, end - middle, time.process_time() - cores
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return json.dumps([seconds, (peak - before) * 1024, peak * 1024, height * width])


if __name__ == "__main__":
    main()
