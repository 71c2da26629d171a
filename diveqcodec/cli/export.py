"""`diveq export`: from a training run to a weights file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diveqcodec.cli.files import check_target
from diveqcodec.cli.options import Session, force_option, session_options

if TYPE_CHECKING:
    from diveqcodec.train.exporting import Check, Exported

_LARGEST_EXCESS = 0.01  # of the bits, more or fewer, before there is a warning


@click.command(short_help="Make weights of a training run.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="The weights; the name of the file is the name of the model.",
)
@click.option(
    "--check",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Code these pictures before and after, and print what the export costs.",
)
@click.option(
    "--licence", default="", metavar="TEXT", help="Kept in the file: of weights and pictures."
)
@force_option
@session_options(device=False, json=False)
def command(
    session: Session, run: Path, output: Path, check: Path | None, licence: str, force: bool
) -> None:
    """Make weights of RUN, the folder of a training run or a checkpoint in it.

    The averaged weights are taken; all that decides how a .dvq file is read becomes integers.
    """
    check_target(output, run / "last.safetensors" if run.is_dir() else run, force)
    from diveqcodec.train.exporting import export

    report = export(run, output, check=check, licence=licence)
    if report.checks:
        session.console.result(_table(report))
    else:
        session.console.note(
            "no self-check was made; --check DIR codes pictures before and after, and prints both"
        )
    for one in report.checks:
        if abs(one.excess) > _LARGEST_EXCESS:
            session.console.note(
                f"quality {one.quality:g}: {one.excess:+.1%} bits at equal PSNR after the export; "
                "the integers do not do what was trained; check with other pictures, or train on"
            )
    size = output.stat().st_size / 1e6
    session.console.line(
        f"{run} -> {output}   model {report.model_id.hex()}   step {report.steps}   {size:.1f} MB"
    )
    session.console.line(f"next: diveq models --import {shlex.quote(str(output))}")


def _table(report: Exported) -> str:
    """One line a quality: as trained, as exported, and the difference."""
    head = f"{report.pictures} pictures    as trained             as exported            difference"
    return "\n".join([head, *map(_row, report.checks)])


def _row(check: Check) -> str:
    return (
        f"quality {check.quality:g}   {check.float_bpp:.4f} bpp {check.float_psnr:6.3f} dB   "
        f"{check.fixed_bpp:.4f} bpp {check.fixed_psnr:6.3f} dB   "
        f"{check.more_bits:+.2%} bits "
        f"{check.fixed_psnr - check.float_psnr:+.3f} dB"
    )
