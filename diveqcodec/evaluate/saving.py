"""The decoded pictures that an evaluation saves: where they lie, and what they are.

A file is known by the SHA-256 of its bytes, whatever it is called. Knows no codec and no journal.
"""

import hashlib
from pathlib import Path

from diveqcodec.atomic import replacing
from diveqcodec.errors import DiveqError
from diveqcodec.image import Picture, save
from diveqcodec.store import Place, Remote


def decoded_path(folder: Path, image: str, quality: float) -> Path:
    """Where the decoded picture of a row is saved."""
    return folder / f"{image}.q{quality:g}.png"


def save_decoded(decoded: Picture, target: Path) -> str:
    """Save a decoded picture as PNG, making its folders; the SHA-256 of the file.

    Raises:
        DiveqError: it cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiveqError(f"{target.parent}: cannot make this folder: {error.strerror}") from error
    try:
        with replacing(target) as temporary:
            save(decoded, temporary, "png")
            return _digest(temporary)
    except OSError as error:
        raise DiveqError(f"{target}: cannot be written: {error.strerror}") from error


def digest_of(file: Place) -> str | None:
    """The SHA-256 of a file; None if it cannot be read."""
    try:
        if isinstance(file, Remote):
            return hashlib.sha256(file.read_bytes()).hexdigest()
        return _digest(file)
    except (OSError, ValueError):  # a name that no file can have is a ValueError
        return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
