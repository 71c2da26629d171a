"""Point 3, honest rates: what SF-DiVeQ costs when its decoder is given bits and nothing else.

A curve is trained as published (coordinates uniform in [0, 1], noise in the forward pass). At equal
total bits B it is then decoded in several ways: the published projection, whose decoder is handed a
real number; the segment and b more bits, 2^(B - b) corners; the segment and a dither that both
sides draw from one seed. Beside them a curve that was trained on its grid, and DiVeQ with 2^B
codewords.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from diveqcodec.quantize import DiVeQ, SFDiVeQ, interpolate, nearest
from scripts.reproduction.lines import Run
from scripts.reproduction.methods import PUBLISHED
from scripts.reproduction.sources import KNOBS, Source, train

WAYS = {
    "diveq": "DiVeQ, 2^B codewords",
    "grid": "SF-DiVeQ trained on the grid, segment + 2 bits",
    "dither": "segment + shared dither",
    "segment+0": "segment",
    "segment+1": "segment + 1 bit",
    "segment+2": "segment + 2 bits",
    "segment+3": "segment + 3 bits",
    "real": "segment + a real number, as published",
}


def run(job: Run, folder: Path) -> dict[str, Any]:
    """One run of "rates"; ways that decode the same curve train it once."""
    way, bits = job["way"], job["bits"]
    source = Source(job["source"], job["dim"], folder)
    more = int(way[-1]) if way.startswith("segment") else 0
    kind, size = way, 1 << bits
    if way == "grid":
        size >>= 2
    elif way != "diveq":
        kind, size = "curve", size >> more
    trained = (kind, size, max(4096, 2 << bits), job["seed"], job["steps"])
    quantizer = _trained(job["source"], job["dim"], folder, *trained)
    z = source.tested
    with torch.no_grad():
        if way in ("diveq", "grid"):
            value = quantizer.eval()(z).value
        elif way == "real":
            value = project(z, quantizer.codebook)
        elif way == "dither":
            g = torch.Generator().manual_seed(100 + job["seed"])
            value = dithered(z, quantizer.codebook, g)
        else:
            table = midpoints(quantizer.codebook, 1 << more)
            value = table[nearest(z, table)]
    return {"mse": (value - z).square().mean().item(), "is_decodable": way != "real"}


@lru_cache(maxsize=16)
def _trained(
    source_kind: str,
    dim: int,
    folder: Path,
    kind: str,
    size: int,
    first: int,
    seed: int,
    steps: int,
) -> DiVeQ | SFDiVeQ:
    """DiVeQ, or a curve trained on its grid or as published, initialised on `first` samples."""
    source = Source(source_kind, dim, folder)
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    if kind == "diveq":
        quantizer: DiVeQ | SFDiVeQ = DiVeQ(size, dim, **PUBLISHED)
    else:
        tau: Literal["grid", "uniform"] = "grid" if kind == "grid" else "uniform"
        quantizer = SFDiVeQ(size, dim, steps=4, tau=tau, **PUBLISHED)
    quantizer.initialise(source.draw(first, g), g)
    train(quantizer, source, steps, KNOBS["middle"], g)
    return quantizer


def project(z: Tensor, codebook: Tensor) -> Tensor:
    """The nearest point of the whole curve to every latent; its coordinate is a real number."""
    best = torch.full((len(z),), torch.inf)
    result = torch.empty_like(z)
    for c0, c1 in zip(codebook[:-1], codebook[1:], strict=True):
        d = c1 - c0
        tau = ((z - c0) @ d / d.square().sum().clamp_min(1e-12)).clamp(0, 1)[:, None]
        point = interpolate(c0, c1, tau)
        error = (point - z).square().sum(1)
        is_nearer = error < best
        best = torch.where(is_nearer, error, best)
        result = torch.where(is_nearer[:, None], point, result)
    return result


def dithered(z: Tensor, codebook: Tensor, g: torch.Generator) -> Tensor:
    """The nearest of the points that the shared seed puts on each segment, anew for every block."""
    pieces = []
    for piece in z.split(100):
        tau = torch.rand(len(codebook) - 1, 1, generator=g)
        points = interpolate(codebook[:-1], codebook[1:], tau)
        pieces.append(points[nearest(piece, points)])
    return torch.cat(pieces)


def midpoints(codebook: Tensor, parts: int) -> Tensor:
    """The middles of `parts` equal parts of every segment: (K - 1) * parts points."""
    tau = (torch.arange(parts) + 0.5)[:, None] / parts
    return interpolate(codebook[:-1, None], codebook[1:, None], tau).flatten(0, 1)
