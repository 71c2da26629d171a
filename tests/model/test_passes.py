"""The order of positions: every one is coded once, and sees only what was coded before."""

import pytest
import torch

from diveqcodec.model.passes import order_of_batch, passes_of, taps_of
from tests.support.passes import pass_of

CPU = torch.device("cpu")
SIZES = [(1, 1), (1, 9), (7, 1), (3, 3), (2, 5), (16, 16), (13, 21)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", range(5))
def test_every_position_is_in_one_pass_and_sees_earlier_ones(
    size: tuple[int, int], levels: int
) -> None:
    height, width = size
    for radius in (1, 2):
        passes = passes_of(height, width, levels, radius, CPU)
        assert len(passes) == (1 + 2 * levels if levels else 2)
        places = torch.cat([one.places for one in passes])
        assert sorted(places.tolist()) == list(range(height * width))
        for number, one in enumerate(passes):
            assert one.places.tolist() == sorted(one.places.tolist())
            assert one.neighbours.shape == (len(one.places), taps_of(levels, radius)[number])
            for place, seen in zip(one.places.tolist(), one.neighbours.tolist(), strict=True):
                assert pass_of(levels, place // width, place % width) == number
                inside = [n for n in seen if n < height * width]
                assert max(seen, default=0) <= height * width
                assert len(set(inside)) == len(inside)
                assert all(pass_of(levels, n // width, n % width) < number for n in inside)


def test_neighbours_by_hand() -> None:
    """A 4x4 grid, one level: a centre sees corners up to three steps away, a side its cross."""
    first, centres, sides = passes_of(4, 4, 1, 1, CPU)
    assert first.places.tolist() == [0, 2, 8, 10]
    assert centres.places.tolist() == [5, 7, 13, 15]
    out = 16
    # position (1, 1): rows -2, 0, 2, 4 by columns -2, 0, 2, 4
    assert centres.neighbours[0].tolist() == [
        *(out, out, out, out),
        *(out, 0, 2, out),
        *(out, 8, 10, out),
        *(out, out, out, out),
    ]
    assert sides.places.tolist() == [1, 3, 4, 6, 9, 11, 12, 14]
    assert sides.neighbours[0].tolist() == [out, 0, 2, 5]  # (0, 1): above, left, right, below
    assert sides.neighbours[3].tolist() == [2, 5, 7, 10]  # (1, 2)


@pytest.mark.parametrize("levels", [0, 2])
def test_the_order_of_a_batch_is_that_of_its_grids(levels: int) -> None:
    height, width, batch = 5, 6, 3
    count = height * width
    order = order_of_batch(height, width, levels, 2, batch, CPU)
    singles = passes_of(height, width, levels, 2, CPU)
    for one, alone in zip(order.passes, singles, strict=True):
        places, neighbours = (
            one.places.view(batch, -1),
            one.neighbours.view(batch, len(alone.places), -1),
        )
        for picture in range(batch):
            assert torch.equal(places[picture] - picture * count, alone.places)
            wanted = alone.neighbours + picture * count
            wanted[alone.neighbours == count] = batch * count  # outside, whatever the picture
            assert torch.equal(neighbours[picture], wanted)
    assert sorted(order.places.tolist()) == list(range(batch * count))
    assert torch.equal(order.places, torch.cat([one.places for one in order.passes]))
    assert torch.equal(order.places[order.inverse], torch.arange(batch * count))


def test_what_is_kept_can_be_learned_with() -> None:
    """Though it was first asked for where there are no gradients."""
    with torch.inference_mode():
        passes = passes_of(5, 9, 2, 1, CPU)
        order = order_of_batch(5, 9, 2, 1, 3, CPU)
    for one in (*passes, *order.passes):
        assert not one.places.is_inference()
        assert not one.neighbours.is_inference()
    assert not order.places.is_inference()
    assert not order.inverse.is_inference()
