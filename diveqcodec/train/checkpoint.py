"""Checkpoints of a run: model, averaged weights, optimizer, random state in a safetensors file.

Tensors: `model.*`, `average.*`, `optimizer.{step,exp_avg,exp_avg_sq}.*`, `random.cpu`,
`random.cuda`, `extra.*` (see `Trainer`). Knows nothing of what the info beside them means.
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

_KEY = "diveq"
_SMALL = 8192  # tensors up to this many elements stay float32 in parts of weights


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
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    _write(path, tensors, info)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and info of a checkpoint.

    Raises:
        TrainingError: missing, damaged, or not a checkpoint.
    """
    tensors, info = _read(path)
    if not any(k.startswith("optimizer.") for k in tensors):
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
        ValueError: the tensors are those of another model.
    """
    try:
        model.load_state_dict(part(tensors, "model."))
    except RuntimeError as error:
        raise ValueError("its tensors are those of another model") from error
    for key, value in part(tensors, "average.").items():
        average[key].copy_(value)
    saved = part(tensors, "optimizer.")
    for name, parameter in model.named_parameters():
        state = {}
        for key in ("exp_avg", "exp_avg_sq"):
            if f"{key}.{name}" in saved:
                # in the memory layout of the parameter: fused optimizers take that for granted
                state[key] = torch.empty_like(parameter).copy_(saved[f"{key}.{name}"])
        if state:
            state["step"] = saved[f"step.{name}"].to(parameter.device)
            optimizer.state[parameter] = state
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])


def save_parts(
    folder: Path,
    model: nn.Module,
    average: dict[str, Tensor],
    info: dict[str, Any],
    limit: int = 16_000_000,
) -> list[Path]:
    """Write the averaged weights in files of at most `limit` bytes, for carrying them elsewhere.

    Large tensors are in half precision, but for the linear transform; there is no optimizer.

    Raises:
        TrainingError: a file cannot be written.
    """
    tensors = dict(model.state_dict()) | average
    parts: list[dict[str, Tensor]] = [{}]
    room = limit
    for name, value in tensors.items():
        is_kept = value.numel() <= _SMALL or ".klt." in name or not value.is_floating_point()
        value = value if is_kept else value.half()
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
    files = sorted(path.glob("weights-*-of-*.safetensors"))
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


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


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
        raise TrainingError(f"{path}: not a checkpoint ({error})") from error
    return tensors, info
