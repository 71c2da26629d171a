"""Writes tests/golden/lossless: files of lossless tiles alone, and what they decode to.

    python -m scripts.make_golden_lossless

To be run only when a kind of lossless pixels is added: the files that are there are the promise
that their pixels come back for ever, though another version of WebP may write other bytes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from diveqcodec.container import pixelfile
from diveqcodec.image import Picture
from scripts.drawings import DRAWINGS
from tests.support.tiny import drawn

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden" / "lossless"


def main() -> None:
    """Write the files and the digests of their pixels."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name, picture in pictures().items():
        data = pixelfile.compress(picture)
        (GOLDEN / f"{name}.dvq").write_bytes(data)
        expected[name] = {"bytes": len(data), "pixels": digest(picture)}
    (GOLDEN / "golden.json").write_text(json.dumps(expected, indent=1) + "\n", "utf-8")


def pictures() -> dict[str, Picture]:
    """Every kind of lossless pixels, grey and colour, with and without transparency."""
    disc = np.where(np.hypot(*(np.mgrid[:61, :83] - 35)) < 30, 255, 90).astype(np.uint8)
    text = np.asarray(DRAWINGS["text"]().convert("L"))[200:260, 100:220, None]
    plot = np.asarray(DRAWINGS["plot"]())[300:380, 400:530]
    board = np.asarray(DRAWINGS["checkers"]())[..., None]
    return {
        "text": Picture(np.ascontiguousarray(text)),
        "plot": Picture(np.ascontiguousarray(plot)),
        "board": Picture(board),
        "noise": Picture(drawn(20, 30, 1)),
        "glass": Picture(drawn(61, 83, 2), disc),
        "pane": Picture(np.full((61, 83, 1), 7, np.uint8), disc),
        "flat": Picture(np.full((1500, 2000, 3), (1, 2, 3), np.uint8)),
        "veil": Picture(np.full((40, 30, 1), 9, np.uint8), np.full((40, 30), 128, np.uint8)),
        "wide": Picture(np.tile(board[:16], (1, 4, 1))),
    }


def digest(picture: Picture) -> str:
    """First bytes of the SHA-256 of pixels and transparency."""
    planes = picture.pixels.tobytes() + (b"" if picture.alpha is None else picture.alpha.tobytes())
    return hashlib.sha256(planes).hexdigest()[:16]


if __name__ == "__main__":
    main()
