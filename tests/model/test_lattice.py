import itertools
import math

import pytest
import torch

from diveqcodec.errors import ConfigError
from diveqcodec.model.lattice import lattice_basis, lattice_coordinates, lattice_points


@pytest.mark.parametrize("dim", [2, 4])
def test_points_are_integer_combinations_of_a_unit_cell_basis(dim: int) -> None:
    basis = lattice_basis(dim)
    points = lattice_points(dim, 200)
    expected = lattice_coordinates(dim, 200).double() @ basis
    torch.testing.assert_close(points.double(), expected, atol=2e-6, rtol=0)
    assert basis.det().abs().item() == pytest.approx(1.0, abs=1e-12)
    assert points.dtype == torch.float32
    assert points[0].eq(0).all()


def test_hexagonal_shells_have_the_known_sizes() -> None:
    # Theta series of A2: 1 + 6 q + 6 q^3 + 6 q^4 + 12 q^7 + 6 q^9 + 6 q^12 + 12 q^13
    shells = {0: 1, 1: 6, 3: 6, 4: 6, 7: 12, 9: 6, 12: 6, 13: 12}
    norms = lattice_points(2, sum(shells.values())).double().square().sum(1)
    expected = [norm * 2 / math.sqrt(3) for norm, size in shells.items() for _ in range(size)]
    assert norms.tolist() == pytest.approx(expected, rel=1e-5)


def test_d4_shells_have_the_known_sizes() -> None:
    # Theta series of D4 by integer norm: 1, 24 (2), 24 (4), 96 (6), 24 (8)
    shells = {0: 1, 2: 24, 4: 24, 6: 96, 8: 24}
    norms = lattice_points(4, sum(shells.values())).double().square().sum(1)
    expected = [norm / math.sqrt(2) for norm, size in shells.items() for _ in range(size)]
    assert norms.tolist() == pytest.approx(expected, rel=1e-5)


def test_d4_points_are_the_integer_vectors_of_even_sum() -> None:
    vectors = lattice_points(4, 169).double() * 2**0.25
    assert (vectors - vectors.round()).abs().max() < 1e-5
    found = {tuple(int(a) for a in row) for row in vectors.round().tolist()}
    ball = itertools.product(range(-3, 4), repeat=4)
    expected = {p for p in ball if sum(p) % 2 == 0 and sum(a * a for a in p) <= 8}
    assert found == expected


@pytest.mark.parametrize("dim", [2, 4])
def test_shorter_codebooks_are_prefixes_of_longer_ones(dim: int) -> None:
    long = lattice_coordinates(dim, 300)
    assert len({tuple(row) for row in long.tolist()}) == 300
    for count in (1, 2, 16, 255, 256):
        assert lattice_coordinates(dim, count).equal(long[:count])


@pytest.mark.parametrize("dim", [2, 4])
def test_every_second_point_is_the_negative_of_the_one_before(dim: int) -> None:
    coordinates = lattice_coordinates(dim, 257)
    assert coordinates[1::2].equal(-coordinates[2::2])


def test_order_is_golden() -> None:
    assert lattice_coordinates(2, 9).tolist() == [
        [0, 0], [1, 0], [-1, 0], [1, -1], [-1, 1], [0, 1], [0, -1], [2, -1], [-2, 1],
    ]  # fmt: skip
    first = lattice_points(2, 6)[5].tolist()
    # sqrt(2 / sqrt 3) times 1/2 and sqrt(3)/2, rounded to float32
    assert first == [0.5372849702835083, 0.930604875087738]


def test_impossible_requests_are_named() -> None:
    with pytest.raises(ConfigError, match="3 dimensions"):
        lattice_points(3, 4)
    with pytest.raises(ConfigError, match="0 points"):
        lattice_coordinates(2, 0)
