"""Which files of a folder a command is about: by their content, or because their names say so.

Only folders are sifted; a file that the user named is opened, and its error reported. So is a file
of a folder that claims to be of the kind and is not: nothing that might be meant vanishes. In a
store only names count.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diveqcodec.container import bitstream
from diveqcodec.store import Place, Remote

DVQ_SUFFIX = bitstream.SUFFIX


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file.

    Attributes:
        singular: What messages call one of them.
        plural: And several.
        is_one: How one is recognised.
        output_suffix: Of what the command writes beside its inputs: passed over without a word.
    """

    singular: str
    plural: str
    is_one: Callable[[Place], bool]
    output_suffix: str | None = None


def _is_dvq(path: Place) -> bool:
    if path.suffix.lower() == DVQ_SUFFIX or isinstance(path, Remote):
        return path.suffix.lower() == DVQ_SUFFIX
    try:
        with path.open("rb") as file:
            return file.read(len(bitstream.MAGIC)) == bitstream.MAGIC
    except OSError:
        return True  # so that the error is reported when it is opened again


def _is_picture(path: Place) -> bool:
    from diveqcodec.image.kinds import SUFFIXES, claims_to_be_a_picture

    if isinstance(path, Remote):
        return path.suffix.lower() in SUFFIXES
    try:
        if claims_to_be_a_picture(path):
            return True
    except OSError:
        return True  # as above
    if path.suffix.lower() == DVQ_SUFFIX:
        return False
    return _opens(path)


def _opens(path: Path) -> bool:
    """Whether Pillow takes it for a picture: not all formats have a beginning that one may know."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            Image.open(path).close()
        except UnidentifiedImageError:
            return False
        except Exception:  # damaged, too large for Pillow, not readable: reported when it is loaded
            return True
    return True


DVQ = FileKind("a .dvq file", ".dvq files", _is_dvq)
PICTURES = FileKind("a picture", "pictures", _is_picture, DVQ_SUFFIX)
