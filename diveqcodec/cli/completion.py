"""What a shell offers when Tab is pressed: files, `.dvq` files, models, qualities.

click knows commands and options by itself; its scripts for bash, zsh and fish ask these functions
for the rest. Nothing here imports torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

from diveqcodec.cli.kinds import DVQ_SUFFIX

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

# bash takes what it is given word by word as it is: names that it would have to quote are its own.
_PLAIN = re.compile(r"[\w./+,@%^-]*")


def files(
    _context: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Files and folders, as the shell itself completes them."""
    return [CompletionItem(incomplete, type="file")]


def dvq_files(
    context: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """`.dvq` files and folders; whatever the shell finds where there is no such file."""
    folder, start = os.path.split(incomplete)
    try:
        with os.scandir(folder or ".") as entries:
            found = [
                (os.path.join(folder, entry.name), entry.is_dir())
                for entry in entries
                if entry.name.startswith(start)
                and (start or not entry.name.startswith("."))
                and (entry.is_dir() or entry.name.lower().endswith(DVQ_SUFFIX))
            ]
    except OSError:
        found = []
    is_plain = all(_PLAIN.fullmatch(name) for name, _ in found)
    if not is_plain or all(is_folder for _, is_folder in found):
        return files(context, param, incomplete)
    return [CompletionItem(name + os.sep * is_folder) for name, is_folder in sorted(found)]


def some_of(**values: str) -> Complete:
    """Values worth offering, each with what it means; others may be typed. `_5` stands for 5."""

    def complete(
        _context: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        names = {name.removeprefix("_"): text for name, text in values.items()}
        return [
            CompletionItem(name, help=text)
            for name, text in names.items()
            if name.startswith(incomplete)
        ]

    return complete


qualities = some_of(
    _5="thumbnail",
    _20="small",
    _35="web",
    _50="default",
    _65="good",
    _80="fine",
    _95="near lossless",
)
devices = some_of(auto="a GPU if there is one", cpu="", cuda="the first GPU")
colours = some_of(white="", black="", grey="")


def models(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of installed weights, or files where none begins like this."""
    from diveqcodec import zoo

    names = [entry for entry in zoo.installed() if entry.name.startswith(incomplete)]
    return [CompletionItem(entry.name, help=entry.model_id) for entry in names] or files(
        context, param, incomplete
    )
