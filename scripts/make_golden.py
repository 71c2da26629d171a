"""Makes tests/golden again: a tiny trained model, files it wrote, and what they decode to.

    python -m scripts.make_golden

To be run only when the format or the model's structure has changed on purpose: the golden files
are the promise that a file decodes to the same indices for ever. `--keep` keeps the model and the
files that are there, and adds those that are missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from diveqcodec.codec import Codec
from diveqcodec.container import bitstream, filters, patches
from diveqcodec.container.bitstream import Tile
from diveqcodec.exact import tensorfile, weights
from diveqcodec.image import Picture
from diveqcodec.quality import Lossless
from tests.support.coders import Recorder, decoded_tiles
from tests.support.tiny import TINY, captioned, drawn, picture_of, trained
from tests.support.wieners import filtered, unfiltered

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
STEPS = 200


def main() -> None:
    """Train the model unless it is kept, write the files, and check that all cases occur."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true")
    keep: bool = parser.parse_args().keep
    torch.set_num_threads(1)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    path = GOLDEN / "tiny.safetensors"
    if not keep:
        make_model(path)
    codec = Codec(weights.load(path), networks=torch.float32)
    expected = {}
    calls = []
    for name, (picture, quality, effort) in pictures(codec).items():
        file = GOLDEN / f"{name}.dvq"
        if not (keep and file.exists()):
            lossless: Lossless = "auto" if name == "patches" else "never"
            plain = unfiltered(codec.compress(picture, quality, effort, lossless=lossless))
            file.write_bytes(filtered(plain) if name == "filters" else plain)
        data = file.read_bytes()
        tiles = decoded_tiles(codec, data)
        calls += [tile.calls for tile in tiles]
        expected[name] = {
            "model": codec.model.model_id.hex(),
            "bytes": len(data),
            "indices": [f"{tile.crc:08x}" for tile in tiles],
            "latent": [digest(tile.latent) for tile in tiles],
            "filters": filters_of(data),
            "patches": patches_of(data),
        }
    check(calls)
    (GOLDEN / "golden.json").write_text(json.dumps(expected, indent=1) + "\n", "utf-8")


def make_model(path: Path) -> None:
    """Train the tiny model and store what coding needs of it."""
    model, losses = trained(TINY, STEPS)
    weights.save(model, path, {"made by": "scripts/make_golden.py", "steps": STEPS})
    tensors, info = tensorfile.read_tensors(path, training=False)
    tensorfile.write(path, tensors, info)
    print(f"{path.name}: {path.stat().st_size} bytes, loss {np.mean(losses[-20:]):.3f}")


def pictures(codec: Codec) -> dict[str, tuple[Picture, float, int]]:
    """Pictures with quality and effort: colour, grey, transparency, what no prior expects.

    Those of "filters" are random ones, which exercise all of their bits.
    """
    disc = np.hypot(*(np.mgrid[:61, :83] - 35)) < 30
    noise = np.random.default_rng(1).integers(0, 2, (50, 64, 3), dtype=np.uint8) * np.uint8(255)
    # What the prior believes to be zero: the last components of slices, each alone.
    synthesis, config = codec.model.transforms.synthesis, codec.model.config
    latent = torch.zeros(1, config.channels, 7, 7)
    for s, row, column in ((1, 2, 1), (1, 3, 4), (2, 5, 2), (2, 4, 5)):
        latent[0, config.part(s).stop - 1, row, column] = 1.0
    with torch.no_grad():
        there = synthesis.linear(latent) - synthesis.linear(0 * latent)
    surprise = (127 * there / there.abs().max() + 127)[0].permute(1, 2, 0)
    return {
        "colour": (picture_of(drawn(97, 130, 100)), 60, 5),
        "low": (picture_of(drawn(160, 120, 101)), 1, 5),
        "grey": (picture_of(drawn(47, 33, 102)[..., :1].copy()), 75, 5),
        "alpha": (picture_of(drawn(61, 83, 103), disc.astype(np.uint8) * np.uint8(255)), 40, 5),
        "noise": (picture_of(noise), 100, 5),
        "surprise": (picture_of(surprise.round().to(torch.uint8).numpy()), 5, 5),
        "nearest": (picture_of(drawn(64, 64, 104)), 90, 1),
        "dot": (picture_of(drawn(1, 1, 105)), 50, 5),
        "filters": (picture_of(drawn(70, 54, 106)), 30, 5),
        "patches": (picture_of(captioned(130, 190, Tile(21, 40, 140, 50), 107)), 50, 5),
    }


def filters_of(data: bytes) -> list[str]:
    """Threshold and first bytes of the SHA-256 of the coefficients, for every filter of a file."""
    file = bitstream.read(data)
    components = 1 if file.header.is_grey else 3
    return [
        f"{one.threshold} {hashlib.sha256(one.rows.astype('<i2').tobytes()).hexdigest()[:16]}"
        for tile in file.tiles
        if tile is not None
        for one in filters.unpack(tile.filters or b"", components)
        if one is not None
    ]


def patches_of(data: bytes) -> list[str]:
    """Place and first bytes of the SHA-256 of the pixels, for every patch of a file."""
    file = bitstream.read(data)
    grid = bitstream.tile_grid(file.header.width, file.header.height)
    found = []
    for tile, content in zip(grid, file.tiles, strict=True):
        packed = b"" if content is None else content.patches or b""
        for patch in patches.unpack(packed, tile.height, tile.width):
            place = patch.place
            pixels = patches.pixels_of(patch, is_grey=file.header.is_grey)
            numbers = f"{place.x} {place.y} {place.width} {place.height}"
            found.append(f"{numbers} {hashlib.sha256(pixels.tobytes()).hexdigest()[:16]}")
    return found


def digest(latent: torch.Tensor) -> str:
    """First bytes of the SHA-256 of a latent's integers."""
    return hashlib.sha256(latent.long().numpy().astype("<i8").tobytes()).hexdigest()[:16]


def check(calls: list[Recorder]) -> None:
    """Refuse files that do not exercise the format."""
    flags = [flag for call in calls for flag in call.flags()]
    classes = np.unique(np.concatenate([c for call in calls for c in call.classes if len(c)]))
    escaped = sum(call.escaped() for call in calls)
    optional = [coded for call in calls for coded in call.optional()]
    print(f"flags {sum(flags)} of {len(flags)}, {escaped} escaped coordinates, rows {classes}")
    print(f"optional slices {sum(optional)} of {len(optional)}")
    is_poor = any(sum(bits) in (0, len(bits)) for bits in (flags, optional))
    if is_poor or not escaped or len(classes) < 12:
        raise SystemExit("the files lack flags, slices, escapes or classes: change the pictures")


if __name__ == "__main__":
    main()
