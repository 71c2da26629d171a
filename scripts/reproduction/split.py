"""Point 4: who gets the gradient, encoder or codeword, and how much noise it wants.

A small transform codec that trains in seconds: 8x8 luma patches, a linear map to 16 coefficients
(which starts as the principal components) with a correction beside it, eight pairs each quantized
with 64 codewords of its own, and the mirror. The task is the squared error of a patch; under
rate-aware assignment the index minimises `|z - c|^2 + price * bits`, with the frequencies of every
pair counted on the way. Hence the exact weight of a commitment is 1: z then pays what the choice
pays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diveqcodec.quantize import diveq_step, usage, with_value
from scripts.reproduction.lines import Run
from scripts.reproduction.photos import patches

PAIRS, WIDTH, SIZE, BATCH = 8, 2, 64, 256
PRICE = 0.2  # of a bit, in squared error of a patch at unit variance a pixel
SPLITS = {
    "encoder": "all to the encoder",
    "codeword": "all to the codeword",
    "both": "all to each",
    "commitment": "all to each, exact commitment",
    "vq-vae": "encoder; codeword by VQ-VAE's loss",
    "diveq": "DiVeQ's split",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """How a step is taken."""

    split: str
    rho: float
    is_joint: bool
    is_rate_aware: bool


class Coder(nn.Module):
    """Analysis, codebook, synthesis, and the frequencies of every pair."""

    frequencies: Tensor

    def __init__(self, samples: Tensor) -> None:
        super().__init__()
        count = PAIRS * WIDTH
        _, axes = torch.linalg.eigh(samples.t() @ samples)
        basis = axes.flip(1)[:, :count].t().contiguous()
        self.analysis = nn.Parameter(basis.clone())
        self.synthesis = nn.Parameter(basis.t().clone())
        self.before = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, count))
        self.after = nn.Sequential(nn.Linear(count, 64), nn.ReLU(), nn.Linear(64, 64))
        for branch in (self.before, self.after):
            for parameter in branch[2].parameters():
                nn.init.zeros_(parameter)
        spread = (samples @ basis.t()).reshape(-1, PAIRS, WIDTH).std((0, 2))
        self.codebook = nn.Parameter(spread[:, None, None] * torch.randn(PAIRS, SIZE, WIDTH))
        with torch.no_grad():
            self.codebook[:, 0] = 0.0
        self.register_buffer("frequencies", torch.full((PAIRS, SIZE), 1.0 / SIZE))

    def encode(self, x: Tensor) -> Tensor:
        """Patches `[N, 64]` to pairs `[N, 8, 2]`."""
        latent: Tensor = x @ self.analysis.t() + self.before(x)
        return latent.reshape(-1, PAIRS, WIDTH)

    def decode(self, value: Tensor) -> Tensor:
        """The mirror of `encode`."""
        latent = value.flatten(1)
        patch: Tensor = latent @ self.synthesis.t() + self.after(latent)
        return patch

    @torch.no_grad()
    def assign(self, z: Tensor, is_rate_aware: bool) -> Tensor:
        """Indices `[N, 8]`."""
        # |z|^2 is the same for every codeword: left out. [N, 8, 64]
        cost = self.codebook.square().sum(-1) - 2 * torch.einsum("npw,pkw->npk", z, self.codebook)
        if is_rate_aware:
            cost = cost - PRICE * self.frequencies.log2()
        return cost.argmin(-1)

    def lookup(self, indices: Tensor) -> Tensor:
        """Codewords `[N, 8, 2]` of indices `[N, 8]`."""
        found: Tensor = self.codebook[torch.arange(PAIRS), indices]
        return found

    @torch.no_grad()
    def count(self, indices: Tensor) -> None:
        """Moves the frequencies of every pair toward those of a batch."""
        for pair in range(PAIRS):
            counts = indices[:, pair].bincount(minlength=SIZE).float() + 0.02
            self.frequencies[pair].lerp_(counts / counts.sum(), 0.02)


def run(job: Run, folder: Path) -> dict[str, Any]:
    """One run of "split"."""
    torch.manual_seed(job["seed"])
    g = torch.Generator().manual_seed(job["seed"])
    pool, tested = (patches(folder, 64, n, p) for n, p in ((60000, "train"), (8000, "test")))
    rho = math.inf if job["rho"] == "inf" else float(job["rho"])
    rule = Rule(job["split"], rho, job["group"] == "joint", job["assignment"] == "rate-aware")
    coder, steps = Coder(pool[:8000]), job["steps"]
    optimizer = torch.optim.Adam(coder.parameters(), lr=1e-3)
    seen: list[dict[str, float]] = []
    for step in range(steps):
        if step * 4 % steps == 0:
            seen.append(measure(coder, tested, rule))
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, 4 * (1 - step / steps))
        x = pool[torch.randint(len(pool), (BATCH,), generator=g)]
        z = coder.encode(x)
        indices = coder.assign(z, rule.is_rate_aware)
        coder.count(indices)
        value, extra = step_of(rule, z, coder.lookup(indices), g)
        loss = (coder.decode(value) - x).square().sum(1).mean() + extra
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(coder.parameters(), 20.0)
        optimizer.step()
    return {**measure(coder, tested, rule), "path": seen}


def step_of(rule: Rule, z: Tensor, c: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """The value, exactly c, with the gradients of the rule; and the rule's own loss."""
    nothing = z.new_zeros(())
    if rule.split == "diveq":
        shape = z.shape
        if rule.is_joint:  # one error a patch, not one a pair
            z, c = z.flatten(1), c.flatten(1)
        return diveq_step(z, c, rho=rule.rho, generator=g).reshape(shape), nothing
    if rule.split == "encoder":
        return with_value(z, c), nothing
    if rule.split == "codeword":
        return c + 0 * z, nothing
    if rule.split == "vq-vae":
        error = (z.detach() - c).square() + 0.25 * (z - c.detach()).square()
        return with_value(z, c), error.sum((1, 2)).mean()
    both = with_value(z + c, c)
    if rule.split == "both":
        return both, nothing
    return both, (z - c.detach()).square().sum((1, 2)).mean()


@torch.no_grad()
def measure(coder: Coder, x: Tensor, rule: Rule) -> dict[str, float]:
    """Bits a patch by the running frequencies, squared error, their sum at the price, and use."""
    indices = coder.assign(coder.encode(x), rule.is_rate_aware)
    error = (coder.decode(coder.lookup(indices)) - x).square().sum(1).mean().item()
    bits = -sum(
        coder.frequencies[pair].log2()[indices[:, pair]].mean().item() for pair in range(PAIRS)
    )
    return {
        "bits": bits,
        "error": error,
        "cost": error + PRICE * bits,
        "usage": usage(indices + SIZE * torch.arange(PAIRS), PAIRS * SIZE),
    }
