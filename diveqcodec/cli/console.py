"""What the commands say: human lines, notes and errors on stderr, results and JSON on stdout.

The only module that prints during a batch, so that lines and progress bar do not cross. Knows no
codec and no files.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import click

from diveqcodec.errors import DiveqError

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # by the number of -v


class Misuse(click.UsageError):
    """Wrong usage that only the command can see: exit status 2, and one line instead of three."""

    def show(self, file: Any = None) -> None:
        """Print the message."""
        click.echo(f"Error: {one_line(self.format_message())}", file=file or sys.stderr)


class OutputError(DiveqError):
    """An output cannot be written; the message names the output."""


class Console:
    """One command's way to the user.

    Args:
        is_quiet: Say nothing but errors.
        verbosity: The number of -v; 2 adds tracebacks.
        is_json: Records on stdout instead of human lines on stderr.
    """

    def __init__(self, is_quiet: bool = False, verbosity: int = 0, is_json: bool = False) -> None:
        self.is_json = is_json
        self.verbosity = min(verbosity, len(_LEVELS) - 1)
        self.is_quiet = is_quiet
        self._bar: Any = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within this, what the library logs is said too: warnings as notes, the rest with -v.

        So are, with -v, warnings that Python would print, such as Pillow's of damaged metadata.
        """
        log = logging.getLogger("diveqcodec")
        level, handler = log.level, _Handler(self)
        log.addHandler(handler)
        log.setLevel(_LEVELS[self.verbosity])
        try:
            with warnings.catch_warnings():
                warnings.showwarning = self._show_warning
                yield
        finally:
            log.removeHandler(handler)
            log.setLevel(level)

    def line(self, text: str) -> None:
        """A sentence about what was done."""
        if not (self.is_quiet or self.is_json):
            self._write(one_line(text))

    def detail(self, text: str) -> None:
        """Something for those who said -v."""
        if self.verbosity and not self.is_quiet:
            self._write(one_line(text))

    def note(self, text: str) -> None:
        """Something that the user may not expect, and that is no error."""
        if not self.is_quiet:
            self._write(f"Note: {one_line(text)}")

    def repeat(self, line: str) -> None:
        """What another process would have said."""
        if not self.is_quiet:
            self._write(line)

    def error(self, text: str, cause: BaseException | str | None = None) -> None:
        """Something that failed; its traceback, or the exception to be traced, too with -vv."""
        if cause is not None and self.verbosity >= 2:
            if isinstance(cause, BaseException):
                cause = "".join(traceback.format_exception(cause)).rstrip()
            self._write(cause)
        self._write(f"Error: {one_line(text)}")

    def record(self, values: dict[str, Any]) -> None:
        """One JSON object on a line of stdout, if JSON was asked for."""
        if self.is_json:
            text = json.dumps(values, ensure_ascii=False, allow_nan=False)
            try:
                text.encode(_encoding())
            except UnicodeError:  # a file's name that is not UTF-8, or a terminal that is not
                text = json.dumps(values, allow_nan=False)
            _print(text)

    def result(self, text: str) -> None:
        """What the command was run for, on stdout."""
        encoding = _encoding()
        _print(text.encode(encoding, "backslashreplace").decode(encoding))

    @contextlib.contextmanager
    def counter(self, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A function to call with how many more of `total` things are done; it moves a bar.

        There is no bar for a single thing, below another bar, nor where stderr is no terminal.
        """
        is_seen = sys.stderr is not None and sys.stderr.isatty()
        if total < 2 or self.is_quiet or self._bar is not None or not is_seen:
            yield lambda _more: None
            return
        from tqdm import tqdm

        with tqdm(total=total, unit=unit, disable=None, leave=False) as self._bar:
            try:
                yield self._bar.update
            finally:
                self._bar = None

    def _show_warning(self, message: Warning | str, *_where: Any, **_named: Any) -> None:
        self.detail(" ".join(str(message).split()))

    def _write(self, text: str) -> None:
        if self._bar is None:
            click.echo(text, err=True)
        else:
            self._bar.write(text, file=sys.stderr)


def _encoding() -> str:
    """Of stdout, which may be closed."""
    return (sys.stdout and sys.stdout.encoding) or "utf-8"


def _print(text: str) -> None:
    """Write a line to stdout, now.

    Raises:
        OutputError: it cannot be written; a closed pipe stays BrokenPipeError.
    """
    if sys.stdout is None:
        raise OutputError("<stdout>: cannot be written: it is closed")
    try:
        click.echo(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise stdout_error(error) from error


def stdout_error(error: OSError) -> OutputError:
    """That stdout cannot be written."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        # what is still in the buffer would fail again, with a traceback, when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OutputError(f"<stdout>: cannot be written: {reason(error)}")


class _Handler(logging.Handler):
    """Hands the library's log to the console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Say one line of the log."""
        say = self._console.note if record.levelno >= logging.WARNING else self._console.detail
        say(record.getMessage())


def one_line(text: str) -> str:
    """A text with its control characters escaped, as names of files may have them.

    They would break the line, or tell the terminal to do things.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    is_control = unicodedata.category(character) in ("Cc", "Zl", "Zp")
    return character.encode("unicode_escape").decode() if is_control else character


def describe(error: BaseException) -> str:
    """The one line that an exception means to a user."""
    if isinstance(error, DiveqError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return where + reason(error)
    if isinstance(error, MemoryError) or "not enough memory" in str(error).lower():
        return "not enough memory"
    if "out of memory" in str(error).lower():
        return "not enough memory on the device; use --device cpu"
    text = " ".join(str(error).split())
    return f"internal error ({type(error).__name__}: {text}); please report it with what -vv says"


def reason(error: OSError) -> str:
    """Why a file could not be opened or written, in lower case: `permission denied`."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = error.strerror or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
