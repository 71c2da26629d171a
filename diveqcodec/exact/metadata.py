"""What stands beside the tensors of a weights file: version, id, configuration, provenance.

Weights and checkpoints are safetensors files, with one JSON object under one key of their header.
Needs no torch: the zoo looks at every installed file. Of the tensors it knows whether training left
its own, nothing more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from diveqcodec.errors import ModelError

KEY = "diveq"  # of the header
TRAINING = "training."  # how tensors are named that only training, or refinement, goes on from
VERSION = 1  # of weights


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of any safetensors file of this program; the tensors are not read.

    Raises:
        OSError: no such file, or it cannot be read.
        SafetensorError: not a safetensors file, or truncated.
        KeyError: of another program.
        ValueError: not JSON.
    """
    with safe_open(path, "numpy") as file:
        metadata = file.metadata() or {}
    info: dict[str, Any] = json.loads(metadata[KEY])
    return info


def read_info(path: Path) -> dict[str, Any]:
    """The metadata of a weights file: version, id, config, provenance. Reads no tensors.

    Raises:
        ModelError: missing, damaged, of another version, or not weights of diveq.
    """
    try:
        info = read_object(path)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: not a weights file ({error})") from error
    except KeyError as error:
        raise ModelError(f"{path}: not weights of diveq; `diveq export` makes them") from error
    except ValueError as error:
        raise ModelError(f"{path}: damaged metadata") from error
    try:
        if "step" in info:
            raise ModelError(
                f"{path}: a checkpoint, not weights; `diveq export` makes weights of it"
            )
        version = info["version"]
        if version == VERSION:
            bytes.fromhex(info["id"])
            dict(info["config"]), dict(info["provenance"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: damaged metadata") from error
    if version != VERSION:
        raise ModelError(f"{path}: weights of version {version}; this program reads {VERSION}")
    return info


def check_training(path: Path) -> None:
    """Refuse weights without what training left in them, which only coding can use.

    Raises:
        ModelError: they are, or cannot be read.
    """
    try:
        with safe_open(path, "numpy") as file:
            if any(name.startswith(TRAINING) for name in file.keys()):  # noqa: SIM118
                return
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: not a weights file ({error})") from error
    raise ModelError(
        f"{path}: what training left was taken out of it, and efforts above 5 need that; use -e 5"
    )
