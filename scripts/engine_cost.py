"""What a task costs in an engine of many machines: Dask as `--cluster` uses it, or Ray.

    python -m scripts.engine_cost dask|ray [--tasks N]

Starts two local workers, gives them N tasks that do nothing, a few at a time, and then the same N
tasks once more, which are the ones measured. Prints one JSON object: the version, seconds of the
start, memory of all processes while nothing is done (what they share is shared out), the number of
processes, and seconds a task: of the clock, and of the processors in client and scheduler, that is
in all processes but the workers. Where the engine is not installed the object says that alone.

Needs nothing of the package for Ray, so that another Python may run it: what installs Ray need not
hold torch.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

WORKERS = 2
_WORKER = ("spawn_main", "default_worker.py", "ray::")  # in the command line of one

Run = Callable[[int], None]  # does so many tasks
Cost = dict[str, float | str]


def main() -> None:
    """Measure one engine and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=("dask", "ray"))
    parser.add_argument("--tasks", type=int, default=300)
    options = parser.parse_args()
    try:
        found = measured({"dask": dask, "ray": ray}[options.engine], options.engine, options.tasks)
    except ImportError as error:
        found = {"missing": error.name or str(error)}
    print(json.dumps(found))


def measured(
    engine: Callable[[], contextlib.AbstractContextManager[Run]], name: str, tasks: int
) -> Cost:
    """Start an engine, let it work, and say what that took: seconds, bytes, counts.

    Raises:
        ImportError: it is not installed, or psutil is not.
    """
    start = time.perf_counter()
    with engine() as run:
        started = time.perf_counter() - start
        run(tasks)  # workers load what they need with their first tasks
        before, start = processors(), time.perf_counter()
        run(tasks)
        wall, used = time.perf_counter() - start, processors() - before
        memory, processes = memory_of_all()
    return {
        "version": importlib.metadata.version({"dask": "distributed"}.get(name, name)),
        "start": started,
        "memory": memory,
        "processes": processes,
        "wall": wall / tasks,
        "processor": used / tasks,
    }


@contextlib.contextmanager
def dask() -> Iterator[Run]:
    """Dask, by what hands the pictures of a batch out."""
    from diveqcodec.cluster import connected
    from diveqcodec.processes import Died

    with connected("local", WORKERS) as cluster:

        def run(tasks: int) -> None:
            done = [result for _, result in cluster.map(nothing, range(tasks))]
            assert len(done) == tasks
            assert not any(isinstance(result, Died) for result in done)

        yield run


@contextlib.contextmanager
def ray() -> Iterator[Run]:
    """Ray, with as many tasks at a time as the other."""
    import ray

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else it leaves a token in the home folder
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    task = ray.remote(nothing)

    def run(tasks: int) -> None:
        waiting, running, done = iter(range(tasks)), list[Any](), 0
        while done < tasks:
            while len(running) < 2 * WORKERS and (one := next(waiting, None)) is not None:
                running.append(task.remote(one))
            finished, running = ray.wait(running, num_returns=1)
            done += len(ray.get(finished))

    try:
        yield run
    finally:
        ray.shutdown()


def nothing(number: int) -> int:
    """A task."""
    return number


def processors() -> float:
    """Seconds that this process and those below it have computed, without the workers."""
    import psutil

    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            if not any(word in " ".join(process.cmdline()) for word in _WORKER):
                used = process.cpu_times()
                total += used.user + used.system
    return total


def memory_of_all() -> tuple[int, int]:
    """Bytes of this process and all below it, and how many they are."""
    import psutil

    sizes = []
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            found = process.memory_full_info()
            sizes.append(getattr(found, "pss", found.rss))
    return sum(sizes), len(sizes)


if __name__ == "__main__":
    main()
