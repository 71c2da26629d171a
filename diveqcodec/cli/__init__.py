"""The command `diveq`: a group of commands, one file each.

No command imports torch before it needs it, so `diveq --help`, `diveq info` and completion answer
at once. The library raises; only this package prints and exits.
"""

from __future__ import annotations

from typing import Any

import click

from diveqcodec.cli import (
    compress,
    decompress,
    desktop,
    evaluate,
    export,
    info,
    models,
    thumbnail,
    train,
)
from diveqcodec.cli.console import describe, one_line
from diveqcodec.cli.options import CONTEXT
from diveqcodec.errors import DiveqError


class _Group(click.Group):
    """Turns the library's errors into one line and exit status 1."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(context)
        except DiveqError as error:
            raise click.ClickException(one_line(describe(error))) from error


@click.group(cls=_Group, context_settings=CONTEXT)
@click.version_option(None, "-V", "--version", package_name="diveqcodec", prog_name="diveq")
def main() -> None:
    """A neural image codec: pictures to small .dvq files and back."""


for _name, _command in {
    "compress": compress.command,
    "decompress": decompress.command,
    "info": info.command,
    "models": models.command,
    "train": train.command,
    "export": export.command,
    "eval": evaluate.command,
    "thumbnail": thumbnail.command,
    "desktop": desktop.command,
}.items():
    main.add_command(_command, _name)
