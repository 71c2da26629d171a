"""The journal of an evaluation: every row as soon as it is measured, so that one can go on.

A text file, one JSON object a line behind a head line. A row is found again by what it depends on:
the codec with its settings and what it says that it stands on, the content of the picture, the
quality, and the versions of what measured it. Beside rows it notes which decoded pictures a run is
about to save, and what they then are. Knows nothing of how rows are measured.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.resultfiles import json_text, row_from_record, row_record
from diveqcodec.evaluate.results import Measurement, Row
from diveqcodec.evaluate.saving import digest_of
from diveqcodec.locks import lock
from diveqcodec.store import Place

_HEAD = {"journal": "diveq eval", "version": 1}
_VERSIONS = ("diveqcodec", "torch", "pillow")  # other ones may write other bytes


class Journal:
    """The rows of a file, which may not exist yet; nobody else adds to it until it is closed.

    Args:
        path: Of the file.

    Raises:
        DiveqError: It cannot be read or written, another process has it open, it is no journal
            (and is left as it is), or is damaged elsewhere than in a last line that was cut short.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, Row] = {}
        self._saved: dict[str, str] = {}  # key -> SHA-256 of the decoded picture's file
        self._claims: dict[str, str] = {}  # file of a decoded picture -> key it was to be saved for
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Appending, so that even where there are no locks nobody writes over another's rows.
            # Without a buffer, for closing would write it again after a disk was full.
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            lock(self._file.fileno())
            self._go_on()
        except BlockingIOError as error:
            self._file.close()
            text = "another run adds rows to this journal; let it end, or name another file"
            raise DiveqError(f"{path}: {text}") from error
        except OSError as error:
            self._file.close()
            raise self._unwritable(error) from error
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        try:
            self._file.close()
        except OSError as error:  # some systems of files say only now that they are full
            if kind is None:
                raise self._unwritable(error) from error

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, key: str) -> Row | None:
        """The row that was noted under a key."""
        return self._rows.get(key)

    def saved(self, key: str) -> str | None:
        """The SHA-256 of the decoded picture's file, if it was saved."""
        return self._saved.get(key)

    def claimant(self, file: str) -> str | None:
        """The key for which a file was last to be written."""
        return self._claims.get(file)

    def add(self, items: Iterable[tuple[str, Measurement]]) -> None:
        """Note what was measured under keys.

        Raises:
            DiveqError: the file cannot be written.
        """
        self._note([_record(key, measurement) for key, measurement in items])

    def claim(self, files: Mapping[str, str]) -> None:
        """Note which files are to be written, each with its key, before they are.

        Raises:
            DiveqError: the file cannot be written.
        """
        new = {file: key for file, key in files.items() if self._claims.get(file) != key}
        self._note([{"key": key, "saves": file} for file, key in new.items()])

    def _note(self, records: Sequence[Mapping[str, Any]]) -> None:
        try:
            self._write("".join(json_text(record) + "\n" for record in records).encode())
        except OSError as error:
            raise self._unwritable(error) from error
        for record in records:
            self._take(record)

    def _take(self, record: Mapping[str, Any]) -> None:
        """A line's content.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        key = str(record["key"])
        if "saves" in record:
            self._claims[str(record["saves"])] = key
            return
        self._rows[key] = row_from_record(record["row"])
        if record.get("saved") is not None:
            self._saved[key] = str(record["saved"])

    def _go_on(self) -> None:
        """Read what is there, and cut off a last line that a kill cut short."""
        self._file.seek(0)
        data = self._file.read()
        head = json.dumps(_HEAD).encode() + b"\n"
        if data and not (data.startswith(head) or head.startswith(data)):
            raise DiveqError(f"{self._path}: is no journal of diveq eval; name another file")
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines()[1:], start=2):
            try:
                self._take(json.loads(line))
            except (KeyError, TypeError, ValueError, RecursionError) as error:
                text = f"line {number} is damaged; delete the line"
                raise DiveqError(f"{self._path}: {text}") from error
        self._file.truncate(len(whole))
        if not whole:
            self._write(head)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:  # a disk that is nearly full takes a part
            left = left[self._file.write(left) :]

    def _unwritable(self, error: OSError) -> DiveqError:
        return DiveqError(f"{self._path}: cannot be written: {error.strerror}")


def _record(key: str, measurement: Measurement) -> dict[str, Any]:
    saved = {} if measurement.saved is None else {"saved": measurement.saved}
    return {"key": key, "row": row_record(measurement.row), **saved}


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

    def content(self, path: Place) -> str | None:
        """What a picture is, whatever it is called; None if there is nothing to look up."""
        return None if self.journal is None else digest_of(path)  # None is said when it is loaded

    def rows(self, content: str | None, name: str, qualities: Sequence[float]) -> dict[float, Row]:
        """The rows of a picture that are known, by quality, under the picture's present name.

        Those that lack the parts that are wanted are not; parts that nobody wants are left out.
        """
        if self.journal is None or content is None:
            return {}
        found = {quality: self.journal.row(self._key(content, quality)) for quality in qualities}
        return {
            quality: replace(row, image=name, parts=row.parts if self.by_part else {})
            for quality, row in found.items()
            if row is not None and (row.parts or not self.by_part)
        }

    def is_saved(self, content: str | None, quality: float, file: Path) -> bool:
        """Whether a file is the decoded picture of a row, as it was saved then."""
        if self.journal is None or content is None:
            return False
        saved = self.journal.saved(self._key(content, quality))
        return saved is not None and saved == digest_of(file)

    def is_ours(self, content: str | None, quality: float, file: Path) -> bool:
        """Whether a file is such a picture, or where a run that was stopped was to save it."""
        if self.journal is None or content is None:
            return False
        claimant = self.journal.claimant(os.path.realpath(file))
        return claimant == self._key(content, quality) or self.is_saved(content, quality, file)

    def claim(self, files: Mapping[Path, tuple[str, float]]) -> None:
        """Note which decoded pictures are to be saved, each of some content at a quality.

        Raises:
            DiveqError: the journal cannot be written.
        """
        if self.journal is not None:
            keys = {os.path.realpath(file): self._key(*of) for file, of in files.items()}
            self.journal.claim(keys)

    def add(self, measurements: Sequence[Measurement]) -> None:
        """Note what was measured of a picture.

        Raises:
            DiveqError: the journal cannot be written.
        """
        if self.journal is not None:
            self.journal.add((self._key(one.content, one.row.quality), one) for one in measurements)

    def _key(self, content: str, quality: float) -> str:
        versions: list[Any] = [self.environment.get(name) for name in _VERSIONS]
        basis = self.basis(quality)
        depends = [self.codec, self.description, basis, *versions, content, quality]
        return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:32]
