"""Sums of products by digits against Python's integers, and what keeps a bad processor out."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from diveqcodec.exact import products
from diveqcodec.exact.products import NUMBER_BOUND, Arithmetic, Digits, Doubles, usable
from tests.support.bytewise import multiplies_bytes
from tests.support.places import ROOT

WAYS: list[Arithmetic] = [Doubles(), *([Digits()] if multiplies_bytes() else [])]


def random(shape: tuple[int, int], most: int, seed: int) -> Tensor:
    """Integers up to `most` in magnitude, of all sizes, the largest ones among them."""
    generator = torch.Generator().manual_seed(seed)
    exponents = torch.rand(shape, generator=generator, dtype=torch.float64)
    signs = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    values = (signs * (most + 1.0) ** exponents).long().clamp(-most, most)
    values.view(-1)[0], values.view(-1)[-1] = most, -most
    return values


def by_hand(numbers: Tensor, weight: Tensor) -> Tensor:
    """Python's integers."""
    rows, columns = numbers.tolist(), weight.tolist()
    return torch.tensor(
        [[sum(x * w for x, w in zip(row, one, strict=True)) for one in columns] for row in rows],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 2), (40, 300, 7), (3, 2592, 4), (300, 90, 90)])
@pytest.mark.parametrize(
    ("most", "heaviest"), [(127, 127), (32639, 32639), (32895, 32768), (NUMBER_BOUND - 1, 1 << 18)]
)
def test_sums_are_those_of_integers(
    way: Arithmetic, shape: tuple[int, int, int], most: int, heaviest: int
) -> None:
    rows, inputs, outputs = shape
    numbers, weight = random((rows, inputs), most, 1), random((outputs, inputs), heaviest, 2)
    numbers[rows // 2] = most
    weight[outputs // 2] = -heaviest
    expected = by_hand(numbers, weight) if rows * inputs * outputs < 1e5 else None
    if expected is None:
        expected = numbers.double() @ weight.double().T
    assert float(expected.abs().max()) < 2**53
    matrix = way.matrix(weight.double())
    assert torch.equal(way.sums(numbers.double(), matrix), expected)
    memory = way.memory(rows, inputs)
    way.put(memory, torch.arange(rows), 0, numbers.double())
    taken = way.take(memory, torch.arange(rows)[:, None], inputs)
    assert torch.equal(way.sums(taken, matrix), expected)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_put_is_taken(way: Arithmetic) -> None:
    """Rows in any order and as often as asked, side by side; others are zero, old ones gone."""
    values = random((6, 5), 1 << 19, 3)
    memory = way.memory(9, 8)
    way.put(memory, torch.tensor([7, 2, 5, 1, 0, 4]), 2, values.double())
    way.put(memory, torch.tensor([2, 5]), 2, values[:2].double())
    whole = torch.zeros(9, 8, dtype=torch.int64)
    whole[[7, 2, 5, 1, 0, 4], 2:7] = values
    whole[[2, 5], 2:7] = values[:2]
    index = torch.tensor([[0, 1, 8], [5, 2, 2], [7, 7, 4], [3, 6, 0]])
    for columns in (8, 6, 3):
        taken = way.take(memory, index, columns)
        identity = way.matrix(torch.eye(3 * columns, dtype=torch.float64))
        expected = whole[:, :columns][index].flatten(1).double()
        assert torch.equal(way.sums(taken, identity), expected)


def test_where_bytes_are_multiplied_rightly_digits_are_usable() -> None:
    assert usable() == multiplies_bytes()


def test_a_matrix_of_too_many_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match="65537 inputs"):
        Digits().matrix(torch.zeros(1, (1 << 16) + 1, dtype=torch.float64))


def test_arithmetic_that_saturates_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As sums of two products in 16 bits would, on processors before VNNI."""

    def saturating(left: Tensor, right: Tensor) -> Tensor:
        left, right = left.int() + 128, right.int()
        pairs = [
            (left[:, i : i + 2, None] * right[None, i : i + 2]).sum(1).clamp(-32768, 32767)
            for i in range(0, left.shape[1], 2)
        ]
        return torch.stack(pairs).sum(0) - 128 * right.sum(0)

    monkeypatch.setattr(products, "_has_instructions", lambda: True)
    monkeypatch.setattr(torch, "_int_mm", saturating)
    assert not usable()
    products.arithmetic.cache_clear()
    try:
        assert isinstance(products.arithmetic(), Doubles)
    finally:
        products.arithmetic.cache_clear()


@pytest.mark.parametrize("has_instructions", [False, True])
def test_without_instructions_it_is_float64(
    has_instructions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_has_instructions", lambda: has_instructions)
    monkeypatch.setattr(products, "_is_right", lambda _: True)
    seconds = {Digits: 1.0, Doubles: 2.0}
    monkeypatch.setattr(products, "_seconds", lambda way: seconds[type(way)])
    products.arithmetic.cache_clear()
    try:
        assert isinstance(products.arithmetic(), Digits if has_instructions else Doubles)
    finally:
        products.arithmetic.cache_clear()


@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE", "DEFAULT"])
def test_whatever_instructions_are_allowed_sums_are_right(isa: str) -> None:
    """If the arithmetic that is taken there were not exact, this would say so."""
    code = (
        "import torch\n"
        "from diveqcodec.exact import products\n"
        "way = products.arithmetic()\n"
        "assert products._is_right(way)\n"
        "print(type(way).__name__)\n"
    )
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": isa, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() in ("Digits", "Doubles")
