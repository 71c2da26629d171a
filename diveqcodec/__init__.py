"""A neural image codec: pictures to `.dvq` files and back.

    import diveqcodec

    data = diveqcodec.compress("photo.png", quality=50)
    diveqcodec.image.save(diveqcodec.decompress(data), "back.png", "png")

The public names load on first use: `import diveqcodec` answers at once and imports no torch. This
module knows the names and where they live, and how threads are to wait.
"""

import os
import sys
from typing import TYPE_CHECKING

from diveqcodec.errors import DiveqError
from diveqcodec.lazy import loader

if TYPE_CHECKING:
    from diveqcodec import image, zoo
    from diveqcodec.api import compress, decompress
    from diveqcodec.codec import Codec

__all__ = ["Codec", "DiveqError", "__version__", "compress", "decompress", "image", "zoo"]

__version__: str  # loads lazily too

_load, __dir__ = loader(
    __name__,
    {
        "Codec": "diveqcodec.codec",
        "compress": "diveqcodec.api",
        "decompress": "diveqcodec.api",
        "image": "diveqcodec.image",
        "zoo": "diveqcodec.zoo",
    },
)

# OpenMP's threads spin while they wait for each other, and where other programs want the cores they
# wait for long: compressing a picture took 25 times as long. Read when torch is loaded.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> object:
    return _version() if name == "__version__" else _load(name)


def _version() -> str:
    """The installed version: pyproject.toml is the only place that states it."""
    import importlib.metadata  # 30 ms, which `diveq --help` need not wait for

    return importlib.metadata.version("diveqcodec")
