"""One process at a time with a file. Knows not what for."""

from __future__ import annotations

import logging
import sys

log = logging.getLogger(__name__)


def lock(file: int) -> None:
    """Be the only one with an open file until it is closed, or this process is gone.

    Where a system, or a system of files, has no locks, everyone is let in.

    Raises:
        BlockingIOError: another one has it.
    """
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:
            log.info("no lock: %s", error.strerror)
