"""A neural image codec: pictures to `.dvq` files and back.

    import diveqcodec

    data = diveqcodec.compress("photo.png", quality=50)
    diveqcodec.image.save(diveqcodec.decompress(data), "back.png", "png")

The public names load on first use: `import diveqcodec` answers at once and imports no torch. This
module knows the names and where they live, and how threads are to wait.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING

from diveqcodec.errors import DiveqError

if TYPE_CHECKING:
    from diveqcodec import image, zoo
    from diveqcodec.api import compress, decompress
    from diveqcodec.codec import Codec

__all__ = ["Codec", "DiveqError", "__version__", "compress", "decompress", "image", "zoo"]

__version__: str  # loads lazily too

# lazy name -> the module it lives in, or is
_HOMES = {
    "Codec": "diveqcodec.codec",
    "compress": "diveqcodec.api",
    "decompress": "diveqcodec.api",
    "image": "diveqcodec.image",
    "zoo": "diveqcodec.zoo",
}

# OpenMP's threads spin while they wait for each other, and where other programs want the cores they
# wait for long: compressing a picture took 25 times as long. Read when torch is loaded.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> object:
    """Loads a public name on its first use (PEP 562).

    Raises:
        AttributeError: the package has no such name.
    """
    if name == "__version__":
        value: object = _version()
    elif name in _HOMES:
        module = importlib.import_module(_HOMES[name])
        value = module if _HOMES[name].endswith(f".{name}") else getattr(module, name)
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
