"""`diveq desktop`: file managers learn what `.dvq` files are, and how to show them small.

Two files in the user's folder of shared data, as freedesktop.org has them: a type for
shared-mime-info, and a thumbnailer that runs this very Python, so that it need not be on the path.
"""

from __future__ import annotations

import importlib.resources
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

from diveqcodec.cli.console import Misuse, OutputError, reason
from diveqcodec.cli.files import write_atomic
from diveqcodec.cli.options import Session, session_options
from diveqcodec.container.bitstream import MIME
from diveqcodec.errors import DiveqError
from diveqcodec.folders import home

_TYPE = Path("mime", "packages", "diveq.xml")
_THUMBNAILER = Path("thumbnailers", "diveq.thumbnailer")
_UPDATE = "update-mime-database"
# What an argument of Exec has to have a backslash before, within double quotes.
_QUOTED = str.maketrans({character: "\\" + character for character in '"`$\\'})


@click.command(short_help="Let file managers know .dvq files.")
@click.option("--remove", is_flag=True, help="Take away what was installed.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Of shared data; the default is XDG_DATA_HOME, else ~/.local/share.",
)
@session_options(device=False, json=False)
def command(session: Session, remove: bool, folder: Path | None) -> None:
    """Let file managers know .dvq files: their type, and thumbnails of them.

    Writes two files into your own folder of shared data, on systems that follow freedesktop.org.
    """
    if os.name == "nt" or sys.platform == "darwin":
        raise Misuse("diveq desktop: this system has no freedesktop.org folders")
    folder = folder or _shared_data()
    for name, text in {_TYPE: type_file(), _THUMBNAILER: thumbnailer_file()}.items():
        if remove:
            _remove(folder / name)
        else:
            write_atomic(folder / name, text.encode())
        session.console.line(f"{'removed' if remove else 'wrote'} {folder / name}")
    _update(folder / "mime", session)


def _shared_data() -> Path:
    """The user's folder of shared data.

    Raises:
        DiveqError: the user has none.
    """
    if named := os.environ.get("XDG_DATA_HOME"):
        return Path(named)
    if (own := home()) is None:
        raise DiveqError("this user has no home folder; name one of shared data with --folder")
    return own / ".local" / "share"


def type_file() -> str:
    """The type of `.dvq` files, for shared-mime-info."""
    folder = importlib.resources.files("diveqcodec").joinpath("data", "desktop")
    return folder.joinpath("diveq.xml").read_text("utf-8")


def thumbnailer_file(python: str = sys.executable) -> str:
    """A thumbnailer; file managers put the size, the file and the output for %s, %i and %o."""
    quoted = f'"{python.translate(_QUOTED)}"'.replace("\\", "\\\\").replace("%", "%%")
    return (
        "[Thumbnailer Entry]\n"
        f"TryExec={python}\n"
        f"Exec={quoted} -m diveqcodec thumbnail --force --quiet -s %s %i %o\n"
        f"MimeType={MIME};\n"
    )


def _remove(path: Path) -> None:
    """Take a file away that may be there.

    Raises:
        OutputError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed: {reason(error)}") from error


def _update(folder: Path, session: Session) -> None:
    """Have the database of types built anew.

    Raises:
        DiveqError: the program for it fails.
    """
    if not folder.is_dir():
        return
    program = shutil.which(_UPDATE)
    if program is None:
        session.console.note(f"{_UPDATE} is not installed; the type counts once it has run")
        return
    try:
        done = subprocess.run([program, str(folder)], capture_output=True, text=True)
    except OSError as error:
        raise DiveqError(f"{program}: cannot be run: {reason(error)}") from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise DiveqError(f"{program} {folder}: failed ({said})")
