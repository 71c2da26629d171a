"""Imports CompressAI, also where torchvision's compiled operators cannot load.

It knows one defect of one pair of packages. torchvision's wheel from PyPI is built against the
CUDA build of torch; beside a CPU-only torch its extension does not load, and `import torchvision`,
hence `import compressai`, then fails with "operator torchvision::nms does not exist", because
torchvision attaches rules to two operators whose *schemas* the extension would have defined.
Nothing here is used by compressing or decompressing `.dvq` files.
"""

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.libraries import import_library

_TOO_NEW = (3, 13)  # as in pyproject.toml: compressai needs numpy < 2
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_compressai(module: str = "compressai") -> Any:
    """Import `compressai` or one of its modules.

    Raises:
        DiveqError: compressai, or something that it needs, is not installed.
    """
    if sys.version_info >= _TOO_NEW and importlib.util.find_spec("compressai") is None:
        raise DiveqError("compressai: there is none for this Python; use Python 3.11 or 3.12")
    _define_missing_schemas()
    return import_library(module, "'diveqcodec[eval]'")


@cache
def _define_missing_schemas() -> torch.library.Library | None:
    """Define `nms` and `qnms` if torchvision's extension cannot do so.

    Returns:
        The library that owns the definitions, kept alive by the cache (they vanish with it), or
        None where they are not needed.
    """
    if hasattr(torch.ops.torchvision, "nms") or _loads_extension():
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(name + _SCHEMA)
    return library


def _loads_extension() -> bool:
    """Load torchvision's own operators, without importing torchvision."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # not installed: the import itself says so better
    for path in Path(spec.origin).parent.glob("_C.*"):
        try:
            torch.ops.load_library(str(path))
        except OSError:
            return False
    return hasattr(torch.ops.torchvision, "nms")
