"""Several codecs on the same pictures: what to measure, and the loop over it.

A picture that one codec cannot take is left out for all, so that means compare. Knows no codec and
prints nothing: who calls hears of every row and of every refused picture.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diveqcodec.evaluate.journal import Journal
from diveqcodec.evaluate.results import Results, Row, in_common
from diveqcodec.evaluate.run import Folders, ImageCodec, Listeners, evaluate
from diveqcodec.evaluate.workers import Maker, Workers
from diveqcodec.processes import Engine
from diveqcodec.store import Place


@dataclass(frozen=True, slots=True)
class Trial:
    """A codec to measure.

    Attributes:
        codec: What codes.
        qualities: Each is tried on every picture.
        make: Makes the same codec in another process.
        decoded: Folder for its decoded pictures, if anybody wants them.
    """

    codec: ImageCodec
    qualities: Sequence[float]
    make: Maker
    decoded: Path | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of all trials.

    Attributes:
        results: Of every trial, on the pictures that every codec took; empty if there are none.
        left_out: The other pictures.
    """

    results: list[Results]
    left_out: set[Place]


def measure(
    trials: Sequence[Trial],
    files: Sequence[Place],
    progress: Callable[[Row], None],
    refuse: Callable[[Place, Exception], None],
    *,
    journal: Journal | None = None,
    engine: Engine | None = None,
    threads: int | None = 1,
) -> Measured:
    """Measure every codec on every picture.

    Args:
        trials: The codecs.
        files: The pictures.
        progress: Called with each row as soon as it is there.
        refuse: Called once with each picture that is left out, and why.
        journal: Rows that are known already, and where new ones go.
        engine: Runs the processes that measure; without it this one does.
        threads: Of torch in each of them; None for those that a worker of a cluster has.

    Raises:
        DiveqError: as `diveqcodec.evaluate.run.evaluate`, but for single pictures.
    """
    left_out: set[Place] = set()
    contents: dict[Place, str] = {}

    def refuse_once(path: Place, error: Exception) -> None:
        if path not in left_out:
            refuse(path, error)
        left_out.add(path)

    listeners = Listeners(progress, refuse_once)
    results = []
    for trial in trials:
        pool = None if engine is None else Workers(trial.make, engine, threads)
        # after Ctrl-C the workers of a cluster may still write there while it is removed
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as workdir:
            folders = Folders(Path(workdir), trial.decoded)
            found = evaluate(
                *(trial.codec, files, trial.qualities, folders, listeners),
                journal=journal,
                pool=pool,
                contents=contents,
            )
        results.append(found)
    if len(left_out) == len(files):
        return Measured([], left_out)
    return Measured(in_common(results), left_out)
