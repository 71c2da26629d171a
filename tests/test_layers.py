"""Building blocks: quality tables, clamps that let gradients return, the linear start."""

import pytest
import torch

from diveqcodec.layers import Analysis, GainTable, ResidualBlock, Synthesis, returning_clamp


def test_gain_table_is_piecewise_linear() -> None:
    table = GainTable(3, knots=5)
    with torch.no_grad():
        table.weight.copy_(torch.randn(5, 3))
    knots = table(torch.linspace(0, 1, 5))
    torch.testing.assert_close(knots, table.weight)
    between = table(torch.tensor([0.375]))[0]
    torch.testing.assert_close(between, (table.weight[1] + table.weight[2]) / 2)
    torch.testing.assert_close(table(torch.tensor([-3.0, 9.0])), table.weight[[0, 4]])


def test_returning_clamp_lets_only_the_way_back_through() -> None:
    x = torch.tensor([-2.0, -2.0, 0.5, 3.0, 3.0], requires_grad=True)
    clamped = returning_clamp(x, 0.0, 1.0)
    assert clamped.tolist() == [0, 0, 0.5, 1, 1]
    clamped.backward(torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [0, -1, 1, 1, 0]


def test_quality_modulates_a_block() -> None:
    block = ResidualBlock(4)
    x = torch.randn(2, 4, 5, 5)
    u = torch.tensor([0.1, 0.9])
    same = block(x[:1].expand(2, -1, -1, -1), u)
    torch.testing.assert_close(same[0], same[1])  # tables start at zero
    with torch.no_grad():
        block.film.weight[-1] += 1
    other = block(x[:1].expand(2, -1, -1, -1), u)
    assert float((other[0] - other[1]).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("size", [(16, 16), (32, 48)])
def test_networks_start_as_an_orthonormal_transform(size: tuple[int, int]) -> None:
    """With all 768 components and no correction yet, synthesis inverts analysis."""
    torch.manual_seed(0)
    analysis, synthesis = Analysis(768, 8, 8, 1), Synthesis(768, 8, 8, 1, 8, 1)
    rows = torch.linalg.qr(torch.randn(768, 768)).Q.view(768, 3, 16, 16)
    with torch.no_grad():
        for layer in (analysis.klt, synthesis.klt):
            layer.weight.copy_(rows)
            assert layer.bias is not None
            layer.bias.zero_()
        x, u, scale = torch.rand(1, 3, *size), torch.tensor([0.3]), torch.ones(768)
        y = analysis(x, u, scale)
        assert y.shape == (1, 768, size[0] // 16, size[1] // 16)
        torch.testing.assert_close(synthesis(y, u, scale), x, atol=1e-4, rtol=0)
