"""Many things done by the workers of a Dask cluster, on many machines or as a local one.

What is handed out is a window of a few things a worker, so neither scheduler nor network is
loaded with millions of them. A worker that dies costs nothing: the scheduler hands its things to
others; what has met several deaths is tried once more with nothing beside it, and given up if that
kills too. Knows nothing of what is done.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, Final, TypeVar

from diveqcodec.errors import DiveqError, said
from diveqcodec.processes import Died
from diveqcodec.scheduler import LOCAL, arguments, client_of

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")

_AHEAD: Final = 2  # things handed out for every thread of the workers
_WAITING: Final = 60.0  # seconds for the first worker to come; a machine may have to start for it
_PATIENCE: Final = 5.0  # seconds without a result after which the workers are counted again
_LOCAL_DEATHS: Final = 1  # that one thing may meet beside others; Dask's own 3 cost a start each


class Cluster:
    """A connection to a cluster; results come as they are done.

    Args:
        client: Dask's.
        address: As messages call it.
        revive: Called when there are fewer workers than there were; starts others, if it can.
    """

    def __init__(
        self, client: Client, address: str, revive: Callable[[], object] | None = None
    ) -> None:
        self._client = client
        self._address = address
        self._revive = revive or (lambda: None)
        self._threads = self._most = 0
        self._counted = -math.inf  # when that was
        self._checked = set[str]()  # addresses of workers
        self._missing: float | None = None  # since when there are none

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R | Died]]:
        """As `Engine.map`.

        Raises:
            DiveqError: the scheduler is gone, or the workers do not have what `function` needs.
        """
        suspects: list[T] = []
        for item, result in self._each(function, items):
            if isinstance(result, Died):  # it may have been killed by what was beside it
                suspects.append(item)
            else:
                yield item, result
        yield from self._each(function, suspects, 1)

    def _each(
        self, function: Callable[[T], R], items: Iterable[T], most: int | None = None
    ) -> Iterator[tuple[T, R | Died]]:
        """Do all, `most` of them at a time; by default as the workers have room."""
        from concurrent.futures import CancelledError

        import distributed

        waiting, running, is_all = iter(items), dict[Any, T](), False
        while running or not is_all:
            threads = self._count()
            room = (_AHEAD * threads if most is None else most) - len(running)
            pulled = list(itertools.islice(waiting, max(0, room)))
            is_all = len(pulled) < room
            running |= {self._submitted(function, one): one for one in pulled}
            if not threads:
                self._check_patience()
            if not running and not is_all:
                time.sleep(_PATIENCE)
            # what was cancelled is told as the result of each
            with (
                self._asking(),
                contextlib.suppress(TimeoutError, distributed.TimeoutError, CancelledError),
            ):
                distributed.wait(list(running), timeout=_PATIENCE, return_when="FIRST_COMPLETED")
            for future in [one for one in running if one.done()]:
                yield running.pop(future), self._result(future)

    def _check_patience(self) -> None:
        """Whether workers may still come.

        Raises:
            DiveqError: those of this machine do not, and nobody else will start any.
        """
        is_local = self._address == LOCAL
        if is_local and self._missing and time.monotonic() - self._missing > _WAITING:
            raise DiveqError(
                f"--cluster {LOCAL}: its workers die as soon as they start; there may be too "
                "little memory, try a smaller -j"
            )

    def _submitted(self, function: Callable[[T], R], item: T) -> Future:
        """Hand one thing out.

        Raises:
            DiveqError: the scheduler is gone.
        """
        with self._asking():
            return self._client.submit(function, item, pure=False)

    def _result(self, future: Future) -> Any:
        """What became of one thing.

        Raises:
            DiveqError: as `map`.
            Exception: what the function raised.
        """
        from distributed.scheduler import KilledWorker

        try:
            with self._asking():
                return future.result()
        except KilledWorker as error:
            where = getattr(error.last_worker, "address", "one")
            return Died(
                f"the workers at work on it died, the last at {where}; there may be too little "
                "memory"
            )
        except (ImportError, AttributeError) as error:
            raise DiveqError(
                f"--cluster {self._address}: a worker cannot do this ({error}); install the same "
                "diveqcodec on all machines"
            ) from error

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Around what is asked of Dask's client, which may close at any time.

        Raises:
            DiveqError: the scheduler is gone.
        """
        from concurrent.futures import CancelledError

        from distributed.client import ClosedClientError, FutureCancelledError

        try:
            yield
        except (
            CancelledError,
            FutureCancelledError,
            ClosedClientError,
            OSError,
            RuntimeError,  # the client's event loop, which ends soon after it
        ) as error:
            if isinstance(error, OSError | RuntimeError) and self._is_connected():
                raise
            raise self._gone() from error

    def _gone(self) -> DiveqError:
        return DiveqError(
            f"--cluster {self._address}: the scheduler is gone; start it, and go on with "
            "--skip-existing, or --resume of eval"
        )

    def _check_new(self, workers: list[str]) -> None:
        """Ask for this package: a worker without it dies of the first thing it is given.

        Raises:
            DiveqError: it is not there, or not where the scheduler is, which looks at things too.
        """
        if not workers:
            return
        package = __name__.partition(".")[0]
        found = self._client.run(find_spec, package, workers=workers, on_error="return")
        if not self._checked:
            found["scheduler"] = self._client.run_on_scheduler(find_spec, package)
        for where, spec in found.items():
            if spec is None:
                who = where if where == "scheduler" else f"worker {where}"
                raise DiveqError(
                    f"--cluster {self._address}: the {who} has no {package}; install the same on "
                    "all machines"
                )
        self._checked.update(found)

    def _is_connected(self) -> bool:
        return bool(self._client.status == "running")

    def _count(self) -> int:
        """How many threads the workers have, now and then counted."""
        if time.monotonic() - self._counted > _PATIENCE and self._is_connected():
            before = self._threads
            # a scheduler that is gone just now, and perhaps comes back
            with self._asking(), contextlib.suppress(OSError):
                workers = self._client.nthreads()
                self._check_new([one for one in workers if one not in self._checked])
                self._threads = sum(workers.values())
            self._counted = time.monotonic()
            self._most = max(self._most, self._threads)
            self._missing = None if self._threads else self._missing or self._counted
            if self._threads < self._most:
                self._revive()
            if before and not self._threads:
                log.warning("--cluster %s: no worker is left; waiting for one", self._address)
        return self._threads


@contextlib.contextmanager
def connected(address: str, workers: int | None = None) -> Iterator[Cluster]:
    """A cluster, as long as it is needed.

    Args:
        address: Of its scheduler, see `check_address`; `local` starts workers on this machine.
        workers: How many of those; by default one for each core.

    Raises:
        DiveqError: Dask is not installed, no scheduler answers, or it has no workers.
    """
    try:
        import dask
        import distributed
    except ImportError as error:
        raise DiveqError("--cluster needs Dask: pip install 'diveqcodec[cluster]'") from error
    except Exception as error:  # it reads its configuration
        raise DiveqError(f"--cluster: Dask cannot be loaded ({said(error)})") from error
    with contextlib.ExitStack() as stack:
        stack.enter_context(_silenced())
        revive: Callable[[], object] | None = None
        if address == LOCAL:
            count = workers or os.cpu_count() or 1
            stack.enter_context(
                dask.config.set({"distributed.scheduler.allowed-failures": _LOCAL_DEATHS})
            )
            with _uninterrupted():
                local = distributed.LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    dashboard_address=":0",  # two commands may have one each
                    silence_logs=logging.CRITICAL,  # a worker that dies is our business
                )
            stack.enter_context(local)
            client = distributed.Client(local)
            # Dask's nannies do that, but for workers that die while they start
            revive = functools.partial(local.scale, count)
        else:
            client = client_of(address)
        stack.enter_context(client)
        try:
            client.wait_for_workers(1, timeout=_WAITING)
        except (TimeoutError, distributed.TimeoutError) as error:
            start = f"dask worker {arguments(address)}"
            raise DiveqError(f"--cluster {address}: has no workers; start some: {start}") from error
        yield Cluster(client, address, revive)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Dask tells of workers and schedulers that went, with tracebacks; that is our business."""
    # one of Dask's handlers writes what all of its loggers, and tornado's, have to say
    changed: list[logging.Logger | logging.Handler] = [logging.getLogger("asyncio")]
    changed += logging.getLogger("distributed").handlers
    levels = [one.level for one in changed]
    for one in changed:
        one.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for one, level in zip(changed, levels, strict=True):
            one.setLevel(level)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Threads that start within this, and processes that they start at any time, hear no Ctrl-C.

    A terminal sends it to workers too, which would die with a traceback; the command ends them. Of
    the calling thread it waits until the end of this.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # This process comes with the first that is spawned, and lets the thread that starts it hear.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def threads_here() -> int | None:
    """How many threads this worker may use; None in a process that is no worker."""
    if "distributed" not in sys.modules:
        return None
    from distributed import get_worker

    try:
        return int(get_worker().state.nthreads)
    except ValueError:
        return None
