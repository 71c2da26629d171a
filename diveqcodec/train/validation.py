"""How good a model is on held-out crops, in figures and as a picture of samples.

Knows models, not runs: whoever calls puts the weights in place that are to be measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diveqcodec.atomic import replacing
from diveqcodec.model.dvq import DvqModel
from diveqcodec.model.layers import fast_dtype
from diveqcodec.ssim import ms_ssim
from diveqcodec.train.config import TrainConfig
from diveqcodec.train.data import Pictures
from diveqcodec.train.loss import REFERENCE_LAMBDA, weighted_distortion

VALIDATION_LAMBDAS = (0.0016, 0.0067, 0.05)


@dataclass(frozen=True, slots=True)
class Scores:
    """`line` for the log; `loss` over all trade-offs; `rows` of crops, original first, uint8."""

    line: dict[str, Any]
    loss: float
    rows: list[list[Tensor]]

    def draw(self, target: Path) -> None:
        """Write the samples as one PNG: a row a crop, original and then every trade-off."""
        if not self.rows:
            return
        grid = torch.cat([torch.cat(row, dim=2) for row in self.rows], dim=1)
        target.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(grid.permute(1, 2, 0).contiguous().numpy())
        with replacing(target) as temporary:
            image.save(temporary, "png")


class Validation:
    """Centre crops of held-out pictures (of training pictures where there are too few)."""

    def __init__(self, config: TrainConfig, held_out: Pictures, training: Pictures) -> None:
        self.config = config
        crop = config.data.crop
        pictures = held_out.tensors or training.tensors
        self.crops = []
        for picture in pictures[: max(1, config.data.validation)]:
            top, left = ((side - crop) // 2 for side in picture.shape[1:])
            self.crops.append(picture[:, top : top + crop, left : left + crop])

    @torch.no_grad()
    def measure(self, model: DvqModel) -> Scores:
        """Code every crop at every trade-off, by look-up in the codebooks only."""
        line: dict[str, Any] = {}
        losses = []
        samples = self.crops[: self.config.log.samples]
        rows = [[crop.cpu()] for crop in samples]
        model.eval()
        try:
            for lam in VALIDATION_LAMBDAS:
                figures = []
                for number, crop in enumerate(self.crops):
                    x_hat, row = self._code(model, crop, lam)
                    figures.append(row)
                    if number < len(rows):
                        rows[number].append(x_hat.mul(255).round().to(torch.uint8).cpu())
                entry = self._entry(torch.stack(figures).cpu())
                line[f"{lam:g}"] = entry
                losses.append(entry["loss"] / (lam / REFERENCE_LAMBDA) ** 0.5)
        finally:
            model.train()
        loss = sum(losses) / len(losses)
        return Scores({"loss": round(loss, 5)} | line, loss, rows)

    def _code(self, model: DvqModel, crop: Tensor, lam: float) -> tuple[Tensor, Tensor]:
        """The decoded crop in [0, 1], and (bpp, distortion, PSNR, MS-SSIM, networks) of it.

        The last is what the networks add to the PSNR of the linear transform alone, in dB.
        """
        kind = self.config.loss.distortion
        x = (crop.float() / 255)[None].contiguous(memory_format=torch.channels_last)
        weights = torch.full((1,), lam, device=x.device)
        dtype = fast_dtype(x.device)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            output = model(x, weights)
        x_hat = output.x_hat.float().clamp(0, 1)
        linear = model.decode_linear(output.y_hat, model.log_gain(weights)).clamp(0, 1)
        pixels = x.shape[2] * x.shape[3]
        psnr, without = _psnr(x_hat, x), _psnr(linear, x)
        similarity = ms_ssim(x_hat, x)[0] if kind == "ms-ssim" else torch.zeros_like(psnr)
        distortion = weighted_distortion(x_hat, x, weights, kind)[0]
        bpp = output.bits[0] / pixels
        return x_hat[0], torch.stack([bpp, distortion, psnr, similarity, psnr - without])

    def _entry(self, figures: Tensor) -> dict[str, float]:
        bpp, distortion, psnr, similarity, networks = figures.mean(0).tolist()
        entry = {
            "loss": round(bpp + distortion, 4),
            "bpp": round(bpp, 4),
            "psnr": round(psnr, 3),
            "networks": round(networks, 3),
        }
        if self.config.loss.distortion == "ms-ssim":
            entry["ms_ssim"] = round(similarity, 5)
        return entry


def _psnr(x_hat: Tensor, x: Tensor) -> Tensor:
    """PSNR in dB of pictures in [0, 1]."""
    return (x_hat - x).square().mean().clamp_min(1e-10).log10() * -10
