"""The search against brute force, its soft moments against finite differences."""

import math
from dataclasses import fields
from typing import get_args

import pytest
import torch
from torch import Tensor

from diveqcodec.model.candidates import ESCAPE_LENGTHS, GRID, integer_basis
from diveqcodec.model.codebook import Codebook, class_sigmas
from diveqcodec.model.search import Moments, choose, choose_pair
from diveqcodec.quality import RATE

SIZES, SHAPES = 8, 3


def layer(dim: int, size: int = 128, cell: float = 1.0, shapes: int = SHAPES) -> Codebook:
    """A layer whose codewords have been moved off their lattice, as training does."""
    torch.manual_seed(dim)
    made = Codebook(size=size, dim=dim, cell=cell, sizes=SIZES, shapes=shapes)
    with torch.no_grad():
        made.unit.add_(0.15 * torch.randn_like(made.unit))
    made.refresh()
    return made


def residuals(count: int, dim: int, shapes: int = SHAPES) -> tuple[Tensor, Tensor]:
    """Residuals `[N, dim]`, as wide as their class says, some wider, and rows `[N]`."""
    random = torch.Generator().manual_seed(count)
    rows = torch.randint(SIZES * shapes, (count,), generator=random)
    wider = torch.where(torch.rand(count, generator=random) < 0.1, 3.0, 1.0)
    sigma = class_sigmas(SIZES)[rows // shapes] * wider
    return torch.randn(count, dim, generator=random) * sigma[:, None], rows


def all_costs(words: Tensor, r: Tensor, bits: Tensor, rate: float) -> Tensor:
    """Cost of every codeword, `[N, K]`: bits `[N, K]`."""
    return (r[:, None] - words).square().sum(2) + rate * bits


@pytest.mark.parametrize("dim", [2, 4])
@pytest.mark.parametrize("rate", [0.0, RATE, 5 * RATE])
def test_choice_against_all_codewords(dim: int, rate: float) -> None:
    made = layer(dim)
    search, table = made.search(), made.bit_table().detach()
    r, rows = residuals(4000, dim)
    choice = choose(search, r, rows, table, rate=rate)
    costs = all_costs(search.words, r, table[rows, :-1], rate)
    kept = choice.fine < len(search.words)  # an escape is dealt with below
    assert float(kept.float().mean()) > 0.5
    found = costs[kept].gather(1, choice.fine[kept, None])[:, 0]
    excess = found - costs[kept].min(1).values
    assert float((excess < 1e-4).float().mean()) >= 0.99
    assert float(excess.mean()) < 1e-3 * float(found.mean())
    assert bool((found <= costs[kept, 0] + 1e-4).all())  # never worse than null
    # An escape is taken only where it is cheaper than what is nearest in the codebook.
    gone = ~kept
    escape = (r - choice.fine_point).square().sum(1)
    escape = escape + rate * (table[rows, -1] + choice.raw_bits)
    cheaper = escape[gone] <= costs[gone].min(1).values + 1e-3
    assert float(cheaper.float().mean()) >= 0.99
    assert bool((choice.fine_point[kept] == 0).all())


@pytest.mark.parametrize("rate", [1e-12, RATE])
def test_pairs_against_all_pairs(rate: float) -> None:
    fine, coarse = layer(2, 256), layer(2, 40, cell=8.0, shapes=1)  # sizes as models have them
    searches = fine.search(), coarse.search()
    tables = fine.bit_table().detach(), coarse.bit_table().detach()
    random = torch.Generator().manual_seed(0)
    r, rows = residuals(1200, 2)
    r = r * (1 + 3 * torch.rand(len(r), 1, generator=random))
    coarse_rows = torch.randint(SIZES, (len(r),), generator=random)
    choice = choose_pair(searches, r, (rows, coarse_rows), tables, rate=rate)
    assert choice.coarse is not None
    both = (searches[1].words[:, None] + searches[0].words).view(-1, 2)
    kept = (choice.fine < 256) & (choice.coarse < 40)
    assert float(kept.float().mean()) > 0.9
    excess, found = [], []
    for part in kept.nonzero()[:, 0].split(100):
        bits = tables[1][coarse_rows[part], :-1, None] + tables[0][rows[part], None, :-1]
        costs = all_costs(both, r[part], bits.flatten(1), rate)
        index = choice.coarse[part] * 256 + choice.fine[part]
        cost = costs.gather(1, index[:, None])[:, 0]
        assert bool((cost <= costs[:, 0] + 1e-4).all())
        found.append(cost)
        excess.append(cost - costs.min(1).values)
    # Four coarse candidates out of all: what is missed now and then costs little altogether.
    close = (torch.cat(excess) < 1e-2).float().mean()
    assert float(close) >= (0.975 if rate == RATE else 0.9)
    assert float(torch.cat(excess).mean()) < 0.01


def test_null_is_left_out_of_the_search_only_where_it_wins() -> None:
    for dim in (2, 4):
        made = layer(dim)
        search, table = made.search(), made.bit_table().detach()
        r, rows = residuals(20000, dim)
        for rate in (0.0, RATE, 5 * RATE):
            settled = ~search.may_leave_null(r, rows, table, rate)
            costs = all_costs(search.words, r[settled], table[rows[settled], :-1], rate)
            others = costs[:, 1:].min(1).values
            assert bool((costs[:, 0] <= others).all())
            # Softly too: no other codeword has more than e^-6 of the null codeword's weight.
            assert bool((others - costs[:, 0] > 0.999).all())
        assert float(settled.float().mean()) > 0.1  # it saves something


@pytest.mark.parametrize("dim", [2, 4])
def test_soft_moments_against_finite_differences(dim: int) -> None:
    """With no more codewords than candidates, the soft assignment is over all of them."""
    made = layer(dim, size=13)
    search, table = made.search(), made.bit_table().detach()
    random = torch.Generator().manual_seed(3)
    r = torch.randn(300, dim, generator=random) * 0.7
    rows = torch.randint(6, SIZES * SHAPES, (300,), generator=random)
    choice = choose(search, r, rows, table, rate=RATE, moments="all")
    words, bits = search.words.double(), table[rows, :-1].double()

    def expected(at: Tensor) -> tuple[Tensor, Tensor]:
        q = (-6 * all_costs(words, at, bits, RATE)).softmax(1)
        return q @ words, (q * bits).sum(1)

    assert choice.jacobian is not None
    assert choice.rate_slope is not None
    step = 1e-5
    searched = search.may_leave_null(r, rows, table, RATE) & (choice.fine < 13)
    assert int(searched.sum()) > 100
    for axis in range(dim):
        nudge = torch.zeros(dim, dtype=torch.float64)
        nudge[axis] = step
        (up, up_bits), (down, down_bits) = expected(r + nudge), expected(r - nudge)
        slope = (up - down) / (2 * step)
        torch.testing.assert_close(
            choice.jacobian[searched, :, axis].double(), slope[searched], atol=2e-3, rtol=2e-3
        )
        rate_slope = (up_bits - down_bits) / (2 * step)
        torch.testing.assert_close(
            choice.rate_slope[searched, axis].double(), rate_slope[searched], atol=2e-2, rtol=2e-3
        )


def test_escapes_answer_as_a_fine_lattice() -> None:
    made = layer(2, size=13)
    r = torch.tensor([[300.0, -20.0], [0.1, 0.1]])
    rows, table = torch.tensor([20, 20]), made.bit_table().detach()
    choice = choose(made.search(), r, rows, table, moments="all")
    assert choice.fine.tolist()[0] == 13
    assert choice.fine.tolist()[1] < 13
    assert choice.jacobian is not None
    assert choice.rate_slope is not None
    assert torch.equal(choice.jacobian[0], torch.eye(2))
    # two coordinates, each a bit more with every doubling of the residual
    wanted = r[0] / r[0].square().sum() * 2 / math.log(2)
    torch.testing.assert_close(choice.rate_slope[0], wanted)


@pytest.mark.parametrize("pair", [False, True])
def test_fewer_moments_change_nothing_else(pair: bool) -> None:
    fine, coarse = layer(2, 64), layer(2, 40, cell=8.0, shapes=1)
    r, rows = residuals(900, 2)
    r[::50] *= 40
    found = {}
    for moments in get_args(Moments):
        table = fine.bit_table().detach()
        if pair:
            searches, both = (fine.search(), coarse.search()), (rows, rows // SHAPES)
            tables = table, coarse.bit_table().detach()
            found[moments] = choose_pair(searches, r, both, tables, moments=moments)
        else:
            found[moments] = choose(fine.search(), r, rows, table, moments=moments)
    whole = found["all"]
    for moments, missing in (("slope", {"jacobian"}), ("none", {"jacobian", "rate_slope"})):
        for entry in fields(whole):
            value, wanted = getattr(found[moments], entry.name), getattr(whole, entry.name)
            if entry.name in missing or wanted is None:
                assert value is None
            else:
                assert torch.equal(value, wanted), entry.name


@pytest.mark.parametrize(("dim", "cell"), [(2, 1.0), (2, 8.0), (4, 1.0)])
def test_escape_points(dim: int, cell: float) -> None:
    search = layer(dim, 32, cell, shapes=1).search()
    r = torch.randn(2000, dim, generator=torch.Generator().manual_seed(0)) * 500
    point, coordinates, bits = search.escape_point(r)
    basis = integer_basis(dim, cell).double() / GRID
    torch.testing.assert_close(coordinates.double() @ basis, point.double(), atol=1e-3, rtol=0)
    assert torch.equal(coordinates, coordinates.round())
    assert float((r - point).norm(dim=1).max()) < (1.0 if dim == 2 else 1.7) * cell
    # As many bits as the coder spends: the length of a folded value, one of 25, and its low bits.
    spent = [
        sum((2 * c + 1 if c >= 0 else -2 * c).bit_length() - 1 for c in row)
        for row in coordinates.long().tolist()
    ]
    expected = torch.tensor(spent) + dim * math.log2(ESCAPE_LENGTHS)
    torch.testing.assert_close(bits, expected, atol=1e-3, rtol=0)


def test_neighbours_are_distinct_and_hold_null() -> None:
    for dim in (2, 4):
        search = layer(dim).search()
        near = search.neighbours(residuals(500, dim)[0])
        assert bool((near == 0).any(0).all())
        assert all(len(set(column)) == len(column) for column in near.T.tolist())


@pytest.mark.parametrize("dim", [2, 4])
@pytest.mark.parametrize("whole", [False, True])
def test_many_residuals_are_chosen_as_few_are(dim: int, whole: bool) -> None:
    """More than a block of them at once, none at all, and pairs with their soft moments."""
    fine, coarse = layer(dim, 128), layer(dim, 40, cell=8.0, shapes=1)
    searches = fine.search(), coarse.search()
    tables = fine.bit_table().detach(), coarse.bit_table().detach()
    r, rows = residuals(20001, dim)
    r[::50] *= 40  # escapes of both layers
    both = rows, rows // SHAPES

    def chosen(part: slice) -> list[list[Tensor | None]]:
        some = both[0][part], both[1][part]
        one = choose(searches[0], r[part], some[0], tables[0], moments="all", whole=whole)
        pair = choose_pair(searches, r[part], some, tables, moments="all", whole=whole)
        return [[getattr(c, entry.name) for entry in fields(c)] for c in (one, pair)]

    at_once = chosen(slice(None))
    parts = [chosen(slice(start, start + 667)) for start in range(0, len(r), 667)]
    for number, values in enumerate(at_once):
        for index, value in enumerate(values):
            if value is not None:
                pieces = torch.cat([part[number][index] for part in parts])  # type: ignore[misc]
                torch.testing.assert_close(value, pieces, atol=1e-3, rtol=1e-3)
    assert at_once[1][2] is not None
    assert int((at_once[1][1] == 40).sum()) > 50  # type: ignore[union-attr]
    assert all(value is None or not len(value) for kind in chosen(slice(0, 0)) for value in kind)


def test_moved_codewords_keep_their_lists() -> None:
    made = layer(2)
    before = made.search()
    with torch.no_grad():
        made.unit.add_(0.01)
    after = made.search()
    assert after.lists is before.lists
    torch.testing.assert_close(after.words[1:], before.words[1:] + 0.01)
    assert bool((after.words[0] == 0).all())
