"""MS-SSIM against another implementation, its ends, and its gradient."""

import pytest
import torch

from diveqcodec.ssim import SMALLEST_SIDE, ms_ssim
from tests.support.pairs import pair


@pytest.mark.parametrize("side", [(176, 192), (163, 177), (SMALLEST_SIDE, SMALLEST_SIDE)])
@pytest.mark.parametrize("noise", [0.005, 0.02, 0.3])
def test_the_same_as_pytorch_msssim(side: tuple[int, int], noise: float) -> None:
    other = pytest.importorskip("pytorch_msssim", reason="an oracle, part of the dev extra")
    x, y = pair(side, noise)
    wanted = other.ms_ssim(x, y, data_range=1.0, size_average=False)
    torch.testing.assert_close(ms_ssim(x, y, floor=0), wanted, atol=2e-6, rtol=0)
    torch.testing.assert_close(ms_ssim(x, y), wanted, atol=2e-6, rtol=0)


def test_terms_below_zero_count_nothing_as_with_others() -> None:
    other = pytest.importorskip("pytorch_msssim", reason="an oracle, part of the dev extra")
    coarse, _ = pair((176, 176), 0.0)
    detail = 0.2 * torch.randn(coarse.shape, generator=torch.Generator().manual_seed(1))
    x, y = coarse + detail, coarse - detail  # opposite at the finest scale only
    wanted = other.ms_ssim(y, x, data_range=1.0, size_average=False)
    torch.testing.assert_close(ms_ssim(y, x, floor=0), wanted, atol=2e-6, rtol=0)
    assert bool((ms_ssim(y, x) > wanted + 1e-3).all())  # training keeps a gradient


def test_equal_and_opposite_pictures() -> None:
    x, _ = pair((176, 176), 0.0)
    torch.testing.assert_close(ms_ssim(x, x), torch.ones(2))
    opposite = (1 - x).requires_grad_()
    value = ms_ssim(opposite, x)
    assert float(value.detach().max()) < 0.1
    value.sum().backward()
    assert opposite.grad is not None
    assert bool(opposite.grad.isfinite().all())


def test_neither_order_nor_reduced_precision_around_it_matter() -> None:
    x, y = pair((180, 176), 0.05)
    torch.testing.assert_close(ms_ssim(x, y), ms_ssim(y, x))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ms_ssim(x, y), ms_ssim(x, y).float())
        torch.testing.assert_close(ms_ssim(x, y), ms_ssim(y, x))
    assert torch.equal(ms_ssim(x.double(), y.double()), ms_ssim(x, y))


def test_descent_brings_pictures_together() -> None:
    x, y = pair((176, 176), 0.1)
    y.requires_grad_()
    before = float(ms_ssim(y, x).detach().mean())
    for _ in range(3):
        (gradient,) = torch.autograd.grad(ms_ssim(y, x).sum(), y)
        y = (y + 20 * gradient).detach().requires_grad_()
    assert float(ms_ssim(y, x).detach().mean()) > before + 0.01
