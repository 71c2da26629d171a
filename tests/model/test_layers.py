"""Building blocks: quality tables, blocks, clamps that let gradients return."""

import torch

from diveqcodec.model.layers import GainTable, ResidualBlock, returning_clamp


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
