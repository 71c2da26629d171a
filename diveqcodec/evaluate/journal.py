"""The journal of an evaluation: every row as soon as it is measured, so that one can go on.

A text file, one JSON object a line behind a head line. A row is found again by what it depends on:
the codec with its settings and what it says that it stands on, the content of the picture, the
quality, and the versions of what measured it. Knows nothing of how rows are measured.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.resultfiles import json_text, row_from_record, row_record
from diveqcodec.evaluate.results import Row
from diveqcodec.store import Place, Remote

_HEAD = {"journal": "diveq eval", "version": 1}
_VERSIONS = ("diveqcodec", "torch", "pillow")  # other ones may write other bytes


class Journal:
    """The rows of a file, which may not exist yet.

    Args:
        path: Of the file.

    Raises:
        DiveqError: It cannot be read or written, is no journal (and is left as it is), or is
            damaged elsewhere than in a last line that was cut short.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, Row] = {}
        try:
            data = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise DiveqError(f"{path}: cannot be read: {error.strerror}") from error
        head = json.dumps(_HEAD).encode() + b"\n"
        if data and not (data.startswith(head) or head.startswith(data)):
            raise DiveqError(f"{path}: is no journal of diveq eval; name another file")
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines()[1:], start=2):
            self._read(line, number)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("r+b" if path.exists() else "w+b")
            self._file.truncate(len(whole))  # a line cut short by a kill
            self._file.seek(len(whole))
            if not whole:
                self._write(head)
        except OSError as error:
            raise DiveqError(f"{path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, key: str) -> Row | None:
        """The row that was noted under a key."""
        return self._rows.get(key)

    def add(self, items: Iterable[tuple[str, Row]]) -> None:
        """Note rows under their keys.

        Raises:
            DiveqError: the file cannot be written.
        """
        items = list(items)
        text = "".join(json_text({"key": key, "row": row_record(row)}) + "\n" for key, row in items)
        try:
            self._write(text.encode())
        except OSError as error:
            raise DiveqError(f"{self._path}: cannot be written: {error.strerror}") from error
        self._rows |= dict(items)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    def _read(self, line: bytes, number: int) -> None:
        try:
            content = json.loads(line)
            self._rows[str(content["key"])] = row_from_record(content["row"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise DiveqError(f"{self._path}: line {number} is damaged; delete the line") from error


@dataclass(frozen=True, slots=True)
class Notes:
    """One codec's rows in a journal, or nothing where there is none.

    Attributes:
        journal: None to keep nothing.
        codec: The codec's name.
        description: Its settings.
        environment: Versions of what measures.
        basis: What else its rows at a quality depend on, such as the content of weights.
        by_part: Whether rows are to say what their bits are spent on.
    """

    journal: Journal | None
    codec: str
    description: str
    environment: Mapping[str, str | int]
    basis: Callable[[float], str]
    by_part: bool

    def rows(self, path: Place, name: str, qualities: Sequence[float]) -> dict[float, Row]:
        """The rows of a picture that are known, by quality, under the picture's present name.

        Those that lack the parts that are wanted are not; parts that nobody wants are left out.
        """
        content = self._content(path)
        if self.journal is None or content is None:
            return {}
        found = {quality: self.journal.row(self._key(content, quality)) for quality in qualities}
        return {
            quality: replace(row, image=name, parts=row.parts if self.by_part else {})
            for quality, row in found.items()
            if row is not None and (row.parts or not self.by_part)
        }

    def add(self, path: Place, rows: Sequence[Row]) -> None:
        """Note the rows of a picture.

        Raises:
            DiveqError: the journal cannot be written.
        """
        content = self._content(path)
        if self.journal is not None and content is not None:
            self.journal.add((self._key(content, row.quality), row) for row in rows)

    def _content(self, path: Place) -> str | None:
        """What the picture is, whatever it is called; None if there is nothing to note."""
        if self.journal is None:
            return None
        try:
            if isinstance(path, Remote):
                return hashlib.sha256(path.read_bytes()).hexdigest()
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None  # said when the picture is loaded

    def _key(self, content: str, quality: float) -> str:
        versions: list[Any] = [self.environment.get(name) for name in _VERSIONS]
        basis = self.basis(quality)
        depends = [self.codec, self.description, basis, *versions, content, quality]
        return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:32]
