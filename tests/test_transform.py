"""Lapped transform and networks: a start that inverts, reaches that are bounds."""

import pytest
import torch
from torch import Tensor

from diveqcodec.blocktransform import BlockAnalysis, BlockSynthesis
from diveqcodec.transform import SIDE, Analysis, Lapping, Synthesis, prefilter

U = torch.tensor([0.3])


def pair(transform: str, channels: int = 768) -> tuple[torch.nn.Module, torch.nn.Module]:
    if transform == "block":
        return BlockAnalysis(channels, 8, 8, 1), BlockSynthesis(channels, 8, 8, 1, 8, 1)
    return Analysis(channels, 8, 8, 8, 1), Synthesis(channels, 8, 8, 1, 8, 1)


@pytest.mark.parametrize("transform", ["lapped", "block"])
@pytest.mark.parametrize("size", [(16, 16), (32, 16), (48, 64)])
def test_it_starts_as_an_orthonormal_transform(transform: str, size: tuple[int, int]) -> None:
    """With all 768 components and no correction yet, synthesis inverts analysis."""
    torch.manual_seed(0)
    analysis, synthesis = pair(transform)
    rows = torch.linalg.qr(torch.randn(768, 768)).Q.view(768, 3, 16, 16)
    with torch.no_grad():
        for layer in (analysis.klt, synthesis.klt):
            layer.weight.copy_(rows)  # type: ignore[union-attr, operator]
            layer.bias.zero_()  # type: ignore[union-attr, operator]
        x, scale = torch.rand(1, 3, *size), torch.ones(768, 1, 1)
        y = analysis(x, U, scale)
        assert y.shape == (1, 768, size[0] // 16, size[1] // 16)
        torch.testing.assert_close(synthesis(y, U, scale), x, atol=1e-4, rtol=0)
        torch.testing.assert_close(analysis.linear(x), y)  # type: ignore[operator]
        torch.testing.assert_close(y.norm(), x.norm())


def test_prefilter_is_orthogonal_and_keeps_constants() -> None:
    matrix = prefilter()
    eye = torch.eye(SIDE, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.T, eye)
    torch.testing.assert_close(matrix.sum(1), torch.ones(SIDE, dtype=torch.float64))
    assert float((matrix - eye).abs().max()) > 0.3


def test_lapping_mixes_across_boundaries_and_leaves_the_border() -> None:
    lapping = Lapping(transposed=False)
    x = torch.zeros(1, 1, 48, 48)
    x[..., 15, 20] = 1.0  # just above the boundary of two blocks
    with torch.no_grad():
        moved = lapping(x)[0, 0]
    rows = (moved.abs() > 1e-6).any(1).nonzero()[:, 0].tolist()
    assert min(rows) >= 8
    assert 16 <= max(rows) < 24
    x = torch.rand(1, 2, 48, 48)
    with torch.no_grad():
        out = lapping(x)
        torch.testing.assert_close(out[..., :8, :8], x[..., :8, :8])
        torch.testing.assert_close(Lapping(transposed=True)(out), x)  # the inverse


def test_lapping_packs_energy_into_fewer_coefficients() -> None:
    """A smooth picture: the log determinant of its blocks' covariance gets smaller."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 256, 256, generator=generator).cumsum(2).cumsum(3) / 256

    def log_energy(picture: Tensor) -> float:
        parts = picture.view(16, 16, 16, 16).permute(0, 2, 1, 3).reshape(256, 256)
        covariance = parts.T @ parts / 256 + 1e-4 * torch.eye(256)
        return float(torch.logdet(covariance))

    with torch.no_grad():
        assert log_energy(Lapping(transposed=False)(x)[0, 0]) < log_energy(x[0, 0]) - 5


@pytest.mark.parametrize("transform", ["lapped", "block"])
def test_nothing_depends_on_more_than_the_reach(transform: str) -> None:
    """What `Codec` takes for the overlap of its windows: a change farther away changes nothing."""
    torch.manual_seed(0)
    analysis, synthesis = pair(transform, 8)
    for layer in (analysis.head, synthesis.tail):
        torch.nn.init.normal_(layer.weight)  # type: ignore[arg-type, union-attr]
    side, middle = 16 * 21, 16 * 10
    with torch.no_grad():
        scale = torch.ones(8, 1, 1)
        x = torch.randn(1, 3, side, side)
        touched = x.clone()
        touched[..., middle : middle + 16, middle : middle + 16] += 1
        moved = (analysis(touched, U, scale) - analysis(x, U, scale)).abs().amax((0, 1))
        rows = (moved.amax(1) > 1e-7).nonzero()[:, 0] - middle // 16
        reach = analysis.reach(1) / 16  # type: ignore[operator]
        assert 1 <= int(rows.abs().max()) <= reach + 1
        y = torch.randn(1, 8, side // 16, side // 16)
        touched = y.clone()
        touched[..., 10, 10] += 1
        moved = (synthesis(touched, U, scale) - synthesis(y, U, scale)).abs().amax((0, 1))
        rows = (moved.amax(1) > 1e-7).nonzero()[:, 0]
        reach = synthesis.reach(1, 1)  # type: ignore[operator]
        assert middle - reach <= int(rows.min()) < middle - 16
        assert middle + 16 <= int(rows.max()) < middle + 16 + reach
