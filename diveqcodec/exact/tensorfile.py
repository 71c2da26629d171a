"""Files of tensors, written and read: weights as far as training needs them, and checkpoints.

The tensors of a weights file are named by what they are for: `networks.` the float transforms,
`exact.` the integers that decide how a `.dvq` file is read, `training.` the float originals of
those integers, which coding never looks at.

Knows nothing of how the exact part is made or used (see `integers` and `weights`), and needs no
entropy coder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diveqcodec.config import from_dict
from diveqcodec.errors import ConfigError, ModelError
from diveqcodec.exact.metadata import KEY, TRAINING, read_info
from diveqcodec.model.config import ModelConfig
from diveqcodec.model.dvq import DvqModel

_SMALL = 8192  # tensors up to this many elements stay float32
NETWORKS, EXACT = "networks.", "exact."


def load_for_training(path: Path) -> tuple[DvqModel, dict[str, Any]]:
    """The trainable model of a weights file and its provenance.

    Raises:
        ModelError: missing, damaged, of another version, or not weights of diveq.
    """
    tensors, info = read_tensors(path, training=True)
    model = DvqModel(read_config(path, info))
    floats = part(tensors, NETWORKS) | part(tensors, TRAINING)
    try:
        model.load_state_dict(as_floats(floats))
    except RuntimeError as error:
        raise ModelError(f"{path}: weights do not fit their configuration") from error
    model.refresh()
    return model, dict(info["provenance"])


def read_tensors(path: Path, training: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors of a weights file, those for training if asked for, and its metadata.

    Raises:
        ModelError: as `load_for_training`.
    """
    info = read_info(path)
    try:
        return read(path, leave_out=() if training else (TRAINING,)), info
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: damaged weights ({error})") from error


def write(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """A safetensors file of contiguous tensors on the CPU, with `info` as its header's JSON.

    Raises:
        OSError: it cannot be written, and the same as SafetensorError.
    """
    save_file(tensors, path, metadata={KEY: json.dumps(info, sort_keys=True)})
    path.chmod(0o644)  # safetensors keeps its files to their owner


def read(path: Path, leave_out: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The tensors of a safetensors file, but for those whose names begin as in `leave_out`.

    Raises:
        OSError: it cannot be read.
        SafetensorError: it is damaged.
    """
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if not name.startswith(leave_out)]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in names}


def read_config(path: Path, info: dict[str, Any]) -> ModelConfig:
    """The configuration in the metadata of `path`.

    Raises:
        ModelError: it is not one of this program.
    """
    try:
        return from_dict(ModelConfig, info["config"])
    except (ConfigError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: {error}") from error


def compact(value: Tensor) -> Tensor:
    """Large tensors in half precision to be stored."""
    return value.half() if value.is_floating_point() and value.numel() > _SMALL else value


def as_floats(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same in single precision, integers as they are."""
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
