"""Imports libraries that not every installation has, late and with a clear message.

It knows nothing about what they are used for. Compressing and decompressing need none of them.
"""

import importlib
from importlib import metadata
from typing import Any

from diveqcodec.errors import DiveqError


def import_library(module: str, install: str) -> Any:
    """Import a module such as `matplotlib.figure`.

    Args:
        module: Its full name.
        install: What `pip install` needs to bring it.

    Raises:
        DiveqError: The library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        # A library that is there but lacks one of *its* needs would send the user to the wrong
        # remedy, so the message names what was really missing.
        missing = error.name or module
        raise DiveqError(
            f"{missing}: not installed; install it with: pip install {install}"
        ) from error


def version_of(package: str) -> str:
    """The version of a package as pip knows it, or that pip knows none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed as a package"
