"""Imports the libraries of the optional extra `diveqcodec[eval]`, late and with a clear message.

It knows the name of the extra and nothing about what the libraries are used for. Compressing and
decompressing need none of them.
"""

import importlib
from typing import Any

from diveqcodec.errors import DiveqError


def import_extra(module: str) -> Any:
    """Import a module that only `diveqcodec[eval]` brings, such as `scipy.interpolate`.

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
            f"{missing}: not installed, but evaluation needs it; "
            "install it with: pip install 'diveqcodec[eval]'"
        ) from error
