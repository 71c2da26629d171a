"""`diveq models`: which weights are installed, and installing others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diveqcodec.cli.console import OutputError
from diveqcodec.cli.files import write_atomic
from diveqcodec.cli.options import Session, session_options

if TYPE_CHECKING:
    from diveqcodec.zoo import Entry


@click.command(short_help="List the installed weights, or install others.")
@click.option(
    "--import",
    "source",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Check weights and copy them to your own folder of models.",
)
@session_options(device=False)
def command(session: Session, source: Path | None) -> None:
    """List the installed weights, or install others.

    Weights are looked for in the folders of DIVEQ_MODELS, in your own folder, and in the package;
    the one marked * is the default of `diveq compress`.
    """
    from diveqcodec import zoo

    if source is not None:
        _import(session, source)
        return
    entries = zoo.installed()
    default = next((entry for entry in entries if entry.is_default), None)
    for entry in entries:
        session.console.record(_record(entry, entry is default))
    if session.console.is_json:
        return
    if not entries:
        places = ", ".join(map(str, zoo.folders()))
        session.console.note(
            f"no weights in {places}; install some with: diveq models --import PATH"
        )
        return
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        mark = "*" if entry is default else " "
        line = f"{mark} {entry.name:{width}}  {entry.model_id}  {entry.size / 1e6:7.1f} MB"
        measured = _measured(entry)
        session.console.result(f"{line}  {measured}".rstrip())


def _import(session: Session, source: Path) -> None:
    """Copy weights to the user's folder after loading them, which checks every tensor."""
    from diveqcodec import zoo
    from diveqcodec.exact import weights

    entry = zoo.read_entry(source)
    weights.load(source)
    present = zoo.by_id(bytes.fromhex(entry.model_id))
    if present is not None:
        session.console.line(f"{entry.model_id} is installed already: {present.path}")
        session.console.record(_record(present, present.is_default))
        return
    target = zoo.user_folder() / source.name
    if target.suffix != zoo.SUFFIX:
        target = target.with_name(target.name + zoo.SUFFIX)
    if os.path.lexists(target):  # no -f: .dvq files may need the weights that are there
        raise OutputError(f"{target}: already exists; import the weights under another name")
    write_atomic(target, source.read_bytes())
    session.console.line(f"{source} -> {target}   {entry.model_id}")
    session.console.record(_record(zoo.read_entry(target), False))


def _record(entry: Entry, is_default: bool) -> dict[str, object]:
    return {
        "name": entry.name,
        "model_id": entry.model_id,
        "path": str(entry.path),
        "bytes": entry.size,
        "is_default": is_default,
        "measured": entry.provenance.get("measured"),
    }


def _measured(entry: Entry) -> str:
    """The quality that the export noted: a sentence, or names and figures."""
    measured = entry.provenance.get("measured", "")
    if isinstance(measured, dict):
        return ", ".join(f"{name} {value}" for name, value in measured.items())
    return str(measured)
