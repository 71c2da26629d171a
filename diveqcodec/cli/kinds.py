"""Which files of a folder a command is about: told by their content, never by their names.

Only folders are sifted; a file that the user named is opened, and its error reported.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file: what messages call several of them, and how one is recognised."""

    plural: str
    is_one: Callable[[Path], bool]


def _is_dvq(path: Path) -> bool:
    from diveqcodec.bitstream import MAGIC

    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return True  # so that the error is reported when it is opened again


def _is_picture(path: Path) -> bool:
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


DVQ = Kind(".dvq files", _is_dvq)
PICTURES = Kind("pictures", _is_picture)
