"""A file is the old one or the new one, whenever a machine goes down. Knows no contents."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to: it takes its place if the block ends well.

    Otherwise what was written is removed, and the old file stays.
    """
    temporary = target.with_name(target.name + ".tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
