"""Experiments (b), (c), (d): the paper's VQ-VAE on photographs, every quantizer at equal steps.

For the first fifth of the steps nothing is quantized, for any of them (the paper does so for
SF-DiVeQ); then every codebook is initialised from the same kind of sample, the latents of the last
batches. Where the authors prescribe it, codewords that nobody chose are replaced. Rates are of
indices: fixed length, and entropy coded with one static table that was counted on training
pictures. Judged on the middle 256x256 pixels of the evaluation pictures.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.metrics import ms_ssim, psnr
from diveqcodec.quantize import (
    CodebookQuantizer,
    DiVeQ,
    Quantizer,
    SFDiVeQ,
    index_counts,
    perplexity,
    replace_unused,
    usage,
)
from scripts.reproduction.lines import Run, Value
from scripts.reproduction.methods import REPLACING, make
from scripts.reproduction.network import SHAPES, STRIDE, VQVAE
from scripts.reproduction.perceptual import haarpsi
from scripts.reproduction.photos import centres, crops, load

PICTURES = 300  # of the training folder, held in memory
EVALUATED = 256  # side of what is judged
RATES = {"low": 0.0005, "middle": 0.0015, "high": 0.0045}  # learning rates of the small search
HELD = 30  # of them only validate
LOOKS = 8  # how often codebook use is written down
WARM = 0.2  # share of the steps in which nothing is quantized
REPLACEMENTS = 20  # as many as fit into all steps, at equal distances: every 50 of the full runs
SETTLED = 0.8  # share of the steps after which codewords stay, and the table is counted


@dataclass(slots=True)
class Trained:
    """A network after training, and what was seen on the way."""

    net: VQVAE
    counts: Tensor  # of the indices of the last fifth of the steps, the static table
    use: list[tuple[int, float, float]]  # step, usage, perplexity since the look before
    replaced: int = 0  # codewords, all times together


def run(job: Run, train: Path, test: Path, rate: str) -> dict[str, Any]:
    """One run of "vqvae", "vqvae-knob" or a sweep of it."""
    torch.manual_seed(job["seed"])
    shape = SHAPES[job["shape"]]
    quantizer = make(job["method"], job["size"], shape.dim)
    settings = dict(job.settings)
    rho = settings.get("rho")
    if isinstance(quantizer, DiVeQ | SFDiVeQ) and rho is not None:
        set_noise(quantizer, rho)
    pace = RATES[rate] * float(settings.get("times", 1.0) or 1.0)
    trained = fit(job, quantizer, train, pace)
    result: dict[str, Any] = {
        "rate": rate,
        "codewords": quantizer.sizes[0],
        "replaced": trained.replaced,
        "use": [(step, round(share, 4), round(p, 2)) for step, share, p in trained.use],
        "validation": validate(trained.net, train, shape.side),
    }
    if job.experiment == "vqvae-knob":  # chosen by held-out training pictures, not by the test's
        return result
    if job.experiment.startswith("sweep"):
        return {**result, "psnr": -10 * math.log10(result["validation"])}
    return {**result, **judge(trained, test)}


def set_noise(quantizer: DiVeQ | SFDiVeQ, rho: Value) -> None:
    """Noise of a swept size, in the gradient alone, in place of the published one."""
    size = math.inf if rho == "inf" else float(rho or 0.0)
    quantizer.set_noise(rho=size, noise="gradient", sigma=None)


def fit(job: Run, quantizer: Quantizer, folder: Path, pace: float) -> Trained:
    """Adam, the learning rate halved after 40 and 70 % of the steps, as in the paper."""
    shape, steps, batch = SHAPES[job["shape"]], job["steps"], job["batch"]
    pictures = _parted(folder, shape.side)[1]
    g = torch.Generator().manual_seed(job["seed"])
    net = VQVAE(shape, quantizer)
    optimizer = torch.optim.Adam(net.parameters(), lr=pace)
    warm, look = max(1, int(WARM * steps)), max(1, steps // LOOKS)
    every = max(1, steps // REPLACEMENTS)
    needed = max(4096, 2 * job["size"])
    recent: list[Tensor] = []
    seen: list[Tensor] = []
    fresh: list[Tensor] = []  # indices since the last replacement
    result = Trained(net, torch.zeros(quantizer.sizes[0], dtype=torch.int64), [])
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = pace * 0.5 ** sum(step >= share * steps for share in (0.4, 0.7))
        x = crops(pictures, batch, shape.side, g).contiguous(memory_format=torch.channels_last)
        latent = net.encode(x)
        if step < warm:
            recent.append(latent.detach().reshape(-1, shape.dim))
            decoded, loss = net.decode(latent), latent.new_zeros(())
            if step + 1 == warm:
                _initialise(net, recent, needed, pictures, g)
        else:
            value, indices, loss = quantizer(latent, g)
            decoded = net.decode(value)
            seen.append(indices.flatten())
            fresh.append(seen[-1])
            if step >= SETTLED * steps:
                result.counts += index_counts(indices, quantizer.sizes[0])
        error = (decoded - x).square().mean()
        optimizer.zero_grad(set_to_none=True)
        (error / 0.06 + loss).backward()  # .06: the variance of photographs in [0, 1]
        optimizer.step()
        if step >= warm and (step + 1 - warm) % every == 0:
            if job["method"] in REPLACING and step < SETTLED * steps:
                result.replaced += _replace(quantizer, torch.cat(fresh), optimizer, g)
            fresh = []
        if seen and (step + 1) % look == 0:
            found, size = torch.cat(seen), quantizer.sizes[0]
            result.use.append((step + 1, usage(found, size), perplexity(found, size)))
            seen = []
    return result


def _replace(
    quantizer: Quantizer, indices: Tensor, optimizer: torch.optim.Optimizer, g: torch.Generator
) -> int:
    """Moves the codewords that these indices leave out; returns how many."""
    assert isinstance(quantizer, CodebookQuantizer)
    counts = index_counts(indices, quantizer.size)
    return replace_unused(quantizer.unit, counts, optimizer=optimizer, generator=g)


def _parted(folder: Path, side: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Pictures that only validate, and those to train on.

    Raises:
        DiveqError: there are none to train on.
    """
    pictures = load(folder, PICTURES, side)
    if len(pictures) <= HELD:
        raise DiveqError(f"{folder}: {len(pictures)} pictures, of which {HELD} only validate")
    return pictures[:HELD], pictures[HELD:]


@torch.no_grad()
def validate(net: VQVAE, folder: Path, side: int) -> float:
    """Squared error, by table look-up, on crops of pictures that were held out."""
    net.eval()
    g = torch.Generator().manual_seed(12345)
    x = crops(_parted(folder, side)[0], 128, side, g)
    error = 0.0
    for piece in x.split(32):
        decoded = net.decode(net.quantizer.lookup(net.quantizer.encode(net.encode(piece))))
        error += (decoded - piece).square().sum().item()
    return error / x.numel()


@torch.no_grad()
def judge(trained: Trained, folder: Path) -> dict[str, Any]:
    """Rates, PSNR, MS-SSIM and HaarPSI on the pictures of a folder, by table look-up."""
    net = trained.net.eval()
    size = net.quantizer.sizes[0]
    pictures = centres(folder, EVALUATED)
    decoded, indices = [], []
    for piece in pictures.split(8):
        found = net.quantizer.encode(net.encode(piece.float() / 255))
        indices.append(found.flatten())
        decoded.append(net.decode(net.quantizer.lookup(found)).clamp(0, 1).mul(255).round().byte())
    back, found = torch.cat(decoded), torch.cat(indices)
    # Every codeword keeps a share, as a real table must.
    table = (trained.counts.double() + 0.5) / (trained.counts.sum() + 0.5 * size)
    coded = -table.log2()[found].mean().item()
    pairs = list(zip(pictures.permute(0, 2, 3, 1), back.permute(0, 2, 3, 1), strict=True))
    arrays = [(a.contiguous().numpy(), b.contiguous().numpy()) for a, b in pairs]
    similar = [value for a, b in arrays if (value := ms_ssim(a, b)) is not None]
    return {
        "bpp_fixed": math.log2(size) / STRIDE**2,
        "bpp_coded": coded / STRIDE**2,
        "psnr": statistics.fmean(psnr(a, b) for a, b in arrays),
        "ms_ssim": statistics.fmean(similar),
        "haarpsi": haarpsi(pictures.float(), back.float()).mean().item(),
        "usage": usage(found, size),
        "perplexity": perplexity(found, size),
    }


@torch.no_grad()
def _initialise(
    net: VQVAE,
    recent: list[Tensor],
    needed: int,
    pictures: tuple[Tensor, ...],
    g: torch.Generator,
) -> None:
    """From the latents of the last batches, and of more pictures where these are too few."""
    latents = torch.cat(recent)[-needed:]
    side = min(min(p.shape[1:]) for p in pictures) // STRIDE * STRIDE
    while len(latents) < needed:
        more = net.encode(crops(pictures, 4, side, g))
        latents = torch.cat([latents, more.reshape(-1, latents.shape[1])])
    net.quantizer.initialise(latents[-needed:], g)
