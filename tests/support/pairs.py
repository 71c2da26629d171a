"""Pairs of pictures: one, and the same with noise."""

import torch


def pair(side: tuple[int, int], noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 6, 7, generator=generator)
    x = torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1)
    y = (x + noise * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    return x, y
