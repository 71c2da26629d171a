"""FORMAT.md, "FILT" and "Filters", read again: bits and pixels in loops over plain integers."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from diveqcodec.container import filters, wiener
from diveqcodec.container.filters import CLASSES, TAPS, Filter
from tests.support.wieners import random_filters

Picture = list[list[list[int]]]  # rows, columns, colours
Parsed = list[tuple[int, list[list[int]]] | None]

LIMITS = (48, 96, 144, 192, 288, 384, 480, 576, 768, 960, 1248, 1536, 2112, 2688, 3840)
OFFSETS = ((0, 1), (1, 0), (0, 2), (2, 0), (1, 1), (1, -1))


def parse(data: bytes, components: int) -> Parsed:
    """The bits of FILT, as the page has them."""
    if not data:
        return [None] * components
    bits = "".join(f"{byte:08b}" for byte in data)
    position = 0

    def take(count: int) -> int:
        nonlocal position
        position += count
        return int(bits[position - count : position] or "0", 2)

    found: Parsed = []
    for _ in range(components):
        if take(1) == 0:
            found.append(None)
            continue
        number = take(4)
        rows: list[list[int]] = []
        sent, before_is_zero = [0] * 12, False
        for k_class in range(16):
            if k_class > 0 and take(1) == 1:
                rows.append(rows[-1])
                continue
            if not before_is_zero and take(1) == 0:
                rows.append([0] * 12)
                before_is_zero = True
                continue
            before_is_zero = False
            k = take(3)
            for tap in range(12):
                v = 0
                while take(1):
                    v += 1
                v = v * 2**k + take(k)
                sent[tap] += v // 2 if v % 2 == 0 else -(v + 1) // 2
            rows.append(list(sent))
        found.append((number, rows))
    assert len(bits) - position < 8
    assert not take(len(bits) - position)
    return found


def filter_tile(region: Picture, place: tuple[int, int, int, int], found: Parsed) -> Picture:
    """Rows and columns of a tile, at (top, left, height, width), of a region that goes on."""
    top, left, height, width = place

    def component(y: int, x: int, number: int) -> int:
        pixel = region[min(max(y, 0), len(region) - 1)][min(max(x, 0), len(region[0]) - 1)]
        if len(pixel) == 1:
            return 3 * pixel[0]
        r, g, b = pixel
        return (r + g + b, r - b, r - 2 * g + b)[number]

    def rough(block_y: int, block_x: int, dy: int, dx: int) -> int:
        total = 0
        for y in range(block_y - 2, block_y + 6):
            for x in range(block_x - 2, block_x + 6):
                both = component(y + dy, x + dx, 0) + component(y - dy, x - dx, 0)
                total += abs(2 * component(y, x, 0) - both)
        return total

    result = [[list(region[top + y][left + x]) for x in range(width)] for y in range(height)]
    for block_y in range(top, top + height, 4):
        for block_x in range(left, left + width, 4):
            down, across, falling, rising = (
                rough(block_y, block_x, *way) for way in ((1, 0), (0, 1), (1, 1), (1, -1))
            )
            k_class = sum(limit <= down + across for limit in LIMITS)
            order = list(range(12))
            exchanges = [(0, 1), (2, 3), (6, 7), (8, 9)] if down > across else []
            exchanges += [(4, 5), (10, 11)] if falling > rising else []
            for i, j in exchanges:
                order[i], order[j] = order[j], order[i]
            for y in range(block_y, block_y + 4):
                for x in range(block_x, block_x + 4):
                    e = [0, 0, 0]
                    for number, one in enumerate(found):
                        if one is None:
                            continue
                        threshold = (2 + one[0] % 2) * 2 ** (one[0] // 2)
                        centre = component(y, x, number)
                        for tap, (dy, dx) in enumerate(OFFSETS):
                            ways = [
                                component(y + dy, x + dx, number) - centre,
                                component(y - dy, x - dx, number) - centre,
                            ]
                            clipped = [max(-threshold, min(way, threshold)) for way in ways]
                            row = one[1][k_class]
                            e[number] += row[order[tap]] * sum(ways)
                            e[number] += row[order[6 + tap]] * sum(clipped)
                    pixel = result[y - top][x - left]
                    added = [e[0] + e[1] + e[2], e[0] - 2 * e[2], e[0] - e[1] + e[2]]
                    for colour, value in enumerate(pixel):
                        more = added[colour] if len(pixel) == 3 else e[0]
                        pixel[colour] = max(0, min((256 * value + more + 128) // 256, 255))
    return result


def region_of(height: int, width: int, colours: int, seed: int) -> NDArray[np.uint8]:
    """Flat, soft, sharp and noisy parts, so that all classes and turns occur."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.sin((y * random.normal() + x * random.normal()) / random.uniform(0.3, 3))
    noise = random.normal(0, 1, (height, width, colours))
    noise *= (2.0 ** (x / width * 4 + y // 12 - 3))[..., None]
    picture = 128 + (20 * waves * (y < 6))[..., None] + noise
    picture[y > 2 * x + height // 2] += 90
    return np.asarray(picture.clip(0, 255).round(), np.uint8)


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(
    "place", [(0, 0, 48, 32), (0, 0, 16, 16), (16, 0, 32, 16), (16, 16, 16, 16)]
)
def test_both_implementations_agree_bit_for_bit(
    colours: int, place: tuple[int, int, int, int]
) -> None:
    top, left, height, width = place
    changed = 0.0
    for seed in range(3):
        region = region_of(48, 32, colours, seed)
        data = filters.pack(random_filters(colours, seed))
        expected = filter_tile(region.tolist(), place, parse(data, colours))
        halo = np.pad(region, ((3, 3), (3, 3), (0, 0)), mode="edge")
        seen = halo[top : top + height + 6, left : left + width + 6]
        found = wiener.filtered(seen, filters.unpack(data, colours))
        assert found.tolist() == expected
        changed += (found != region[top : top + height, left : left + width]).mean()
    assert changed > 0.2


def test_all_classes_and_turns_occur() -> None:
    classes: set[int] = set()
    turns: set[int] = set()
    for seed in range(3):
        halo = np.pad(region_of(48, 32, 3, seed), ((3, 3), (3, 3), (0, 0)), mode="edge")
        window = wiener.BlockWindow.of(halo)
        classes |= set(window.classes.ravel().tolist())
        turns |= set(window.turns.ravel().tolist())
    assert turns == {0, 1, 2, 3}
    assert len(classes) > 12


@pytest.mark.parametrize("colours", [1, 3])
def test_nothing_overflows(colours: int) -> None:
    """The largest coefficients, on black and white: the sums are those of unbounded integers."""
    random = np.random.default_rng(colours)
    for sign in (1, -1):
        rows = np.full((CLASSES, TAPS), 255 * sign, np.int16)
        every = (Filter(15, rows),) * colours
        for region in (
            random.integers(0, 2, (16, 16, colours)) * 255,
            np.broadcast_to(np.indices((16, 16)).sum(0)[..., None] % 2 * 255, (16, 16, colours)),
        ):
            pixels = region.astype(np.uint8)
            halo = np.pad(pixels, ((3, 3), (3, 3), (0, 0)), mode="edge")
            parsed: Parsed = [(15, rows.tolist())] * colours
            expected = filter_tile(pixels.tolist(), (0, 0, 16, 16), parsed)
            assert wiener.filtered(halo, every).tolist() == expected


def test_the_example_of_the_page() -> None:
    rows = np.zeros((CLASSES, TAPS), np.int16)
    rows[3:, 0], rows[3:, 2] = 2, -1
    data = bytes.fromhex("b30f2007ff80")
    assert filters.pack((Filter(6, rows),)) == data
    assert parse(data, 1) == [(6, rows.tolist())]
    page = (Path(__file__).parents[2] / "FORMAT.md").read_text("utf-8")
    assert f"\n{data.hex()}\n" in page


@pytest.mark.parametrize("components", [1, 3])
def test_both_readers_agree(components: int) -> None:
    for seed in range(60):
        found = random_filters(components, seed)
        data = filters.pack(found)
        expected = [None if one is None else (one.threshold, one.rows.tolist()) for one in found]
        assert parse(data, components) == expected
