"""Filters at random, and files that have some or none."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from diveqcodec.container import bitstream, filters
from diveqcodec.container.filters import CLASSES, LARGEST, TAPS, Filter, Filters


def random_filters(components: int, seed: int) -> Filters:
    """Filters with runs of classes, zeros, small coefficients and large ones."""
    random = np.random.default_rng(seed)
    found: list[Filter | None] = []
    row: NDArray[np.float64]
    for number in range(components):
        if random.random() < 0.3 and number != seed % components:
            found.append(None)
            continue
        rows = np.zeros((CLASSES, TAPS), np.int16)
        row = np.zeros(TAPS)
        for k in range(CLASSES):
            if random.random() < 0.6:
                row = random.normal(0, 9, TAPS).round()
                if random.random() < 0.1:
                    row = random.integers(-LARGEST, LARGEST + 1, TAPS).astype(np.float64)
                row *= random.random() < 0.7
            rows[k] = row
        found.append(Filter(int(random.integers(16)), rows))
    return tuple(found)


def unfiltered(data: bytes) -> bytes:
    """A file without its filters."""
    file = bitstream.read(data)
    tiles = tuple(None if tile is None else replace(tile, filters=None) for tile in file.tiles)
    header = replace(file.header, has_filters=False)
    return bitstream.write(replace(file, header=header, tiles=tiles))


def filtered(data: bytes, seed: int = 0) -> bytes:
    """A file with filters at random in place of its own; every fourth tile has none."""
    file = bitstream.read(data)
    components = 1 if file.header.is_grey else 3
    tiles = tuple(
        tile
        if tile is None
        else replace(
            tile,
            filters=b"" if i % 4 == 3 else filters.pack(random_filters(components, seed + i)),
        )
        for i, tile in enumerate(file.tiles)
    )
    header = replace(file.header, has_filters=True)
    return bitstream.write(replace(file, header=header, tiles=tiles))
