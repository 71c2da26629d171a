"""The promise: a file decodes to the same indices everywhere, and indices give the same bytes."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diveqcodec.codec import Codec
from diveqcodec.container import bitstream
from diveqcodec.container.entropy import Decoder
from diveqcodec.exact.tile import TileCoder
from tests.support.coders import decoded_tiles, positions, quality_bin, rewritten
from tests.support.places import GOLDEN, ROOT
from tests.support.tiles import cut_into
from tests.support.tiny import drawn, picture_of

EXPECTED: dict[str, Any] = json.loads((GOLDEN / "golden.json").read_text("utf-8"))


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.dvq").read_bytes()


def test_golden_files_decode_to_golden_indices(codec: Codec) -> None:
    from scripts.make_golden import digest, filters_of, patches_of

    assert len(EXPECTED) == 10
    for name, expected in EXPECTED.items():
        tiles = decoded_tiles(codec, golden(name))
        assert bitstream.read(golden(name)).header.model_id.hex() == expected["model"]
        assert [f"{tile.crc:08x}" for tile in tiles] == expected["indices"]
        assert [digest(tile.latent) for tile in tiles] == expected["latent"]
        assert filters_of(golden(name)) == expected["filters"]
        assert patches_of(golden(name)) == expected["patches"]
    assert len(EXPECTED["filters"]["filters"]) == 3
    assert len(EXPECTED["patches"]["patches"]) == 1


def test_golden_indices_are_written_as_golden_bytes(codec: Codec) -> None:
    for name in EXPECTED:
        assert rewritten(codec, golden(name)) == golden(name)


def test_golden_files_exercise_the_format(codec: Codec) -> None:
    calls = [tile.calls for name in EXPECTED for tile in decoded_tiles(codec, golden(name))]
    flags = [flag for call in calls for flag in call.flags()]
    assert 0 < sum(flags) < len(flags)
    optional = [coded for call in calls for coded in call.optional()]
    assert 0 < sum(optional) < len(optional) == len(calls)
    assert sum(call.escaped() for call in calls) > 100
    assert len(np.unique(np.concatenate([c for call in calls for c in call.classes]))) > 12
    headers = [bitstream.read(golden(name)).header for name in EXPECTED]
    assert any(h.is_grey for h in headers)
    assert any(h.has_alpha for h in headers)


PROBE = """
import json, sys, torch
from pathlib import Path
from diveqcodec.exact import weights
from diveqcodec.codec import Codec
from scripts.make_golden import digest
from tests.support.coders import decoded_tiles, rewritten
folder = Path("tests/golden")
codec = Codec(weights.load(folder / "tiny.safetensors"))
result = {"capability": torch.backends.cpu.get_cpu_capability()}
for threads in (1, 2):
    torch.set_num_threads(threads)
    for path in sorted(folder.glob("*.dvq")):
        data = path.read_bytes()
        tiles = decoded_tiles(codec, data)
        found = [[f"{t.crc:08x}" for t in tiles], [digest(t.latent) for t in tiles]]
        result[f"{path.stem} {threads}"] = [*found, rewritten(codec, data) == data]
print(json.dumps(result))
"""
# A processor's features, as torch and the libraries under it can be told to see them.
CAPS = {
    "default": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "avx2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "avx512": {},
}


@pytest.mark.parametrize("capability", CAPS)
def test_processor_features_and_threads_change_nothing(capability: str) -> None:
    variables = {**os.environ, "ATEN_CPU_CAPABILITY": capability, **CAPS[capability]}
    variables.pop("OMP_NUM_THREADS", None)
    run = subprocess.run(
        [sys.executable, "-c", PROBE],
        capture_output=True,
        text=True,
        env=variables,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    reached = result.pop("capability").lower()
    assert reached == capability or capability == "avx512" or reached == "default"
    assert len(result) == 2 * len(EXPECTED)
    for name, expected in EXPECTED.items():
        for threads in (1, 2):
            assert result[f"{name} {threads}"] == [expected["indices"], expected["latent"], True]


@pytest.mark.parametrize("networks", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layout_and_dtype_of_the_networks_change_pixels_by_little(
    tiny_model_path: Path, codec: Codec, networks: torch.dtype, layout: torch.memory_format
) -> None:
    from diveqcodec.exact import weights

    model = weights.load(tiny_model_path)
    model.transforms.to(memory_format=layout)  # type: ignore[call-overload]
    other = Codec(model, networks=networks)
    for name, expected in EXPECTED.items():
        # Decoding checks the CRC of the indices: a changed one would raise.
        pixels = other.decompress(golden(name)).pixels.astype(int)
        difference = np.abs(pixels - codec.decompress(golden(name)).pixels)
        assert difference.max() <= (1 if networks == torch.float32 else 12)
        assert difference.mean() <= (0.01 if networks == torch.float32 else 1.0)
        tiles = decoded_tiles(other, golden(name))
        assert [f"{tile.crc:08x}" for tile in tiles] == expected["indices"]


def test_a_tile_decodes_alone_as_within_its_picture(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_into(monkeypatch, 64)
    data = codec.compress(picture_of(drawn(150, 140, 7)), 70, lossless="never")
    file = bitstream.read(data)
    grid = bitstream.tile_grid(140, 150)
    together = decoded_tiles(codec, data)
    assert len(together) == len(grid) == 6
    monkeypatch.undo()
    for tile, content, known in zip(
        reversed(grid), reversed(file.tiles), together[::-1], strict=True
    ):
        assert content is not None
        coder = TileCoder(
            codec.model, Decoder(content.payload), quality_bin(codec, file), positions(tile)
        )
        latent, crc = coder.run()
        assert torch.equal(latent, known.latent)
        assert crc == content.index_crc
        header = dataclasses.replace(file.header, width=tile.width, height=tile.height)
        alone = bitstream.write(bitstream.DvqFile(header, (content,)))
        assert codec.decompress(alone).pixels.shape == (tile.height, tile.width, 3)


def test_the_encoder_stands_on_what_the_decoder_finds(codec: Codec) -> None:
    """Encoding twice gives the same bytes, also between other pictures and with other threads."""
    picture = picture_of(drawn(80, 112, 11))
    first = codec.compress(picture, 66, lossless="never")
    codec.compress(picture_of(drawn(33, 20, 12)), 10)
    assert codec.compress(picture, 66, lossless="never") == first
    assert rewritten(codec, first) == first


@pytest.mark.gpu
def test_a_gpu_decodes_to_golden_indices(tiny_model_path: Path) -> None:
    from diveqcodec.exact import weights

    device = torch.device("cuda")
    codec = Codec(weights.load(tiny_model_path, device))
    for name, expected in EXPECTED.items():
        assert codec.decompress(golden(name)).pixels.size
        assert [f"{t.crc:08x}" for t in decoded_tiles(codec, golden(name))] == expected["indices"]
    picture = picture_of(drawn(96, 130, 5))
    assert codec.decompress(codec.compress(picture, 50)).pixels.shape == (96, 130, 3)
