"""The exact prior against plain integers, in other orders of summation, and with bad weights."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from diveqcodec.errors import ModelError
from diveqcodec.exact.integers import integers
from diveqcodec.exact.prior import FixedPrior, GroupRows
from diveqcodec.exact.products import Arithmetic, Digits, Doubles
from diveqcodec.exact.weights import CodingModel
from diveqcodec.model.dvq import DvqModel
from tests.support.bytewise import multiplies_bytes
from tests.support.passes import pass_of
from tests.support.tiny import TINY

Integers = NDArray[np.int64]
SIZE = (7, 5)
WAYS: list[Arithmetic] = [Doubles(), *([Digits()] if multiplies_bytes() else [])]
ACTIVATION_LIMIT, INPUT_LIMIT, LATENT_LIMIT = 1 << 19, 1 << 17, 1 << 24


@pytest.fixture(scope="module")
def numbers(tiny_model_path):
    tensors = load_file(tiny_model_path)
    prefix = "exact.prior."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


class Reference:
    """The prior as FORMAT.md describes it: loops over taps in int64, every sum watched."""

    def __init__(self, config, numbers) -> None:
        self.config = config
        self.numbers: dict[str, Integers] = {k: v.long().numpy() for k, v in numbers.items()}
        self.largest = 0

    def shift(self, value: Integers, bits) -> Integers:
        """Divide by 2^bits, rounding halves to even."""
        bits = np.broadcast_to(np.asarray(bits, dtype=np.int64), value.shape)
        self.largest = max(self.largest, int(np.abs(value).max(initial=0)))
        low = value >> bits
        twice = 2 * (value - (low << bits))
        return low + ((twice > 1 << bits) | ((twice == 1 << bits) & (low % 2 == 1)))

    def window(self, s: int, known: Integers, y: int, x: int) -> Integers:
        """What is known of earlier slices around a position, or at it; taps in raster order."""
        if s >= self.config.window_slices:
            return known[y, x]
        height, width, inputs = known.shape
        found = np.zeros((9, inputs), dtype=np.int64)
        for tap, (i, j) in enumerate(np.ndindex(3, 3)):
            row, column = y + i - 1, x + j - 1
            if 0 <= row < height and 0 <= column < width:
                found[tap] = known[row, column]
        return found.flatten()

    def walk(self, quality_bin: int, size, is_coded, code) -> Integers:
        config, n = self.config, self.numbers
        height, width = size
        latent = np.zeros((height, width, config.channels), dtype=np.int64)
        known = [np.zeros((height, width, config.inputs(s)), np.int64) for s in self.slices()]
        for s, groups in enumerate(config.slices):
            if s >= len(config.slices) - config.optional_slices and not is_coded(s):
                continue  # its latents and what is known of it stay zero
            start = sum(config.slices[:s]) * config.group
            end = start + groups * config.group
            levels = config.levels(s)
            for number in range(1 + 2 * levels if levels else 2):
                for y, x in np.ndindex(height, width):
                    if pass_of(levels, y, x) != number:
                        continue
                    pre = n[f"{s}.quality"][quality_bin]
                    if s:
                        earlier = self.window(s, np.concatenate(known[:s], 2), y, x)
                        pre = pre + n[f"{s}.earlier.weight"] @ earlier
                    if number:
                        pre = pre + self.context(s, number, known[s], y, x)
                    mean, rows = self.head(s, pre, quality_bin)
                    coded = np.clip(code(s, y, x, mean, rows), -LATENT_LIMIT, LATENT_LIMIT)
                    latent[y, x, start:end] = coded
                    scaled = self.shift(coded * n["normalise"][quality_bin, start:end], 12)
                    normal = np.clip(scaled, -INPUT_LIMIT, INPUT_LIMIT)
                    known[s][y, x] = [*normal, *self.magnitudes(coded)]
        return latent

    def context(self, s: int, number: int, known: Integers, y: int, x: int) -> Integers:
        """What a position sees of its own slice, taps in raster order."""
        levels, radius = self.config.levels(s), self.config.radius(s)
        step = 1 << (levels - (number + 1) // 2) if levels else 1
        span: tuple[int, ...] = tuple(range(-radius, radius + 1))
        taps = [(i, j) for i in span for j in span if (i + j) % 2]
        if levels and number % 2:
            taps = [(i, j) for i in (-3, -1, 1, 3) for j in (-3, -1, 1, 3)]
        window = np.zeros((len(taps), known.shape[2]), dtype=np.int64)
        for tap, (i, j) in enumerate(taps):
            row, column = y + step * i, x + step * j
            if 0 <= row < len(known) and 0 <= column < known.shape[1]:
                window[tap] = known[row, column]
        weight, bias = self.numbers[f"{s}.current.{number}.weight"], self.numbers[f"{s}.passes"]
        total: Integers = weight @ window.flatten() + bias[number - 1]
        return total

    def slices(self) -> range:
        return range(len(self.config.slices))

    def magnitudes(self, coded: Integers) -> list[int]:
        """Log magnitudes of a position's groups."""
        found = []
        for group in coded.reshape(-1, self.config.group).tolist():
            total = 256 + sum(map(abs, group))
            exponent = total.bit_length() - 1
            found.append(round(4096 * (exponent - 9 + Fraction(total, 2**exponent))))
        return found

    def head(self, s: int, pre: Integers, quality_bin: int):
        config, n = self.config, self.numbers
        groups, d = config.slices[s], config.group
        start = sum(config.slices[:s]) * d
        pre = self.shift(pre, n[f"{s}.pre.shift"])
        pre = np.clip(pre, -ACTIVATION_LIMIT, ACTIVATION_LIMIT)
        total = n[f"{s}.hidden.weight"] @ np.maximum(pre, 0) + n[f"{s}.hidden.bias"]
        hidden = np.clip(self.shift(total, n[f"{s}.hidden.shift"]), 0, ACTIVATION_LIMIT)
        joined = np.concatenate([hidden, pre[: config.prior_linear]])
        total = n[f"{s}.out.weight"] @ joined + n[f"{s}.out.bias"]
        out = np.clip(self.shift(total, n[f"{s}.out.shift"]), -ACTIVATION_LIMIT, ACTIVATION_LIMIT)
        unit = n["unit"][quality_bin, start : start + groups * d]
        mean = self.shift(out[: groups * d] * unit, 20)
        rest = out[groups * d :].reshape(-1, groups)
        offset = n["offset"][quality_bin, start // d : start // d + groups]
        size = np.clip(self.shift(rest[0] + offset, 12), 0, config.sizes - 1)
        shape = np.clip(self.shift(rest[1], 12) + config.shapes // 2, 0, config.shapes - 1)
        rows = [size * config.shapes + shape]
        if s < config.coarse_slices:
            coarse = self.shift(rest[2] + offset - n["coarse_offset"], 12)
            rows.append(np.clip(coarse, 0, config.sizes - 1))
        return np.clip(mean, -LATENT_LIMIT, LATENT_LIMIT), rows


def errors(s: int, amplitude: int) -> Integers:
    """What a fake coder adds to the means of slice s at every position of the largest grid."""
    random = np.random.default_rng((s, amplitude))
    return random.integers(-amplitude, amplitude + 1, (16, 16, 64))


class Walker:
    """A `SliceCoder` that codes `errors` and leaves out the slices `without`; keeps what it saw."""

    def __init__(self, prior: FixedPrior, size, amplitude: int, without: tuple[int, ...]) -> None:
        self.shapes, self.size, self.amplitude = prior.config.shapes, size, amplitude
        self.without = without
        self.asked: list[int] = []
        self.seen: dict[tuple[int, int, int], tuple[list[int], list[list[int]]]] = {}

    def is_coded(self, s: int) -> bool:
        self.asked.append(s)
        return s not in self.without

    def code(self, s: int, places, mean, rows: GroupRows):
        height, width = self.size
        e = torch.from_numpy(errors(s, self.amplitude)[:height, :width, : mean.shape[1]].copy())
        tables = [rows.fine] + ([] if rows.coarse is None else [rows.coarse])
        assert bool((rows.skipped == (rows.fine < self.shapes)).all())
        for i, place in enumerate(places.tolist()):
            key = (s, place // width, place % width)
            assert key not in self.seen
            self.seen[key] = (mean[i].long().tolist(), [t[i].tolist() for t in tables])
        return mean + e.reshape(-1, mean.shape[1])[places].double()


def walked(
    prior: FixedPrior, size, quality_bin: int, amplitude: int, without: tuple[int, ...] = ()
):
    """ŷ, means and rows of a walk that codes `errors`."""
    coder = Walker(prior, size, amplitude, without)
    latent = prior.walk(quality_bin, size, coder)
    config = prior.config
    assert coder.asked == [s for s in range(len(config.slices)) if config.is_optional(s)]
    return latent, coder.seen


def blunt(numbers, seed: int):
    """Other numbers of the same shapes, under which halves and limits are met everywhere."""
    random = np.random.default_rng(seed)

    def drawn(name: str, value: torch.Tensor) -> torch.Tensor:
        low, high, factor = -3, 3, 1
        if name.endswith(".shift"):
            low, high = 1, 2
        elif name == "unit":
            low, high, factor = 0, 100, 1 << 19
        elif name == "normalise":
            low, high, factor = 0, 100, 1 << 11
        elif name.endswith("offset"):
            low, high, factor = 0, 40, 1 << 11
        elif "out.weight" in name:
            low, high = -1, 1
        chosen = random.integers(low, high + 1, value.shape) * factor
        return torch.from_numpy(chosen).to(value.dtype if factor == 1 else torch.int64)

    return {name: drawn(name, value) for name, value in numbers.items()}


@pytest.mark.parametrize("arithmetic", WAYS)
@pytest.mark.parametrize(("quality_bin", "amplitude"), [(0, 100), (3, 2000), (7, 1 << 26)])
def test_it_computes_what_plain_integers_do(
    numbers, quality_bin: int, amplitude: int, arithmetic: Arithmetic
) -> None:
    prior = FixedPrior(TINY, numbers, arithmetic)
    check_against_plain_integers(prior, numbers, quality_bin, amplitude)


@pytest.mark.parametrize("arithmetic", WAYS)
@pytest.mark.parametrize("seed", range(4))
def test_it_rounds_and_clips_as_plain_integers_do(
    numbers, seed: int, arithmetic: Arithmetic
) -> None:
    """Trained weights hardly ever give a half or reach a limit."""
    changed = blunt(numbers, seed)
    prior = FixedPrior(TINY, changed, arithmetic)
    check_against_plain_integers(prior, changed, seed, 10 ** (seed + 1))


@pytest.mark.parametrize("without", [(2,), (1,), (1, 2)])
def test_slices_left_out_are_computed_as_plain_integers_do(
    numbers, without: tuple[int, ...]
) -> None:
    """What is known of them is zero for those after them."""
    config = replace(TINY, optional_slices=2)
    for changed in (numbers, blunt(numbers, 5)):
        for arithmetic in WAYS:
            prior = FixedPrior(config, changed, arithmetic)
            check_against_plain_integers(prior, changed, 3, 700, without)
    latent, seen = walked(prior, SIZE, 3, 700, without)
    assert {s for s, _, _ in seen} == {0, 1, 2} - set(without)
    for s in range(3):
        assert bool((latent[:, :, config.part(s)] == 0).all()) == (s in without)


@pytest.mark.parametrize("group", [2, 4])
@pytest.mark.parametrize("pyramid", [0, 2])
@pytest.mark.parametrize("optional", [0, 1])
def test_wide_and_several_slices_are_computed_as_plain_integers_do(
    group: int, pyramid: int, optional: int
) -> None:
    """Windows of radius 1, wide pyramids, groups of four: none of them in the tiny model."""
    torch.manual_seed(group)
    slices = (2, 20, 4) if group == 2 else (1, 10, 2)
    config = replace(
        TINY,
        channels=52,
        group=group,
        slices=slices,
        pyramid_slices=pyramid,
        optional_slices=optional,
    )
    exact = integers(DvqModel(config))
    found = {k.removeprefix("prior."): v for k, v in exact.items() if k.startswith("prior.")}
    assert config.radius(1) == 1
    for changed in (blunt(found, 7), blunt(found, 8)):
        for arithmetic in WAYS:
            prior = FixedPrior(config, changed, arithmetic)
            check_against_plain_integers(prior, changed, 3, 1 << 26)
            check_against_plain_integers(prior, changed, 5, 900)


def check_against_plain_integers(
    prior: FixedPrior, numbers, quality_bin: int, amplitude: int, without: tuple[int, ...] = ()
) -> None:
    latent, seen = walked(prior, SIZE, quality_bin, amplitude, without)
    reference = Reference(prior.config, numbers)

    def code(s, y, x, mean, rows):
        got_mean, got_rows = seen.pop((s, y, x))
        assert mean.tolist() == got_mean
        assert [r.tolist() for r in rows] == got_rows
        return mean + errors(s, amplitude)[y, x, : len(mean)]

    expected = reference.walk(quality_bin, SIZE, lambda s: s not in without, code)
    assert not seen  # every position was visited by both
    np.testing.assert_array_equal(latent.long().numpy(), expected)
    assert reference.largest < 1 << 53


def test_rounding_is_to_even() -> None:
    reference = Reference(None, {})
    values = np.arange(-40, 41, dtype=np.int64)
    for bits in range(5):
        expected = [round(Fraction(int(v), 1 << bits)) for v in values]  # Python: half to even
        assert reference.shift(values, bits).tolist() == expected


def test_all_numbers_are_integers(numbers, monkeypatch) -> None:
    fractions = []

    def watched(self, name, inputs):
        total = inputs @ self._matrices[name]
        fractions.append(bool((total != total.round()).any() or (inputs != inputs.round()).any()))
        return total

    monkeypatch.setattr(FixedPrior, "_sum", watched)
    latent, _ = walked(FixedPrior(TINY, numbers, Doubles()), SIZE, 4, 500)
    assert len(fractions) > 8
    assert not any(fractions)
    assert torch.equal(latent, latent.round())


@pytest.mark.parametrize("order", ["reversed", "shuffled", "in parts"])
def test_the_order_of_summation_does_not_matter(numbers, monkeypatch, order: str) -> None:
    prior = FixedPrior(TINY, numbers, Doubles())
    expected, seen = walked(prior, (9, 11), 5, 3000)

    def permuted(self, name, inputs):
        matrix = self._matrices[name]
        places = torch.arange(len(matrix)).flip(0)
        if order == "shuffled":
            places = torch.randperm(len(matrix), generator=torch.Generator().manual_seed(1))
        if order == "in parts":
            total = inputs.new_zeros(len(inputs), matrix.shape[1])
            for part in places.split(7):
                total = inputs[:, part] @ matrix[part] + total
            return total
        return inputs[:, places].contiguous() @ matrix[places].contiguous()

    monkeypatch.setattr(FixedPrior, "_sum", permuted)
    latent, seen_now = walked(prior, (9, 11), 5, 3000)
    assert torch.equal(latent, expected)
    assert seen == seen_now


def test_weights_that_could_leave_the_exact_range_are_refused(
    tiny_model: CodingModel, numbers
) -> None:
    config = tiny_model.prior.config
    FixedPrior(config, numbers)
    for name in ("0.quality", "0.passes", "1.passes", "1.out.bias", "2.hidden.bias", "offset"):
        spoiled = {k: v.clone() for k, v in numbers.items()}
        spoiled[name].view(-1)[-1] = -(1 << 53)
        with pytest.raises(ModelError, match="would not be exact"):
            FixedPrior(config, spoiled)
    for name, product in (("unit", "mean"), ("normalise", "normalise")):
        spoiled = dict(numbers, **{name: numbers[name] * 0 + (1 << 34)})
        with pytest.raises(ModelError, match=f"the prior's {product} can leave"):
            FixedPrior(config, spoiled)
    for large in ("1.earlier.weight", "0.current.2.weight", "2.current.1.weight"):
        huge = {k: v.long() << 34 if k == large else v for k, v in numbers.items()}
        with pytest.raises(ModelError, match=f"{large[0]}.pre can leave"):
            FixedPrior(config, huge)


def test_numbers_that_are_missing_or_misshapen_are_named(tiny_model: CodingModel, numbers) -> None:
    for name in numbers:
        rest = {k: v for k, v in numbers.items() if k != name}
        with pytest.raises(ModelError, match=name.replace(".", r"\.")):
            FixedPrior(tiny_model.prior.config, rest)
        more = dict(numbers, **{name: numbers[name][:-1]})
        with pytest.raises(ModelError, match=name.replace(".", r"\.") + " has shape"):
            FixedPrior(tiny_model.prior.config, more)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 1), (2, 3), (4, 4), (13, 9)])
def test_any_size_walks_every_position_once(tiny_model: CodingModel, size) -> None:
    latent, seen = walked(tiny_model.prior, size, 2, 300)
    assert latent.shape == (*size, tiny_model.config.channels)
    assert len(seen) == size[0] * size[1] * len(tiny_model.config.slices)
