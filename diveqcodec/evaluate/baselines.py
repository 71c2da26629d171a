"""Learned codecs of CompressAI, from weights that the user has, measured like the project's own.

One checkpoint is one rate; its quality is the number it is registered under. CompressAI leaves the
file format to the caller, so the strings are wrapped here in the smallest container that can be
decoded from its bytes alone (about 20 bytes). Downloads nothing.
"""

import hashlib
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diveqcodec.errors import ConfigError, DamagedError, ModelError
from diveqcodec.evaluate.compressai_compat import import_compressai
from diveqcodec.evaluate.libraries import version_of
from diveqcodec.image import Picture

# Quality number, width, height, rows and columns of the deepest latent, number of strings.
_HEADER = struct.Struct("<HIIHHB")
_LENGTH = struct.Struct("<I")
# What reading a file, fitting it to an architecture and building tables of it raise if it is wrong.
_NO_CHECKPOINT = (
    *(AttributeError, EOFError, IndexError, KeyError, RuntimeError, TypeError, ValueError),
    pickle.UnpicklingError,
)
_STRIDE = 64  # of the deepest latent: pictures are padded to a multiple of it


class LearnedBaseline:
    """A fixed-rate architecture of CompressAI with one checkpoint a quality.

    Args:
        architecture: A name of CompressAI's zoo, such as `bmshj2018-hyperprior`.
        checkpoints: Quality number (0 to 65535) to the path of a `.pth` or `.pth.tar` file.
        device: Where the networks run. The entropy model is float: decode where you encoded.

    Raises:
        ConfigError: CompressAI has no such architecture, or there are no checkpoints.
        ModelError: A checkpoint cannot be read or does not fit the architecture.
        DiveqError: compressai is not installed.
    """

    suffix = ".cai"

    def __init__(
        self, architecture: str, checkpoints: Mapping[int, Path], device: str = "cpu"
    ) -> None:
        architectures = import_compressai("compressai.zoo.image").model_architectures
        if architecture not in architectures:
            known = ", ".join(sorted(architectures))
            raise ConfigError(f"{architecture}: CompressAI has no such model; it has: {known}")
        if not checkpoints:
            raise ConfigError(f"{architecture}: give one checkpoint at least")
        self.name = architecture
        self.description = "CompressAI, float entropy model, container of about 20 bytes counted"
        self.qualities = tuple(sorted(checkpoints))
        self._device = torch.device(device)
        self._models = {
            quality: _load(architectures[architecture], path).to(self._device)
            for quality, path in checkpoints.items()
        }
        self._contents = {quality: _content(path) for quality, path in checkpoints.items()}

    def basis(self, quality: float) -> str:
        """The version of CompressAI, the device, and the content of the quality's checkpoint."""
        content = self._contents.get(int(quality))
        return f"compressai {version_of('compressai')}, {self._device}, {content}"

    def compress(self, picture: Picture, quality: float) -> bytes:
        """Code the picture's colours with the checkpoint registered under `quality`.

        Raises:
            ConfigError: There is no checkpoint for this quality.
        """
        model = self._models.get(int(quality)) if quality == int(quality) else None
        if model is None:
            known = ", ".join(map(str, self.qualities))
            raise ConfigError(
                f"{self.name}: no checkpoint for quality {quality:g}; there are {known}"
            )
        height, width = picture.pixels.shape[:2]
        pixels = np.broadcast_to(picture.pixels, (height, width, 3)).astype(np.float32)
        x = torch.from_numpy(pixels).to(self._device).permute(2, 0, 1)[None] / 255
        left, right, top, bottom = _padding(height, width)
        with torch.no_grad():
            coded = model.compress(torch.nn.functional.pad(x, (left, right, top, bottom)))
        strings = [bytes(batch[0]) for batch in coded["strings"]]
        header = _HEADER.pack(int(quality), width, height, *coded["shape"], len(strings))
        return header + b"".join(_LENGTH.pack(len(string)) + string for string in strings)

    def decompress(self, data: bytes) -> Picture:
        """Decode what `compress` made, with the checkpoint that the header names.

        Raises:
            DamagedError: The container is cut short or too long.
            ConfigError: There is no checkpoint for the file's quality.
        """
        if len(data) < _HEADER.size:
            raise DamagedError(f"{self.name}: {len(data)} bytes are too few for a header")
        quality, width, height, rows, columns, count = _HEADER.unpack_from(data)
        if quality not in self._models:
            raise ConfigError(f"{self.name}: no checkpoint for quality {quality} of this file")
        strings = [[string] for string in _strings(data[_HEADER.size :], count)]
        with torch.no_grad():
            x: Tensor = self._models[quality].decompress(strings, (rows, columns))["x_hat"]
        left, _, top, _ = _padding(height, width)
        x = x[0, :, top : top + height, left : left + width]
        pixels = (x * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
        return Picture(pixels.cpu().contiguous().numpy())


def _load(model_class: Any, path: Path) -> Any:
    """A model in evaluation mode with its entropy coder's tables built."""
    pretrained = import_compressai("compressai.zoo.pretrained")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("network", "state_dict", "model_state_dict"):
            content = content.get(key, content)
        model = model_class.from_state_dict(pretrained.load_pretrained(content))
        if not all(weights.isfinite().all() for weights in model.parameters()):
            raise ValueError("it has weights that are no finite numbers")
        model.update(force=True)
    except OSError as error:
        raise ModelError(f"{path}: cannot read this checkpoint: {error.strerror}") from error
    except _NO_CHECKPOINT as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path}: not a checkpoint of {model_class.__name__}: {reason}") from error
    return model.eval()


def _content(path: Path) -> str:
    """The SHA-256 of a checkpoint."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # gone in the meantime
        raise ModelError(f"{path}: cannot read this checkpoint: {error.strerror}") from error


def _padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Left, right, top and bottom, centred as CompressAI's own evaluation pads."""
    right, bottom = -width % _STRIDE, -height % _STRIDE
    left, top = right // 2, bottom // 2
    return left, right - left, top, bottom - top


def _strings(data: bytes, count: int) -> list[bytes]:
    """The `count` strings, each behind its length, that fill the data exactly."""
    strings: list[bytes] = []
    start = 0
    for _ in range(count):
        if start + _LENGTH.size > len(data):
            raise DamagedError("the file of a learned baseline is cut short")
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size
        strings.append(data[start : start + length])
        start += length
    if start != len(data):
        raise DamagedError("the file of a learned baseline is cut short or has bytes left over")
    return strings
