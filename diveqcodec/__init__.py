"""A neural image codec: pictures to `.dvq` files and back.

The public names load on first use: `import diveqcodec` answers at once and imports no torch.

    from diveqcodec import Codec

This module knows the names and where they live, nothing else.
"""

import importlib
from typing import TYPE_CHECKING

from diveqcodec.errors import DiveqError

if TYPE_CHECKING:
    from diveqcodec.codec import Codec

__all__ = ["Codec", "DiveqError", "__version__"]

__version__: str  # loads lazily too

_HOMES = {"Codec": "diveqcodec.codec"}  # lazy name -> the module it lives in


def __getattr__(name: str) -> object:
    """Loads a public name on its first use (PEP 562).

    Raises:
        AttributeError: the package has no such name.
    """
    if name == "__version__":
        value: object = _version()
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not, for completion and `help`."""
    return sorted({*globals(), *__all__})


def _version() -> str:
    """The installed version: pyproject.toml is the only place that states it."""
    import importlib.metadata  # 30 ms, which `diveq --help` need not wait for

    return importlib.metadata.version("diveqcodec")
