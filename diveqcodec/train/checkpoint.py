"""Checkpoints of a run: model, averaged weights, optimizer, in a safetensors file.

Tensors: `model.*`, `average.*`, `optimizer.{step,exp_avg,exp_avg_sq}.*`, `extra.*` (see
`Trainer`). There is no random state: what a step draws depends on its number alone.

Knows nothing of what the info beside the tensors means.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diveqcodec.errors import TrainingError
from diveqcodec.weightfile import compact, part

PARTS = "weights-*-of-*.safetensors"  # names of what `save_parts` writes
_KEY = "diveq"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_INFO = {"step": int, "config": dict, "history": list}  # what every checkpoint says of itself


def save(
    path: Path,
    model: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
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
        for key, value in optimizer.state.get(parameter, {}).items():
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
    optimizer: torch.optim.Optimizer,
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
            if not any(f"{key}.{name}" in saved for key in ("step", *_MOMENTS)):
                continue  # it has not made a step yet
            # in the memory layout of the parameter: fused optimizers take that for granted
            state = {
                key: torch.empty_like(parameter).copy_(saved[f"{key}.{name}"]) for key in _MOMENTS
            }
            state["step"] = saved[f"step.{name}"].to(parameter.device)
            optimizer.state[parameter] = state
    except KeyError as error:
        raise ValueError(f"it lacks {error.args[0]}") from error
    except RuntimeError as error:
        raise ValueError("its tensors are those of another model") from error


def save_parts(
    folder: Path, tensors: dict[str, Tensor], info: dict[str, Any], limit: int = 16_000_000
) -> list[Path]:
    """Write what `load_average` returned in files of at most `limit` bytes, to be carried away.

    Large tensors are in half precision, but for the linear transform; there is no optimizer. Parts
    that were there before are gone.

    Raises:
        TrainingError: a file cannot be written.
    """
    parts: list[dict[str, Tensor]] = [{}]
    room = limit
    for name, value in tensors.items():
        value = compact(value)
        size = value.numel() * value.element_size() + 512  # and its entry in the header
        if size > room - 65536 and parts[-1]:
            parts.append({})
            room = limit
        parts[-1][f"average.{name}"] = value
        room -= size
    paths = []
    for number, content in enumerate(parts):
        path = folder / f"weights-{number + 1}-of-{len(parts)}.safetensors"
        _write(path, content, info)
        paths.append(path)
    for old in set(folder.glob(PARTS)) - set(paths):
        old.unlink()
    return paths


def load_average(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The averaged weights, float32, and the info of a checkpoint, run folder, or folder of parts.

    Raises:
        TrainingError: nothing there, or it is damaged or not complete.
    """
    if not path.is_dir():
        tensors, info = load(path)
        return part(tensors, "model.") | part(tensors, "average."), info
    if (path / "last.safetensors").exists():
        return load_average(path / "last.safetensors")
    files = sorted(path.glob(PARTS))
    if not files:
        raise TrainingError(f"{path}: neither a run nor weights in parts; `diveq train` makes runs")
    expected = int(files[0].stem.rpartition("-")[2])
    if len(files) != expected:
        raise TrainingError(f"{path}: {len(files)} of {expected} parts of the weights are there")
    merged: dict[str, Tensor] = {}
    for file in files:
        tensors, info = _read(file)
        merged |= part(tensors, "average.")
    return {k: v.float() if v.is_floating_point() else v for k, v in merged.items()}, info


def _write(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    temporary = path.with_name(path.name + ".tmp")
    try:
        save_file(tensors, temporary, metadata={_KEY: json.dumps(info)})
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise TrainingError(f"{path}: not written ({error}); what was there stays") from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        info = json.loads(metadata[_KEY])
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: no such checkpoint") from error
    except (KeyError, ValueError) as error:
        raise TrainingError(f"{path}: not a checkpoint of `diveq train`") from error
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: not a checkpoint, or damaged ({error})") from error
    if not all(isinstance(info.get(key), kind) for key, kind in _INFO.items()):
        raise TrainingError(f"{path}: not a checkpoint of `diveq train`")
    return tensors, info
