"""Pixels as FORMAT.md describes them, from the tensors of a weights file, against the synthesis."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from diveqcodec.codec import Codec
from diveqcodec.container import bitstream
from diveqcodec.exact import weights
from diveqcodec.windows import Networks

Floats = NDArray[np.float64]
PREFIX = "networks.synthesis."


class Decoder:
    """The chapter, in numpy."""

    def __init__(
        self, tensors: dict[str, torch.Tensor], config: dict[str, float], has_mirror: bool
    ) -> None:
        self.has_mirror = has_mirror
        self.sigma = tensors["networks.sigma"].double().numpy()
        self.order = tensors[PREFIX + "basis.order"].tolist()
        names = {k.removeprefix(PREFIX): v for k, v in tensors.items() if k.startswith(PREFIX)}
        self.numbers: dict[str, Floats] = {k: v.double().numpy() for k, v in names.items()}
        ends = (config["lambda_min"], config["lambda_max"])
        self.low, self.high = (
            0.5 * math.log(lam * 255**2 * (math.log(2) / 6) / 12) for lam in ends
        )

    def pixels(self, y_hat: Floats, gain_index: int) -> Floats:
        """Of a latent `[C, h, w]` in 2^-8 cells: `[H, W, 3]`, not rounded."""
        g = self.low + (self.high - self.low) * gain_index / 65535
        gain, t = math.exp(g), (g - self.low) / (self.high - self.low)
        y = y_hat / 256 / gain
        linear, z = self.linear(y), y / np.sqrt(self.sigma / gain)[:, None, None]
        added = self.networks(linear, z, t)
        if self.has_mirror:
            odd = np.array(self.order) % 2
            turned = (z * (-1.0) ** odd[:, None, None])[:, :, ::-1]
            added = (added + self.networks(linear[:, :, ::-1], turned, t)[:, :, ::-1]) / 2
        x = linear + 0.15 * math.exp((self.low - g) * 2 / 3) * added
        return (x * 127.5 + 127.5).transpose(1, 2, 0)

    def networks(self, linear: Floats, z: Floats, t: float) -> Floats:
        h = self.convolved("head", z)
        h = self.blocks("coarse", h, t)
        h = shuffled(self.convolved("up8", h), 2)
        h = self.blocks("middle", h, t)
        h = shuffled(self.convolved("up4", h), 2) + self.convolved("stem", shuffled_back(linear, 4))
        h = self.blocks("fine", h, t)
        return shuffled(self.convolved("tail", h), 4)

    def linear(self, y: Floats) -> Floats:
        n = self.numbers
        _, height, width = y.shape
        x = np.zeros((3, 16 * height, 16 * width))
        for channel, number in enumerate(self.order):
            a, k, m = number // 256, number // 16 % 16, number % 16
            function = np.einsum(
                "f,i,j->fij", n["basis.colour"][a], n["basis.rows"][k], n["basis.rows"][m]
            )
            for row, column in np.ndindex(height, width):
                block = x[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
                block += y[channel, row, column] * function
        x += n["basis.mean"][:, None, None]
        for start in range(8, 16 * height - 16, 16):
            run = x[:, start : start + 16]
            run[:] = np.einsum("ij,fjx->fix", n["lapping.matrix"], run)
        for start in range(8, 16 * width - 16, 16):
            run = x[:, :, start : start + 16]
            run[:] = np.einsum("ij,fxj->fxi", n["lapping.matrix"], run)
        return x

    def convolved(self, name: str, x: Floats) -> Floats:
        weight, bias = self.numbers[f"{name}.weight"], self.numbers[f"{name}.bias"]
        radius = weight.shape[2] // 2
        assert radius == (name != "head")
        padded = np.pad(x, ((0, 0), (radius, radius), (radius, radius)))
        total = np.zeros((len(weight), *x.shape[1:])) + bias[:, None, None]
        for i, j in np.ndindex(*weight.shape[2:]):
            window = padded[:, i : i + x.shape[1], j : j + x.shape[2]]
            total += np.einsum("of,fyx->oyx", weight[:, :, i, j], window)
        return total

    def blocks(self, name: str, h: Floats, t: float) -> Floats:
        number = 0
        while f"{name}.{number}.film.weight" in self.numbers:
            film = self.numbers[f"{name}.{number}.film.weight"]
            row = np.array([np.interp(t, np.arange(9) / 8, column) for column in film.T])
            a, b = np.split(row[:, None, None], 2)
            hidden = np.maximum(0, (1 + a) * self.convolved(f"{name}.{number}.first", h) + b)
            h = h + self.convolved(f"{name}.{number}.second", hidden)
            number += 1
        assert number
        return h


def shuffled(x: Floats, n: int) -> Floats:
    result = np.zeros((len(x) // n**2, n * x.shape[1], n * x.shape[2]))
    for f in range(len(result)):
        for i, j in np.ndindex(n, n):
            result[f, i::n, j::n] = x[n * n * f + n * i + j]
    return result


def shuffled_back(x: Floats, n: int) -> Floats:
    return np.stack([x[f, i::n, j::n] for f in range(len(x)) for i, j in np.ndindex(n, n)])


@pytest.mark.parametrize("gain_index", [0, 20000, 40000, 65535])
@pytest.mark.parametrize("size", [(3, 2), (1, 4)])
@pytest.mark.parametrize("has_mirror", [False, True])
def test_pixels_are_those_that_the_format_describes(
    tiny_model_path: Path, gain_index: int, size: tuple[int, int], has_mirror: bool
) -> None:
    codec = Codec(weights.load(tiny_model_path), networks=torch.float32)
    info = weights.read_info(tiny_model_path)
    decoder = Decoder(load_file(tiny_model_path), info["config"], has_mirror)
    channels = codec.model.config.channels
    random = np.random.default_rng(gain_index)
    y_hat = random.integers(-900, 901, (channels, *size)).astype(np.float64)
    described = decoder.pixels(y_hat, gain_index)
    latent = torch.from_numpy(y_hat).float().permute(1, 2, 0) / 256
    tile = bitstream.Tile(0, 0, 16 * size[1], 16 * size[0])
    networks = Networks(codec.model, codec.networks, has_mirror)
    made = networks.pixels(latent, networks.window(tile, tile), gain_index, is_grey=False)
    difference = np.abs(described.clip(0, 255) - made)
    assert difference.max() < 0.51  # `made` is rounded
    log_gain = codec.model.config.scale.log_gain(gain_index)
    linear = decoder.linear(y_hat / 256 / math.exp(log_gain))
    added = described - (linear * 127.5 + 127.5).transpose(1, 2, 0)
    assert np.abs(added).max() > 0.1  # they have a part in it
