"""Checkpoints of a run: model, averaged weights, optimizer, in a safetensors file.

Tensors: `model.*`, `average.*`, `optimizer.{step,exp_avg,exp_avg_sq,momentum}.*`, `extra.*` (see
`Trainer`). There is no random state: what a step draws depends on its number alone.

Knows nothing of what the info beside the tensors means.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from diveqcodec.atomic import replacing
from diveqcodec.errors import TrainingError
from diveqcodec.exact import tensorfile
from diveqcodec.exact.metadata import read_object
from diveqcodec.exact.tensorfile import part
from diveqcodec.train.optimizer import Optimizers

_INFO = {"step": int, "config": dict, "history": list}  # what every checkpoint says of itself


def save(
    path: Path,
    model: nn.Module,
    average: dict[str, Tensor],
    optimizer: Optimizers,
    info: dict[str, Any],
    extra: dict[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint atomically; an error (a full disk) leaves the old file as it was.

    Raises:
        TrainingError: the file cannot be written.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    tensors |= {f"extra.{k}": v for k, v in (extra or {}).items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state_of(parameter).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    _write(path, tensors, info)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and info of a checkpoint.

    Raises:
        TrainingError: missing, damaged, or not a checkpoint.
    """
    tensors, info = _read(path)
    if not any(name.startswith("model.") for name in tensors):
        raise TrainingError(f"{path}: not a checkpoint of `diveq train`")
    return tensors, info


def restore(
    tensors: dict[str, Tensor],
    model: nn.Module,
    average: dict[str, Tensor],
    optimizer: Optimizers,
) -> None:
    """Put everything back where `save` took it from.

    Raises:
        ValueError: the tensors are those of another model, or some are missing.
    """
    averaged, saved = part(tensors, "average."), part(tensors, "optimizer.")
    try:
        model.load_state_dict(part(tensors, "model."))
        for key, value in average.items():
            value.copy_(averaged[key])
        for name, parameter in model.named_parameters():
            kept = optimizer.kept(parameter)
            if not any(f"{key}.{name}" in saved for key in kept):
                continue  # it has not made a step yet, or one of another optimizer
            # in the memory layout of the parameter: fused optimizers take that for granted
            optimizer.state_of(parameter).update(
                {
                    key: torch.empty_like(like).copy_(saved[f"{key}.{name}"])
                    for key, like in kept.items()
                }
            )
    except KeyError as error:
        raise ValueError(f"it lacks {error.args[0]}") from error
    except RuntimeError as error:
        raise ValueError("its tensors are those of another model") from error


def is_checkpoint(path: Path) -> bool:
    """Whether a file says that it is one; its tensors are not read."""
    try:
        return _is_complete(read_object(path))
    except (OSError, SafetensorError, KeyError, ValueError):
        return False


def load_average(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The averaged weights and the info of a checkpoint or a run folder.

    Raises:
        TrainingError: nothing there, or it is damaged.
    """
    if path.is_dir():
        path = path / "last.safetensors"
        if not path.exists():
            raise TrainingError(f"{path.parent}: not a run; `diveq train` makes runs")
    tensors, info = load(path)
    return part(tensors, "model.") | part(tensors, "average."), info


def _write(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    try:
        with replacing(path) as temporary:
            tensorfile.write(temporary, tensors, info)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error  # not the name that the file had so far
        raise TrainingError(f"{path}: not written ({reason}); what was there stays") from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        info, tensors = read_object(path), tensorfile.read(path)
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: no such checkpoint") from error
    except (KeyError, ValueError) as error:
        raise TrainingError(f"{path}: not a checkpoint of `diveq train`") from error
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: not a checkpoint, or damaged ({error})") from error
    if not _is_complete(info):
        raise TrainingError(f"{path}: not a checkpoint of `diveq train`")
    return tensors, info


def _is_complete(info: object) -> bool:
    """Whether this is what a checkpoint says of itself."""
    return isinstance(info, dict) and all(
        isinstance(info.get(key), kind) for key, kind in _INFO.items()
    )
