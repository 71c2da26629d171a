"""Damaged files give a FormatError or, where every checksum was made to fit, other pixels."""

import resource
import zlib

import numpy as np
import pytest

from diveqcodec.codec import Codec
from diveqcodec.errors import FormatError, ModelError
from diveqcodec.image import Picture
from tests.support.tiny import drawn, few_values
from tests.support.wieners import filtered


@pytest.fixture(scope="module")
def files(codec: Codec) -> list[bytes]:
    """With and without transparency and metadata, with escapes."""
    alpha = (np.add.outer(np.arange(20), np.arange(25)) * 6).astype(np.uint8)
    metadata = b"profile " * 9, b"II*\0exif " * 4, b"<x/>"
    noise = np.random.default_rng(0).integers(0, 2, (18, 20, 3), dtype=np.uint8) * np.uint8(255)
    return [
        codec.compress(Picture(drawn(20, 25, 1), alpha, *metadata), 60, lossless="never"),
        codec.compress(Picture(noise), 100, lossless="never"),
        codec.compress(Picture(drawn(30, 34, 2)[..., :1].copy()), 80, lossless="never"),
        filtered(codec.compress(Picture(drawn(20, 25, 3), alpha), 30, lossless="never")),
        codec.compress(Picture(few_values(drawn(20, 25, 1)), alpha, *metadata), lossless="always"),
        codec.compress(Picture(few_values(drawn(30, 34, 2)[..., :1])), lossless="always"),
    ]


def decoded(codec: Codec, data: bytes) -> Picture | None:
    """The picture, or None where the file was refused as it should be; else the error."""
    try:
        return codec.decompress(data)
    except (FormatError, ModelError) as error:
        message = str(error)
    assert message
    assert "\n" not in message
    return None


def test_every_truncation_is_refused(codec: Codec, files: list[bytes]) -> None:
    for data in files:
        assert decoded(codec, data) is not None
        for length in range(len(data)):
            assert decoded(codec, data[:length]) is None
        assert decoded(codec, data + b"\0") is None


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """One to three changes: flipped bits, other bytes, runs cut out, repeated or moved."""
    result = bytearray(data)
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(len(result)))
        length = int(random.integers(1, 9))
        kind = random.integers(5)
        if kind == 0:
            result[place] ^= 1 << int(random.integers(8))
        elif kind == 1:
            result[place] = int(random.choice([0, 1, 0x7F, 0x80, 0xFF, random.integers(256)]))
        elif kind == 2:
            result[place : place + length] = b""
        elif kind == 3:
            result[place:place] = result[place : place + length]
        else:
            result[place : place + length] = random.integers(0, 256, length, np.uint8).tobytes()
        if not result:
            break
    return bytes(result)


def resealed(data: bytes) -> bytes:
    """The same bytes with the container's checksums made to fit, as far as its structure goes."""
    result = bytearray(data)
    fixed = 6 if len(result) > 5 and result[5] & 4 else 16  # without a model, or with one
    position = _varint(result, _varint(result, fixed)[1])[1]
    result[position : position + 4] = zlib.crc32(result[:position]).to_bytes(4, "little")
    position += 4
    while position < len(result):
        length, body = _varint(result, position + 1)
        end = body + length
        if end + 4 > len(result):
            break
        crc = zlib.crc32(result[position:end])
        result[end : end + 4] = crc.to_bytes(4, "little")
        position = end + 4
    return bytes(result)


def _varint(data: bytearray, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data):
        value |= (data[position] & 0x7F) << shift
        shift += 7
        position += 1
        if data[position - 1] < 0x80:
            break
    return value, position


def mutate_many(codec: Codec, files: list[bytes], count: int, seed: int) -> dict[str, int]:
    random = np.random.default_rng(seed)
    outcomes = {"refused": 0, "unchanged": 0, "decoded": 0, "refused late": 0}
    for number in range(count):
        data = files[number % len(files)]
        changed = mutated(data, random)
        seal = number // len(files) % 2 == 1
        if seal:
            changed = resealed(changed)
        picture = decoded(codec, changed)
        if changed == data:
            outcomes["unchanged"] += 1
            assert picture is not None
        elif picture is None:
            outcomes["refused late" if seal else "refused"] += 1
        else:
            assert seal, changed.hex()  # checksums see every change that nobody covers up
            outcomes["decoded"] += 1
    return outcomes


def test_resealing_restores_checksums(files: list[bytes]) -> None:
    for data in files:
        assert resealed(data) == data
        spoiled = bytearray(data)
        spoiled[-1] ^= 1
        assert resealed(bytes(spoiled)) == data


def test_mutations_never_do_worse(codec: Codec, files: list[bytes]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = mutate_many(codec, files, 2000, seed=1)
    assert outcomes["refused"] > 800
    assert outcomes["refused late"] > 500
    assert outcomes["decoded"] > 5  # metadata, transparency, quality: other pixels
    # Headers made valid may claim a whole tile: 1279x1279 pixels, 16 latents a position.
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400 * 1024, f"{grown} KiB"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_many_mutations_never_do_worse(codec: Codec, files: list[bytes], seed: int) -> None:
    mutate_many(codec, files, 2000, seed)


def test_wrong_payloads_are_caught_by_the_indices(codec: Codec, files: list[bytes]) -> None:
    """Each payload bit flipped, all container checksums right: only the CRC of the indices sees."""
    data = files[2]
    for bit in range(8 * (len(data) - 24), 8 * (len(data) - 4)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert decoded(codec, resealed(bytes(changed))) is None
