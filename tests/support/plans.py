"""Which file goes where: the plan of a command, and files to plan for."""

from pathlib import Path

from diveqcodec.cli import batch
from diveqcodec.cli.console import Console
from diveqcodec.cli.jobs import Job
from diveqcodec.cli.kinds import FileKind
from diveqcodec.image.kinds import SUFFIXES

ANY = FileKind("a file", "files", lambda path: True)


def planned(inputs: list[str], output: str | None = None, keeps_suffix: bool = False) -> list[Job]:
    naming = batch.Naming(".dvq", () if keeps_suffix else SUFFIXES)
    return batch.plan(inputs, batch.expand(inputs, ANY, Console()), output, naming)


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
