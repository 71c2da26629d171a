"""MS-SSIM against another implementation, and how distortions are weighted."""

import pytest
import torch

from diveqcodec.train.loss import MS_SSIM_SCALE, balanced, ms_ssim, weighted_distortion


def pair(side: tuple[int, int], noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 6, 7, generator=generator)
    x = torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1)
    y = (x + noise * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    return x, y


@pytest.mark.parametrize("side", [(176, 192), (163, 177)])
@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_ms_ssim_agrees_with_pytorch_msssim(side: tuple[int, int], noise: float) -> None:
    other = pytest.importorskip("pytorch_msssim", reason="part of the eval extra")
    x, y = pair(side, noise)
    wanted = other.ms_ssim(x, y, data_range=1.0, size_average=False)
    torch.testing.assert_close(ms_ssim(x, y), wanted, atol=2e-5, rtol=0)


def test_ms_ssim_of_equal_and_of_opposite_pictures() -> None:
    x, _ = pair((176, 176), 0.0)
    torch.testing.assert_close(ms_ssim(x, x), torch.ones(2))
    opposite = (1 - x).requires_grad_()
    value = ms_ssim(opposite, x)
    assert float(value.detach().max()) < 0.1
    value.sum().backward()
    assert opposite.grad is not None
    assert bool(opposite.grad.isfinite().all())


def test_descent_on_ms_ssim_brings_pictures_together() -> None:
    x, y = pair((176, 176), 0.1)
    y.requires_grad_()
    before = float(ms_ssim(y, x).detach().mean())
    for _ in range(3):
        (gradient,) = torch.autograd.grad(ms_ssim(y, x).sum(), y)
        y = (y + 20 * gradient).detach().requires_grad_()
    assert float(ms_ssim(y, x).detach().mean()) > before + 0.01


def test_weights_of_distortions() -> None:
    x = torch.zeros(2, 3, 176, 176)
    lam = torch.tensor([0.001, 0.01])
    mse = weighted_distortion(x + 0.1, x, lam, "mse")
    torch.testing.assert_close(mse, lam * 255**2 * 0.01)
    a, b = pair((176, 176), 0.1)
    wanted = lam * MS_SSIM_SCALE * (1 - ms_ssim(a, b))
    torch.testing.assert_close(weighted_distortion(a, b, lam, "ms-ssim"), wanted)
    cost = balanced(torch.tensor([1.0, 1.0]), torch.tensor([0.0067, 4 * 0.0067]))
    torch.testing.assert_close(cost, torch.tensor(0.75))
