"""Options that several commands share, and the session that they make.

Each command declares with `session_options` which of them it has, and gets one `Session` for them.
Knows no command.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from diveqcodec.cli import completion
from diveqcodec.cli.console import Console, Misuse, one_line
from diveqcodec.errors import ConfigError, ModelError
from diveqcodec.scheduler import LOCAL, check_address
from diveqcodec.store import is_url

if TYPE_CHECKING:
    import torch

    from diveqcodec.codec import Codec
    from diveqcodec.zoo import Entry

log = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., Any])

CONTEXT = {"help_option_names": ["-h", "--help"]}


class FiniteRange(click.FloatRange):
    """A range of numbers; what is no number, or has no end, is outside of any."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number that a text says."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Session:
    """One run of a command: how it talks, where it computes, and each model loaded once."""

    def __init__(self, console: Console, device: str = "auto", threads: int | None = None) -> None:
        self.console = console
        self.device_name = device
        self.threads = threads
        self._device: torch.device | None = None
        self._codecs: dict[tuple[Path, str], Codec] = {}
        self._installed: dict[bytes, Entry | None] = {}

    def device(self) -> torch.device:
        """The device of `--device`, with `--threads` set; imports torch.

        Raises:
            Misuse: there is no such device.
        """
        if self._device is None:
            import torch

            if self.threads is not None:
                torch.set_num_threads(self.threads)
            self._device = _device(self.device_name)
            log.info("%s, %d threads", self._device, torch.get_num_threads())
        return self._device

    def cores(self) -> int:
        """Threads for what torch does not do; without torch, which is not loaded for this."""
        if self.threads is None and (torch := sys.modules.get("torch")) is not None:
            return int(torch.get_num_threads())
        return self.threads or os.cpu_count() or 1

    def installed(self, model_id: bytes) -> Entry | None:
        """The installed weights with this id, or None; each id is looked for once."""
        if model_id not in self._installed:
            from diveqcodec import zoo

            self._installed[model_id] = zoo.by_id(model_id)
        return self._installed[model_id]

    def codec(self, entry: Entry) -> Codec:
        """The codec with these weights, loaded on the first call."""
        key = entry.path, entry.model_id
        if key not in self._codecs:
            from diveqcodec import zoo
            from diveqcodec.codec import Codec

            device = self.device()
            log.info("model %s (%s) from %s", entry.name, entry.model_id, entry.path)
            self._codecs[key] = Codec(zoo.load_entry(entry, device))
        return self._codecs[key]

    def timed_codec(self, entry: Entry) -> tuple[Codec, float]:
        """As `codec`, and the seconds that loading took: no file's time should include them."""
        start = time.perf_counter()
        return self.codec(entry), time.perf_counter() - start

    def finish(self, status: int) -> None:
        """End the command with an exit status."""
        click.get_current_context().exit(status)


def session_options(*, device: bool = True, json: bool = True) -> Callable[[F], F]:
    """Gives a command `--quiet` and `-v`, and where asked for `--device`, `--threads`, `--json`.

    The function gets a `Session` as its first argument instead.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapper(quiet: bool, verbose: int, **rest: Any) -> Any:
            console = Console(quiet, verbose, rest.pop("as_json", False))
            where = rest.pop("device", "auto"), rest.pop("threads", None)
            with console.listening():
                return function(Session(console, *where), **rest)

        options = [
            click.option("--quiet", is_flag=True, help="Say nothing but errors."),
            click.option(
                "-v", "--verbose", count=True, help="Say more; -vv adds tracebacks to errors."
            ),
        ]
        if device:
            options += [
                click.option(
                    "--device",
                    default="auto",
                    show_default=True,
                    metavar="auto|cpu|cuda[:N]",
                    callback=_check_device,
                    shell_complete=completion.devices,
                    help="Where the networks run; auto is a GPU if there is one.",
                ),
                click.option(
                    "--threads", type=click.IntRange(1), help="Threads that torch may use."
                ),
            ]
        if json:
            text = "One JSON object a line on stdout."
            options.insert(0, click.option("--json", "as_json", is_flag=True, help=text))
        decorated: Any = wrapper
        for option in reversed(options):
            decorated = option(decorated)
        result: F = decorated
        return result

    return decorate


def model_option(function: F) -> F:
    """`-m`: weights by path, name or id."""
    return click.option(
        "-m",
        "--model",
        metavar="MODEL",
        shell_complete=completion.models,
        help="Weights: a file, or the name or id of an installed model (see diveq models).",
    )(function)


def force_option(function: F) -> F:
    """`-f`: overwrite."""
    return click.option("-f", "--force", is_flag=True, help="Overwrite existing output.")(function)


def batch_options(function: F) -> F:
    """`--skip-existing`, `--keep-times`, `-j`, `--cluster`: of commands that write many files."""
    for option in (
        cluster_option,
        click.option(
            "-j",
            "--jobs",
            "processes",
            type=click.IntRange(1),
            metavar="N",
            help="Work on so many files at the same time.",
        ),
        click.option("--keep-times", is_flag=True, help="Give outputs the times of their inputs."),
        click.option(
            "--skip-existing",
            is_flag=True,
            help="Pass over inputs whose output is there already.",
        ),
    ):
        function = option(function)
    return function


def cluster_option(function: F) -> F:
    """`--cluster`: an address as `diveqcodec.scheduler` knows it, or None."""
    return click.option(
        "--cluster",
        metavar="ADDRESS|local",
        callback=_parse_cluster,
        help="Let a Dask cluster work: HOST:PORT of its scheduler, or workers of this machine.",
    )(function)


def check_cluster(
    cluster: str | None,
    processes: int | None,
    keeps_times: bool = False,
    names: Sequence[str | None] = (),
) -> None:
    """Refuse what a cluster or a store does not do.

    Args:
        cluster: Its address, if there is one.
        processes: Of `-j`, if it was given.
        keeps_times: Outputs are to have the times of inputs.
        names: Inputs and outputs.

    Raises:
        Misuse: `-j` for workers that somebody else has started, or times in a store.
    """
    if cluster is not None and cluster != LOCAL and processes is not None:
        raise Misuse("-j is for this machine; a cluster works on what its workers have room for")
    if keeps_times and any(name is not None and is_url(name) for name in names):
        raise Misuse("--keep-times: a store keeps no times of files; leave it out")


def check_existing(is_forced: bool, skips_existing: bool) -> None:
    """Refuse to overwrite and to pass over at the same time.

    Raises:
        Misuse: both are asked for.
    """
    if is_forced and skips_existing:
        raise Misuse("-f overwrites what --skip-existing passes over; use one of them")


def background_option(function: F) -> F:
    """`--background`: a colour (red, green, blue), or None."""
    return click.option(
        "--background",
        metavar="COLOR",
        callback=_parse_colour,
        shell_complete=completion.colours,
        help="Flatten transparency on this colour: white, #ff8000, ...",
    )(function)


def find_model(reference: str | None) -> Entry:
    """The weights that `-m` means; without it the default model.

    Raises:
        Misuse: `-m` names nothing that exists.
        ModelError: no weights are installed.
    """
    from diveqcodec import zoo

    try:
        return zoo.find(reference)
    except ModelError as error:
        if reference is None:
            raise
        raise Misuse(f"-m {error}") from error


def _check_device(_context: click.Context, _option: click.Parameter, value: str) -> str:
    kind, separator, index = value.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (separator and not index.isdecimal()):
        raise click.BadParameter(f"{value!r} is not one of auto, cpu, cuda, cuda:N")
    if separator and kind != "cuda":
        raise click.BadParameter(f"{value!r}: only cuda takes a number")
    return value


def _parse_cluster(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> str | None:
    try:
        return None if value is None else check_address(value)
    except ConfigError as error:
        raise click.BadParameter(one_line(str(error))) from error


def _device(name: str) -> torch.device:
    import torch

    from diveqcodec.device import device_of

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and torch.cuda.device_count() else "cpu"
    try:
        return device_of(name)
    except ConfigError as error:
        raise Misuse(f"--{error}") from error


def _parse_colour(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> tuple[int, int, int] | None:
    if value is None:
        return None
    from PIL import ImageColor

    try:
        colour = ImageColor.getrgb(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a colour, such as white or #ff8000") from error
    return colour[0], colour[1], colour[2]
