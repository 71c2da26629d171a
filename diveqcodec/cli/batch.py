"""Inputs -> jobs -> outputs: what compress, decompress and info share.

Plans which input goes to which output before any work is done, then runs the jobs: a bad file is
reported and the rest goes on. Knows no codec: the work itself is a function of the command.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from diveqcodec.cli.console import Console, Misuse, reason
from diveqcodec.cli.files import STREAM, check_stdout, check_target, is_folder
from diveqcodec.cli.jobs import Failure, Job, Outcome, Source, Work, attempt
from diveqcodec.cli.kinds import DVQ_SUFFIX, FileKind
from diveqcodec.cli.standing import Look, remaining_job
from diveqcodec.errors import DiveqError
from diveqcodec.folders import files_below
from diveqcodec.store import Place, Present, Remote, place

if TYPE_CHECKING:
    from diveqcodec.cli.options import Session

PICTURE_SUFFIXES = {  # of outputs -> the format; what is read is recognised by content
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".ppm": "ppm",
    ".pgm": "ppm",
}


@dataclass(frozen=True, slots=True)
class Naming:
    """How outputs that are not named are called.

    Attributes:
        suffix: What they get, with the dot.
        replaced: Suffixes of inputs that it takes the place of; others are a part of the name.
        remedy: What else to do where two inputs would have one output.
    """

    suffix: str
    replaced: Collection[str] = ()
    remedy: str = ""

    def output(self, name: str) -> str:
        """The name of the output of an input: `a.jpg` -> `a.dvq`, `v1.2` -> `v1.2.dvq`."""
        suffix = PurePath(name).suffix
        stem = name.removesuffix(suffix) if suffix.lower() in self.replaced else name
        return stem + self.suffix


def expand(inputs: Sequence[str], kind: FileKind, console: Console) -> list[Source]:
    """The inputs with folders replaced by their files of one kind.

    Folders are walked recursively and sorted; hidden files are left out, and so are, with a note,
    those of another kind. Files that do not exist are kept: they fail when their turn comes, and
    so do folders that cannot be read.

    Raises:
        Misuse: `-` beside other inputs, or an empty name.
        DiveqError: a folder holds nothing of that kind.
    """
    if STREAM in inputs and len(inputs) > 1:
        raise Misuse("- (standard input) cannot be combined with other inputs")
    if "" in inputs:  # an unset variable of a script; Path("") would be the current folder
        raise Misuse("an input is an empty name; give a file, a folder, or -")
    sources = []
    for name in inputs:
        if name == STREAM:
            sources.append(Source("<stdin>", None))
        elif is_folder(name):
            sources += _sifted(place(name), kind, console)
        else:
            sources.append(Source(name, place(name)))
    return sources


def _sifted(folder: Place, kind: FileKind, console: Console) -> list[Source]:
    """The files of one kind below a folder, and the folders below it that cannot be read.

    Those of a store are told by their names: to open each one would take hours.
    """
    chosen, others, links = [], [], list[Path]()
    for source in _below(folder, links):
        assert source.path is not None
        if source.problem is not None or kind.is_one(source.path):
            chosen.append(source)
        elif source.path.suffix.lower() != kind.output_suffix:
            others.append(source)
    if links:
        more = f" and {len(links) - 1} more" * (len(links) > 1)
        console.note(f"{links[0]}{more}: links to folders are not followed; give them as inputs")
    if not chosen:
        raise DiveqError(f"{folder}: contains no {kind.plural}")
    if others:
        total = len(chosen) + len(others)
        console.note(f"{folder}: skipped {len(others)} of {total} files, not {kind.plural}")
        for source in others:
            console.detail(f"{source.name}: not {kind.singular}")
    return chosen


def _below(folder: Place, links: list[Path]) -> list[Source]:
    """Files below a folder, sorted and not hidden, and what cannot be looked into.

    Links to folders, which are not followed, are added to `links`.
    """
    found: list[Source] = []
    if isinstance(folder, Remote):
        return [
            Source(str(one), one, folder)
            for one in _listed(folder)
            if not any(part.startswith(".") for part in one.relative_to(folder).parts)
        ]

    def refused(error: OSError) -> None:
        path = Path(error.filename)
        found.append(Source(str(path), path, folder, f"cannot be read: {reason(error)}"))

    files = files_below(folder, refused, links.append)
    found += [Source(str(path), path, folder) for path in files]
    return sorted(found, key=lambda source: Path(source.name))


def _listed(folder: Remote) -> list[Remote]:
    try:
        return folder.below()
    except OSError as error:
        raise DiveqError(f"{folder}: cannot be listed: {reason(error)}") from error


def plan(
    inputs: Sequence[str], sources: Sequence[Source], output: str | None, naming: Naming
) -> list[Job]:
    """Give every source its output.

    Args:
        inputs: As the user gave them: files, folders, or `-` alone.
        sources: What `expand` made of them; one that was given twice is done once.
        output: `-o`: a file, a folder (the tree of a folder given as input is mirrored below it),
            `-` for standard output, or None: beside the input.
        naming: Of outputs that are not named.

    Raises:
        Misuse: several inputs for one output, an empty name of one, or standard output is a
            terminal.
    """
    if output == "":  # an unset variable, as for inputs
        raise Misuse("-o is an empty name; give a file, a folder, or -")
    is_several = may_make_several(inputs)
    if output == STREAM or (output is None and list(inputs) == [STREAM]):
        if is_several:
            raise Misuse("-o - takes one input; name a folder with -o for several")
        check_stdout()
        return [Job(source, None) for source in sources]
    jobs = [Job(source, _target(source, output, is_several, naming)) for source in sources]
    return _distinct(jobs, naming.remedy)


def check_json(jobs: Sequence[Job], console: Console) -> None:
    """Refuse to mix records and a picture on standard output.

    Raises:
        Misuse: both are asked for.
    """
    if console.is_json and any(job.target is None for job in jobs):
        raise Misuse("--json writes to stdout, and so does the picture; name a file with -o")


def run(
    jobs: Sequence[Job],
    work: Work,
    session: Session,
    *,
    processes: int | None = None,
    cluster: str | None = None,
    looks: Look | None = None,
    is_summed: bool = True,
) -> int:
    """Do the jobs, whatever happens to each; the exit status, 0 or 1.

    Args:
        jobs: In the order in which they are reported, except by a cluster.
        work: Does one of them; for several processes it must be picklable.
        session: The command's.
        processes: How many work at the same time; by default one, or as many as a cluster of this
            machine has cores.
        cluster: The address of a cluster that does it.
        looks: Pass over jobs whose output is there already; this tells whether it is whole.
        is_summed: Say at the end of several jobs what became of them.
    """
    start, console = time.perf_counter(), session.console
    total = _Total()
    waiting, present = [], Present()
    for job in jobs:
        if looks is not None and job.target is not None and _is_there(job.target, present):
            if (remaining := remaining_job(job, job.target, looks)) is not None:
                waiting.append(remaining)
                continue
            total.skipped += 1
            skipped = {"input": job.source.name, "output": job.target_name, "skipped": True}
            console.record(skipped)
        else:
            waiting.append(job)
    try:
        with console.counter(len(waiting), "file") as advance:
            for job, result in _results(waiting, work, session, processes, cluster):
                _report(job, result, console)
                total.add(result)
                advance(1)
    except KeyboardInterrupt:
        if is_summed and len(jobs) > 1:
            finished = total.done + total.failed + total.skipped
            console.note(f"stopped after {finished} of {len(jobs)} files; --skip-existing goes on")
        raise
    if is_summed and len(jobs) > 1:
        console.line(total.line(time.perf_counter() - start))
    return 1 if total.failed else 0


def _is_there(target: Place, present: Present) -> bool:
    try:
        return target in present
    except OSError as error:
        raise DiveqError(f"{target}: cannot be looked for: {reason(error)}") from error


def _results(
    jobs: Sequence[Job], work: Work, session: Session, processes: int | None, cluster: str | None
) -> Iterator[tuple[Job, Outcome | Failure]]:
    count = min(processes or 1, len(jobs))
    if not jobs or (cluster is None and count < 2):
        yield from ((job, attempt(work, job, session)) for job in jobs)
        return
    from diveqcodec.cli.worker import check_places, results

    check_places(jobs)
    if cluster is None:
        from diveqcodec.processes import LocalProcesses

        threads = session.threads or max(1, (os.cpu_count() or 1) // count)
        yield from results(jobs, work, session, LocalProcesses(count), threads)
        return
    from diveqcodec.cluster import connected

    with connected(cluster, processes) as engine:
        yield from results(jobs, work, session, engine, session.threads)


def check(job: Job, is_forced: bool) -> None:
    """Refuse a job whose output would destroy something (see `check_target`)."""
    if job.target is not None:
        check_target(job.target, job.source.path, is_forced or job.is_new)


def hint_output(inputs: Sequence[str], source: Source, suffixes: Collection[str]) -> str:
    """What to add to `no such file` when the last input looks like a forgotten `-o`."""
    is_last = len(inputs) > 1 and source.name == inputs[-1]
    if is_last and Path(source.name).suffix.lower() in suffixes:
        return f". To name the output, use -o {source.name}"
    return ""


@dataclass(slots=True)
class _Total:
    """What became of all jobs."""

    done: int = 0
    failed: int = 0
    skipped: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def add(self, result: Outcome | Failure) -> None:
        if isinstance(result, Failure):
            self.failed += 1
            return
        self.done += 1
        self.bytes_in += result.bytes_in
        self.bytes_out += result.bytes_out

    def line(self, seconds: float) -> str:
        """10 files: 8 done, 1 already there, 1 failed   1,234,567 B -> 123,456 B   10.32 s."""
        counts = [f"{self.done} done"]
        counts += [f"{self.skipped} already there"] * bool(self.skipped)
        counts += [f"{self.failed} failed"] * bool(self.failed)
        sizes = f"   {self.bytes_in:,} B -> {self.bytes_out:,} B" * bool(self.bytes_out)
        count = self.done + self.failed + self.skipped
        return f"{count} files: {', '.join(counts)}{sizes}   {seconds:.2f} s"


def _report(job: Job, result: Outcome | Failure, console: Console) -> None:
    name = job.source.name
    if isinstance(result, Failure):
        bare = result.text.removeprefix(f"{name}: ")
        console.error(
            result.text if result.names_output else f"{name}: {result.text}", result.trace
        )
        console.record({"input": name, "output": job.target_name, "error": bare})
        return
    if result.line:
        console.line(result.line)
    notices, record = result.notices, result.record
    if job.notice is not None:
        notices = (job.notice, *notices)
        record = {**record, "notices": list(notices)}
    if not console.is_json:
        for notice in notices:
            console.note(f"{name}: {notice}")
    console.record(record)


def _target(source: Source, output: str | None, is_several: bool, naming: Naming) -> Place:
    if output is None:
        assert source.path is not None  # standard input goes to standard output
        return source.path.with_name(naming.output(source.path.name))
    if _is_folder(output, is_several):
        relative = source.relative
        return place(output) / relative.with_name(naming.output(relative.name))
    return place(output)


def may_make_several(inputs: Sequence[str]) -> bool:
    """Whether inputs may make several outputs: there are two or more, or one is a folder."""
    return len(inputs) > 1 or is_folder(inputs[0])


def is_folder_name(output: str) -> bool:
    """Whether `-o` means a folder, whatever the inputs: it is one, or its name says so."""
    separators = ("/", "\\") if sys.platform == "win32" else "/"
    return is_folder(output) or output.endswith(separators)


def _is_folder(output: str, is_several: bool) -> bool:
    if is_folder_name(output):
        return True
    if not is_several:
        return False
    looks_like_file = PurePath(output).suffix.lower() in {DVQ_SUFFIX, *PICTURE_SUFFIXES}
    if looks_like_file or _is_there(place(output), Present()):
        raise Misuse("-o must be a directory when there are several inputs")
    return True


def _whole_name(where: Place) -> str:
    """What all names of a file have in common, through links too."""
    if isinstance(where, Path):
        return os.path.normcase(os.path.realpath(where))
    return str(where)


def _distinct(jobs: Sequence[Job], remedy: str) -> list[Job]:
    """The jobs without repetitions; those that would overwrite each other's output cannot be done.

    The others are not to blame: they are.
    """
    of_target: dict[str, dict[str, Job]] = {}
    for job in jobs:
        assert job.target is not None
        key = _whole_name(job.target)
        of_target.setdefault(key, {}).setdefault(_whole_name(job.source.path or Path()), job)
    result = []
    for rivals in of_target.values():
        names = [job.source.name for job in rivals.values()]
        for job in rivals.values():
            if len(names) > 1:
                other = next(name for name in names if name != job.source.name)
                problem = f"{job.target} would be the output of {other} too; do them apart, with -o"
                job = replace(job, problem=problem + remedy)
            result.append(job)
    order = {id(job.source): i for i, job in enumerate(jobs)}
    return sorted(result, key=lambda job: order[id(job.source)])
