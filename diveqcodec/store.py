"""Where pictures lie: a path of this machine, or a URL that fsspec opens (s3://, gs://, sftp://).

A `Remote` has of a path's methods what the commands use, and raises OSError as a path does. fsspec
and what it needs for a store are optional. Knows nothing of pictures.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO, Final

from diveqcodec.errors import DiveqError, said

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]+(://|::)", re.IGNORECASE)
# Stores whose objects come into being whole, when all of them is there. In others a program that
# is killed leaves a part of a file under its name, which would later pass for a whole one.
_WHOLE: Final = frozenset(
    ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory")
)


@dataclass(frozen=True, slots=True)
class Remote:
    """A file or folder of a store.

    Attributes:
        files: The store, a file system of fsspec's.
        path: What the store calls it.
    """

    files: Any
    path: str

    def __str__(self) -> str:
        return str(self.files.unstrip_protocol(self.path))

    def __truediv__(self, below: PurePath | str) -> Remote:
        return Remote(self.files, f"{self.path.rstrip('/')}/{PurePath(below).as_posix()}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """What the name ends in, with the dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Remote:
        """The folder that it lies in."""
        return Remote(self.files, self.path.rstrip("/").rpartition("/")[0])

    @property
    def protocol(self) -> str:
        """The kind of store: s3, gs, ..."""
        kinds = self.files.protocol
        return kinds if isinstance(kinds, str) else str(kinds[0])

    def with_name(self, name: str) -> Remote:
        """The same with another name."""
        return self.parent / name

    def relative_to(self, folder: Remote) -> PurePosixPath:
        """What the path has behind that of a folder."""
        return PurePosixPath(self.path).relative_to(folder.path)

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        with self._translating():
            return bool(self.files.isdir(self.path))

    def exists(self) -> bool:
        """Whether there is such a file or folder, now: not as an earlier listing had it."""
        with self._translating():
            self.files.invalidate_cache()
            return bool(self.files.exists(self.path))

    def below(self) -> list[Remote]:
        """All files below a folder, sorted."""
        with self._translating():
            return [Remote(self.files, path) for path in sorted(self.files.find(self.path))]

    def names(self) -> set[str]:
        """The names of what lies in a folder; none if there is no such folder."""
        with self._translating():
            try:
                found = self.files.ls(self.path, detail=False, refresh=True)
            except FileNotFoundError:
                return set()
            return {path.rstrip("/").rpartition("/")[2] for path in found}

    def read_bytes(self) -> bytes:
        """All of a file."""
        with self._translating():
            return bytes(self.files.cat_file(self.path))

    def open(self, _mode: str = "rb") -> contextlib.AbstractContextManager[BinaryIO]:
        """A file to read from, which is fetched as it is read."""
        with self._translating():
            opened: BinaryIO = self.files.open(self.path, "rb")
        return opened

    def write_whole(self, data: bytes, check: Callable[[bytes], None] | None = None) -> None:
        """Write a file: whenever something dies, there is the old one or the new one.

        Args:
            data: All of it.
            check: Called with what was read back, before the file takes its place: raises if it is
                bad.
        """
        with self._translating():
            if self.protocol not in _WHOLE:
                self.files.makedirs(self.parent.path, exist_ok=True)
            elif check is None:
                self.files.pipe_file(self.path, data)
                return
        temporary = self.with_name(f".diveq-{secrets.token_hex(8)}.tmp")
        try:
            with self._translating():
                self.files.pipe_file(temporary.path, data)
            if check is not None:
                check(temporary.read_bytes())
            with self._translating():
                if self.files.exists(self.path) and self.protocol not in _WHOLE:
                    self.files.rm_file(self.path)  # not every store of files moves over one
                self.files.mv(temporary.path, self.path)
        except BaseException:
            with contextlib.suppress(Exception):
                self.files.rm_file(temporary.path)
            raise

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        """Within this, whatever a store's library raises is an OSError."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:  # botocore's, aiohttp's, paramiko's own
            raise OSError(f"{self.protocol}: {said(error)}") from error


Place = Path | Remote


def is_url(text: str) -> bool:
    """Whether this names a store, and no file of this machine."""
    return _URL.match(text) is not None and not os.path.lexists(text)


def place(text: str) -> Place:
    """The path or the place in a store that a text names; `file://` is a path.

    Raises:
        DiveqError: fsspec or what it needs for this store is not installed, or there is no such
            kind of store.
    """
    if not is_url(text):
        return Path(text)
    try:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem
    except ImportError as error:
        raise DiveqError(f"{text}: needs fsspec: pip install 'diveqcodec[cluster]'") from error
    try:
        files, path = url_to_fs(text)
    except ImportError as error:  # "Install s3fs to access S3"
        raise DiveqError(f"{text}: {error}") from error
    except Exception as error:
        raise DiveqError(f"{text}: no such store ({said(error)})") from error
    return Path(path) if isinstance(files, LocalFileSystem) else Remote(files, path)


class Present:
    """Which files are there already; of stores a folder is listed once, for each question costs."""

    def __init__(self) -> None:
        self._listed: dict[str, set[str]] = {}

    def __contains__(self, wanted: Place) -> bool:
        if isinstance(wanted, Path):
            return os.path.lexists(wanted)
        folder = str(wanted.parent)
        if folder not in self._listed:
            self._listed[folder] = wanted.parent.names()
        return wanted.name in self._listed[folder]
