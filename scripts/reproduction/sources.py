"""Experiment (a): quantizers on sources alone, without an encoder or a decoder to hide behind.

Every method is initialised on the same samples and trained on `mean squared error + its own loss`.
Latents are vectors of unit variance a dimension; what is reported was measured on fresh ones, by
table look-up.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diveqcodec.quantize import EMA, Quantizer, nearest, perplexity, usage
from scripts.reproduction.lines import Run
from scripts.reproduction.methods import make
from scripts.reproduction.photos import patches

BATCH = 512
SAMPLES = 30_000  # of k-means, or 20 a codeword if that is more
TESTED = 20_000  # fresh vectors to measure on
# What the small search tries: learning rates of Adam, or for EMA, which has none, 1 - decay.
KNOBS = {"low": 0.003, "middle": 0.01, "high": 0.03}


class Source:
    """Samples `[count, dim]` of a source; "patches" needs a folder of photographs."""

    def __init__(self, kind: str, dim: int, folder: Path | None) -> None:
        self.kind, self.dim = kind, dim
        self.pool = self.tested = torch.empty(0)
        if kind == "patches":
            if folder is None:
                raise ValueError("patches need a folder")
            self.pool = patches(folder, dim, 100_000, "train")
            self.tested = patches(folder, dim, TESTED, "test")
        else:
            self.tested = self.draw(TESTED, torch.Generator().manual_seed(999))

    def draw(self, count: int, g: torch.Generator) -> Tensor:
        """`[count, dim]`."""
        if self.kind == "patches":
            return self.pool[torch.randint(len(self.pool), (count,), generator=g)]
        if self.kind == "laplacian":  # the difference of two exponentials, of variance 2
            pair = -torch.rand(2, count, self.dim, generator=g).clamp_min(1e-12).log()
            return (pair[0] - pair[1]) / math.sqrt(2)
        return torch.randn(count, self.dim, generator=g)

    def bound(self, bits: float) -> float | None:
        """A lower bound on the squared error a dimension at `bits` a vector.

        The rate-distortion function of the Gaussian; Shannon's lower bound for the Laplacian, which
        is loose at low rates. None for patches, whose distribution nobody knows.
        """
        per_dim = 2.0 ** (-2 * bits / self.dim)
        return {"gaussian": per_dim, "laplacian": math.e / math.pi * per_dim}.get(self.kind)


def run(job: Run, folder: Path, knob: str) -> dict[str, Any]:
    """One run of experiment "sources" or "sources-knob"."""
    source = Source(job["source"], job["dim"], folder)
    method, size, steps = job["method"], job["size"], job["steps"]
    torch.manual_seed(job["seed"])
    g = torch.Generator().manual_seed(job["seed"])
    if method == "k-means":
        table = k_means(source, size, g)
        indices = nearest(source.tested, table)
        return _measured(source, indices, table[indices], size)
    quantizer = make(method, size, source.dim)
    quantizer.initialise(source.draw(max(4096, 2 * size), g), g)
    train(quantizer, source, steps, KNOBS[knob], g)
    with torch.no_grad():
        value, indices, _ = quantizer.eval()(source.tested)
    return {**_measured(source, indices, value, quantizer.sizes[0]), "knob": knob}


def train(
    quantizer: Quantizer, source: Source, steps: int, knob: float, g: torch.Generator
) -> None:
    """Adam with a learning rate that falls to zero over the second half."""
    parameters = list(quantizer.parameters())
    if isinstance(quantizer, EMA):
        quantizer.decay = 1 - knob
    optimizer = torch.optim.Adam(parameters, lr=knob) if parameters else None
    quantizer.train()
    for step in range(steps):
        z = source.draw(BATCH, g)
        value, _, loss = quantizer(z, g)
        if optimizer is None:
            continue
        for group in optimizer.param_groups:
            group["lr"] = knob * min(1.0, 2 * (1 - step / steps))
        total = (value - z).square().mean() + loss
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()


def k_means(source: Source, size: int, g: torch.Generator) -> Tensor:
    """Lloyd's algorithm from random samples; codewords that die are drawn again."""
    z = source.draw(max(SAMPLES, 20 * size), g)
    centres = z[torch.randperm(len(z), generator=g)[:size]].clone()
    for _ in range(20):
        indices = nearest(z, centres)
        counts = indices.bincount(minlength=size)
        sums = torch.zeros_like(centres).index_add(0, indices, z)
        centres = sums / counts.clamp_min(1)[:, None]
        empty = (counts == 0).nonzero().squeeze(1)
        centres[empty] = z[torch.randint(len(z), (len(empty),), generator=g)]
    return centres


def _measured(source: Source, indices: Tensor, value: Tensor, size: int) -> dict[str, Any]:
    return {
        "mse": (value - source.tested).square().mean().item(),
        "codewords": size,
        "usage": usage(indices, size),
        "perplexity": perplexity(indices, size),
        "bound": source.bound(math.log2(size)),
    }
