"""What `diveq eval` has found, said and written: every output is tried, whatever the others do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diveqcodec.cli.console import OutputError, describe
from diveqcodec.cli.evaluateoptions import Options
from diveqcodec.cli.evaluateoutputs import json_files
from diveqcodec.cli.files import write_new
from diveqcodec.cli.options import Session
from diveqcodec.store import Place

if TYPE_CHECKING:
    from diveqcodec.evaluate.comparison import Rival
    from diveqcodec.evaluate.results import Results
    from diveqcodec.evaluate.trials import Trial


@dataclass(frozen=True, slots=True)
class Findings:
    """What there is to write of.

    Attributes:
        trials: The codecs, ours first.
        results: Of each.
        known: Other curves to compare with.
        files: The pictures.
    """

    trials: Sequence[Trial]
    results: Sequence[Results]
    known: Sequence[Rival]
    files: Sequence[Place]


def write_outputs(session: Session, options: Options, found: Findings) -> bool:
    """Print the tables, and write what was asked for; what fails is said, and the rest is done.

    Returns:
        Whether all of it is where it was to be.

    Raises:
        BrokenPipeError: who read the tables is gone; the files are written.
    """
    failures = [_failure(session, functools.partial(_print_tables, session, options, found))]
    for target, make in _contents(options, found):
        work = functools.partial(_write, target, make, options.force)
        failures.append(_failure(session, work))
    if not any(failures):
        return True
    if options.resume is not None:
        session.console.note(f"{options.resume}: has what was measured; --resume goes on from it")
    for failure in failures:
        if isinstance(failure, BrokenPipeError):
            raise failure
    return False


def _failure(session: Session, work: Callable[[], None]) -> Exception | None:
    """Do something; why it could not be done."""
    try:
        work()
    except BrokenPipeError as error:
        return error
    except Exception as error:  # whatever it is, the other outputs are not to blame
        session.console.error(describe(error), error)
        return error
    return None


def _write(target: Path, make: Callable[[], bytes], is_forced: bool) -> None:
    """Write one file.

    Raises:
        OutputError: it cannot be made or written, or is at another place.
    """
    try:
        data = make()
    except Exception as error:  # named here, for what made it knows no file
        text = describe(error).removeprefix(f"{target}: ")
        raise OutputError(f"{target}: {text}") from error
    path = write_new(target, data, is_forced)
    if path != target:
        raise OutputError(f"{target}: has come to exist meanwhile; {path} was written instead")


def _print_tables(session: Session, options: Options, found: Findings) -> None:
    from diveqcodec.evaluate import comparison, report

    blocks = []
    for results in found.results:
        noun = "picture" if len(results.images) == 1 else "pictures"
        count = f"{len(results.images)} {noun}"
        blocks.append(f"{results.name}: {count}\n{report.results_table(results)}")
    comparison.warn_of_other_pictures(found.results[0], found.known)
    rivals = [*found.results, *found.known]
    for tested in found.results[: _ours(options)]:
        others = [rival for rival in rivals if rival is not tested]
        if others:
            compared = comparison.compare(tested, others, options.bd_range)
            blocks.append(report.bd_table(tested.name, compared))
    session.console.result("\n\n".join(blocks))


def _contents(options: Options, found: Findings) -> Iterator[tuple[Path, Callable[[], bytes]]]:
    """Every file to be written, and what makes its content: what takes longest is last."""
    if options.output is not None:
        paths = json_files(options.output, [results.name for results in found.results])
        for path, results in zip(paths, found.results, strict=True):
            yield path, functools.partial(_json, results)
    if options.csv is not None:
        yield options.csv, functools.partial(_csv, found)
    if options.plot is not None:
        yield options.plot, functools.partial(_plot, options.plot, options, found)
    if options.html is not None:
        yield options.html, functools.partial(_page, options, found)


def _json(results: Results) -> bytes:
    from diveqcodec.evaluate.resultfiles import results_json

    return results_json(results).encode()


def _csv(found: Findings) -> bytes:
    from diveqcodec.evaluate.report import results_csv

    return results_csv(found.results).encode(errors="surrogateescape")


def _plot(path: Path, options: Options, found: Findings) -> bytes:
    from diveqcodec.evaluate.comparison import curve_of
    from diveqcodec.evaluate.plot import PlotOptions, plot_bytes

    names = [results.name for results in found.results[: _ours(options)]]
    curves = [curve_of(rival) for rival in (*found.results, *found.known)]
    return plot_bytes(curves, path, PlotOptions(emphasised=names))


def _page(options: Options, found: Findings) -> bytes:
    from diveqcodec.evaluate.html import Report, html_report

    parts = (found.trials, found.results, found.known, found.files)
    page = html_report(Report(*parts, options.bd_range, _ours(options)))
    return page.encode(errors="backslashreplace")


def _ours(options: Options) -> int:
    """How many of the first codecs are our own."""
    return max(1, len(options.efforts))
