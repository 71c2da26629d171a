"""Small tiles, so that a small picture has many."""

import pytest

from diveqcodec.container import grid


def cut_into(patch: pytest.MonkeyPatch, side: int) -> None:
    """Tiles of `side` pixels instead of 1024; the smallest have a quarter, as always."""
    patch.setattr(grid, "TILE_SIZE", side)
    patch.setattr(grid, "TILE_MIN", side // 4)
