"""A model as a safetensors file: float networks, exact integers, and what training goes on from.

Tensors are named by what they are for: `networks.` the float transforms, `exact.` the integers that
decide how a file is read, `training.` the float originals of those integers, which coding never
looks at. The model id, eight bytes of SHA-256, covers the first two and the configuration.

Knows nothing of where weights are kept (see `zoo`), nor of pictures.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from diveqcodec.config import to_dict
from diveqcodec.container.entropy import PRECISION, Tables
from diveqcodec.errors import ModelError
from diveqcodec.exact.integers import integers
from diveqcodec.exact.metadata import TRAINING, VERSION, check_training, read_info
from diveqcodec.exact.prior import FixedPrior
from diveqcodec.exact.tensorfile import (
    EXACT,
    NETWORKS,
    as_floats,
    compact,
    load_for_training,
    part,
    read_config,
    read_tensors,
    write,
)
from diveqcodec.model.candidates import GRID, Search
from diveqcodec.model.config import COMPONENTS, ModelConfig
from diveqcodec.model.dvq import DvqModel, Transforms
from diveqcodec.model.search import skipping

__all__ = [
    "CodingLayer",
    "CodingModel",
    "check_training",
    "identify",
    "load",
    "load_for_training",
    "read_info",
    "save",
]
_LARGEST_POINT = 1 << 20  # of codewords and lattice basis: escaped sums stay far below 2^53


@dataclass(frozen=True, slots=True)
class CodingLayer:
    """A codebook as coding uses it.

    `codewords` int64 `[K, d]` and `basis` int64 `[d, d]` in units of 2^-8 cells; `tables` the
    frequencies of `[rows, K + 1]`; `bits` the same as bits, float32, for the search, where
    skipped classes have the null codeword only.
    """

    codewords: Tensor
    basis: Tensor
    tables: Tables
    bits: Tensor
    search: Search


@dataclass(frozen=True, slots=True)
class CodingModel:
    """Everything a codec needs, loaded; `path` is where it was loaded from."""

    name: str
    path: Path
    model_id: bytes
    config: ModelConfig
    provenance: dict[str, Any]
    transforms: Transforms
    prior: FixedPrior
    fine: CodingLayer
    coarse: CodingLayer | None

    @property
    def device(self) -> torch.device:
        """Where the float networks run; the exact part is on the CPU."""
        return self.transforms.sigma.device


def save(model: DvqModel, path: Path, provenance: dict[str, Any]) -> bytes:
    """Export `model` to `path` and return its id.

    Raises:
        ModelError: the file cannot be written.
    """
    networks = set(Transforms(model.config).state_dict())
    tensors = {EXACT + k: v.contiguous() for k, v in integers(model).items()}
    for name, value in model.state_dict().items():
        prefix = NETWORKS if name in networks else TRAINING
        tensors[prefix + name] = compact(value.detach().cpu()).contiguous()
    config = to_dict(model.config)
    model_id = identify(tensors, config)
    info = {"version": VERSION, "id": model_id.hex(), "config": config, "provenance": provenance}
    try:
        write(path, tensors, info)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: weights not written ({error})") from error
    return model_id


def load(path: Path, device: torch.device | None = None) -> CodingModel:
    """Load what coding needs from a weights file.

    Only the float networks go to `device`. The exact part stays on the CPU, next to the entropy
    coder that waits for it between passes; every device has one, and every one has float64.

    Raises:
        ModelError: missing, damaged, of another version, or not weights of diveq.
    """
    tensors, info = read_tensors(path, training=False)
    device = device or torch.device("cpu")
    config = read_config(path, info)
    if identify(tensors, info["config"]).hex() != info["id"]:
        raise ModelError(f"{path}: damaged: its tensors do not match its id")
    try:
        transforms = _transforms(config, part(tensors, NETWORKS))
        exact = part(tensors, EXACT)
        fine = _layer(exact, "fine", config)
        coarse = _layer(exact, "coarse", config) if config.coarse_slices else None
        prior = FixedPrior(config, part(exact, "prior."))
    except (KeyError, RuntimeError, ValueError, ModelError) as error:
        why = " ".join(str(error).split())  # torch writes a line for every tensor
        raise ModelError(f"{path}: weights do not fit their configuration ({why})") from error
    transforms = transforms.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    transforms.requires_grad_(False)
    return CodingModel(
        name=path.stem,
        path=path,
        model_id=bytes.fromhex(info["id"]),
        config=config,
        provenance=dict(info["provenance"]),
        transforms=transforms,
        prior=prior,
        fine=fine,
        coarse=coarse,
    )


def identify(tensors: dict[str, Tensor], config: dict[str, Any]) -> bytes:
    """Eight bytes of SHA-256 over configuration and tensors, those for training left out."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        if name.startswith(TRAINING):
            continue
        value = tensors[name].contiguous()
        digest.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.digest()[:8]


def _transforms(config: ModelConfig, networks: dict[str, Tensor]) -> Transforms:
    transforms = Transforms(config)
    for name, value in networks.items():
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name} is not finite")
    transforms.load_state_dict(as_floats(networks))
    for basis in (transforms.analysis.basis, transforms.synthesis.basis):
        order = basis.order.sort().values
        if int(order[0]) < 0 or int(order[-1]) >= COMPONENTS or bool((order.diff() == 0).any()):
            raise ValueError(f"basis.order does not name {len(order)} of {COMPONENTS} components")
    return transforms


def _layer(exact: dict[str, Tensor], name: str, config: ModelConfig) -> CodingLayer:
    """A codebook, once its numbers are known to be those that FORMAT.md asks for."""
    is_fine = name == "fine"
    most = config.codebook if is_fine else config.coarse_codebook  # a curve has less
    size = min((most, *exact[f"{name}.codewords"].shape[:1]))
    shapes = config.shapes if is_fine else 1
    expected = {
        "codewords": (size, config.group),
        "basis": (config.group, config.group),
        "frequencies": (config.sizes * shapes, size + 1),
    }
    numbers = {key: exact[f"{name}.{key}"] for key in expected}
    for key, value in numbers.items():
        if value.dtype != torch.int32 or value.shape != expected[key]:
            found = f"{value.dtype} {list(value.shape)}"
            raise ValueError(f"{name}.{key} is {found}, not torch.int32 {list(expected[key])}")
    codewords, basis = numbers["codewords"].long(), numbers["basis"].long()
    if max(int(codewords.abs().max()), int(basis.abs().max())) > _LARGEST_POINT:
        raise ValueError(f"points of {name} are too far out")
    if bool(codewords[0].any()):
        raise ValueError(f"the first codeword of {name} is not zero")
    if abs(float(torch.linalg.det(basis.double()))) < 0.5:  # of integers: it is one
        raise ValueError(f"{name}.basis spans no lattice")
    frequencies = numbers["frequencies"]
    bits = PRECISION - torch.log2(frequencies.double())
    return CodingLayer(
        codewords=codewords,
        basis=basis,
        tables=Tables(frequencies.numpy().astype("uint32")),
        bits=skipping(bits.float(), shapes),
        search=Search.of(codewords.float() / GRID, 1.0 if is_fine else config.coarse_cell, basis),
    )
