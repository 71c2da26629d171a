"""Rectangles of tiles: they cover what was chosen, once, in an order that is part of the format."""

import numpy as np
import pytest
from numpy.typing import NDArray

from diveqcodec.container.regions import Rectangle, close, rectangles


def as_map(text: str) -> NDArray[np.bool_]:
    return np.array([[letter == "x" for letter in row] for row in text.split()])


def test_rectangles_by_hand() -> None:
    assert rectangles(as_map("xx. xxx")) == [Rectangle(0, 0, 2, 2), Rectangle(1, 2, 1, 1)]
    assert rectangles(as_map("... ...")) == []
    assert rectangles(as_map("xxx xxx")) == [Rectangle(0, 0, 2, 3)]
    assert rectangles(as_map("xxx x.x xxx")) == [
        Rectangle(0, 0, 1, 3),
        Rectangle(1, 0, 2, 1),
        Rectangle(1, 2, 2, 1),
        Rectangle(2, 1, 1, 1),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_rectangles_cover_the_chosen_once(seed: int) -> None:
    random = np.random.default_rng(seed)
    chosen = random.random(random.integers(1, 9, 2)) < random.random()
    count = np.zeros(chosen.shape, int)
    firsts = []
    for rectangle in rectangles(chosen):
        count[rectangle.area] += 1
        firsts.append((rectangle.row, rectangle.column))
    assert (count == chosen).all()
    assert firsts == sorted(firsts)


def test_a_hole_that_costs_nothing_is_closed() -> None:
    coded = as_map("xxx x.x xxx")
    cost = np.full((3, 3), 1000.0)
    extra = np.where(coded, 0.0, 50.0)
    assert close(coded, extra, cost).all()
    extra[1, 1] = 100.0  # more than a hundredth of the eight tiles
    assert (close(coded, extra, cost) == coded).all()
    assert (coded == as_map("xxx x.x xxx")).all()  # its input is not changed


def test_groups_apart_stay_apart() -> None:
    coded = as_map("x.x ..x x.x")
    cost, extra = np.full((3, 3), 1000.0), np.where(coded, 0.0, 1.0)
    assert (close(coded, extra, cost) == coded).all()


def test_closing_goes_on_where_groups_meet() -> None:
    """The box of one group reaches another, and then the box of both is filled."""
    coded = as_map("xx.. x... ..x. .xx.")
    cost, extra = np.full((4, 4), 1e6), np.where(coded, 0.0, 1.0)
    assert (close(coded, extra, cost) == as_map("xxx. xxx. xxx. xxx.")).all()
