"""What a log line says of an interval of steps: sums kept on the device, read once a line.

Adding to them never makes the host wait. Knows nothing of losses, files or schedules.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diveqcodec.model.dvq import DvqModel, Output


class Interval:
    """Statistics of the steps since the last `line`."""

    def __init__(self, model: DvqModel, device: torch.device) -> None:
        self.device = device
        config, coarse = model.config, model.quantizer.coarse
        symbols = [model.quantizer.fine.size + 1] * len(config.slices)
        self.counts = [_zeros(n, device) for n in symbols]
        self.coarse: list[Tensor] = []  # of the slices that have a coarse layer: the first
        if coarse is not None:
            slices = config.slices[: config.coarse_slices]
            self.coarse = [_zeros(coarse.size + 1, device) for _ in slices]
        self.bits = torch.zeros(len(symbols), dtype=torch.float64, device=device)
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)
        self.pixels = self.steps = 0

    @torch.no_grad()
    def add(self, loss: Tensor, output: Output, x: Tensor, norm: Tensor) -> None:
        """Count a step: its loss, output, pictures `[B, 3, H, W]` and norm of the gradient."""
        mse = (output.x_hat.detach().float().clamp(0, 1) - x).square().mean((1, 2, 3))
        psnr = mse.clamp_min(1e-10).log10().mean() * -10
        spent = output.bits.detach().sum()
        self.sums += torch.stack([loss.detach(), spent, psnr, norm.detach()])
        for number, part in enumerate(output.slices):
            for bits in part.bits:
                self.bits[number] += bits.sum()
            for symbols in part.symbols:
                self.counts[number].scatter_add_(0, symbols, torch.ones_like(symbols))
            for symbols in part.coarse:
                self.coarse[number].scatter_add_(0, symbols, torch.ones_like(symbols))
        self.pixels += x.shape[0] * x.shape[2] * x.shape[3]
        self.steps += 1

    def line(self) -> dict[str, Any]:
        """What happened since the last call, rounded for reading; starts again."""
        loss, bits, psnr, norm = self.sums.tolist()
        per_part = (self.bits / max(1, self.pixels)).tolist()
        parts: list[dict[str, Any]] = [
            {"bpp": round(bpp, 5)} | summary(counts)
            for counts, bpp in zip(self.counts, per_part, strict=True)
        ]
        for part, counts in zip(parts, self.coarse, strict=False):
            part["coarse"] = summary(counts)
        steps = max(1, self.steps)
        line = {
            "loss": round(loss / steps, 4),
            "bpp": round(bits / max(1, self.pixels), 4),
            "psnr": round(psnr / steps, 3),
            "gradient": round(norm / steps, 4),
            "slices": parts,
        }
        for value in (*self.counts, *self.coarse, self.bits, self.sums):
            value.zero_()
        self.pixels = self.steps = 0
        return line


def summary(counts: Tensor) -> dict[str, float]:
    """Of counts of symbols `[K + 1]`, the null codeword first and the escape last.

    Returns:
        the share of null, how many symbols occur, and the perplexity of those that are not null.
    """
    values = counts.cpu().double()
    rest = values[1:] / values[1:].sum().clamp_min(1)
    entropy = float(-(rest * rest.clamp_min(1e-12).log()).sum())
    return {
        "null": round(float(values[0] / values.sum().clamp_min(1)), 4),
        "used": int((values > 0).sum()),
        "perplexity": round(math.exp(entropy), 1),
    }


def _zeros(count: int, device: torch.device) -> Tensor:
    return torch.zeros(count, dtype=torch.int64, device=device)
