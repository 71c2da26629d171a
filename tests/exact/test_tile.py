"""One tile's latent <-> symbols: inverse pairs, nothing clips, payloads of the right length."""

import dataclasses

import numpy as np
import pytest
import torch

from diveqcodec.container.entropy import Decoder, Encoder, ideal_bits
from diveqcodec.errors import DamagedError
from diveqcodec.exact.tile import Tally, TileCoder, TileSource, check_crc
from diveqcodec.exact.weights import CodingModel
from diveqcodec.model import search
from diveqcodec.model.candidates import GRID_BITS
from diveqcodec.model.passes import passes_of
from diveqcodec.model.recorder import is_worth_coding
from diveqcodec.quality import RATE
from tests.support.coders import Recorder

SIZES = [(1, 1), (1, 7), (9, 1), (2, 3), (4, 4), (5, 8), (13, 11)]


def source(model: CodingModel, size, scale: float, rate: float = RATE, seed: int = 0) -> TileSource:
    random = torch.Generator().manual_seed(seed)
    return TileSource(torch.randn(*size, model.config.channels, generator=random) * scale, rate)


def passes(model: CodingModel, s: int, size) -> int:
    """How many passes of slice s have positions."""
    config = model.config
    geometry = passes_of(*size, config.levels(s), config.radius(s), torch.device("cpu"))
    return sum(len(one.places) > 0 for one in geometry)


def both(model: CodingModel, size, given: TileSource, quality_bin: int = 3):
    """Encode and decode: the calls, the decoded latent in cells, the payload."""
    encoder = Encoder()
    calls = Recorder(encoder)
    wrote, crc = TileCoder(model, calls, quality_bin, size, given).run()
    payload = encoder.finish()
    decoder = Decoder(payload)
    read, crc_read = TileCoder(model, decoder, quality_bin, size).run()
    decoder.finish()
    assert torch.equal(read, wrote)
    assert crc == crc_read
    return calls, read.float() * 2.0**-GRID_BITS, payload


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 40.0])
def test_decoding_inverts_encoding(tiny_model: CodingModel, size, scale: float) -> None:
    for quality_bin in (0, 3, 7):
        _, latent, _ = both(tiny_model, size, source(tiny_model, size, scale), quality_bin)
        assert latent.shape == (*size, tiny_model.config.channels)


@pytest.mark.parametrize("rate", [0.0, RATE])
@pytest.mark.parametrize("large", [1000.0, -60000.0])
def test_nothing_clips(tiny_model: CodingModel, rate: float, large: float) -> None:
    """Latents far outside of codebooks and tables, one at a time and everywhere."""
    size = (6, 7)
    for quality_bin in (0, 7):
        for channel in (0, 3, 4, 9, 15, 16, 23):
            given = source(tiny_model, size, 0.1, rate)
            given.latent[3, 2, channel] = large
            given.latent[4, 4, channel] = large / 3
            _, latent, _ = both(tiny_model, size, given, quality_bin)
            for place in ((3, 2), (4, 4)):
                error = (latent - given.latent)[place][channel].abs()
                assert float(error) < (1.5 if rate == 0 else 2.0), (quality_bin, channel, place)
        everywhere = source(tiny_model, size, 0.0, rate)
        everywhere.latent[:] = torch.linspace(-large, large, everywhere.latent.numel()).view(
            everywhere.latent.shape
        )
        _, latent, _ = both(tiny_model, size, everywhere, quality_bin)
        assert float((latent - everywhere.latent).abs().max()) < (1.5 if rate == 0 else 2.0)


def test_skipped_groups_are_coded_when_the_flag_says_so(tiny_model: CodingModel) -> None:
    """The prior is bent to predict zeros, and class 0 for every fine group."""
    prior = tiny_model.prior
    numbers, matrices = dict(prior._numbers), dict(prior._matrices)
    config = tiny_model.config
    for s, groups in enumerate(config.slices):
        start = groups * config.group
        bias = torch.zeros_like(numbers[f"{s}.out.bias"])
        bias[start : start + groups] = -(2.0**40)
        numbers[f"{s}.out.bias"] = bias
        shape = config.outputs(s), config.prior_width2 + config.prior_linear
        matrices[f"{s}.out"] = prior.arithmetic.matrix(torch.zeros(shape, dtype=torch.float64))
    size = (8, 8)
    changed = object.__new__(type(prior))
    changed.__dict__.update(prior.__dict__, _numbers=numbers, _matrices=matrices)
    model = dataclasses.replace(tiny_model, prior=changed)
    quiet = source(tiny_model, size, 0.02)
    calls, latent, _ = both(model, size, quiet)
    assert not any(calls.flags())
    loud = source(tiny_model, size, 0.02)
    loud.latent[5, 5, 12] = 300.0
    calls, latent, _ = both(model, size, loud)
    # Slice 1, first pass (5 + 5 is even), and no other.
    assert calls.flags() == [0] * passes(model, 0, size) + [1, 0]  # slice 2 is left out
    assert abs(float(latent[5, 5, 12]) - 300) < 2


@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
def test_nearest_codewords_are_near(tiny_model: CodingModel, scale: float) -> None:
    """Without a price of bits every group that is coded lies within a cell, in all classes."""
    size = (8, 12)
    for quality_bin in (0, 2, 7):
        given = source(tiny_model, size, scale, rate=0.0)
        calls, latent, _ = both(tiny_model, size, given, quality_bin)
        error = (latent - given.latent).reshape(-1, 2).norm(dim=1)
        assert calls.flags()
        if scale > 1:  # or a skipped group may be lost on purpose
            assert float(error.max()) < 1.5


@pytest.mark.parametrize("scale", [0.2, 1.0, 8.0, 200.0])
@pytest.mark.parametrize("size", [(1, 1), (6, 9), (24, 20)])
def test_the_payload_is_as_long_as_its_information(tiny_model: CodingModel, size, scale) -> None:
    tally, encoder = Tally(), Encoder()
    TileCoder(tiny_model, encoder, 4, size, source(tiny_model, size, scale), tally).run()
    payload, ideal = len(encoder.finish()), sum(tally.bits.values()) / 8
    # It may be shorter: null symbols at its end leave zero bits, which are not written.
    assert 0.99 * ideal - 16 <= payload <= 1.01 * ideal + 8
    coded = {"slice 0", "slice 1"} | ({"slice 2"} if scale > 0.5 else set())
    assert set(tally.bits) == coded
    again = Tally()
    encoder = Encoder()
    TileCoder(tiny_model, encoder, 4, size, source(tiny_model, size, scale), again).run()
    decoder = Decoder(encoder.finish())
    read = Tally()
    TileCoder(tiny_model, decoder, 4, size, tally=read).run()
    assert read.bits == pytest.approx(again.bits)


def test_the_tally_counts_what_the_tables_say(tiny_model: CodingModel) -> None:
    size, encoder, tally = (5, 6), Encoder(), Tally()
    calls, given = Recorder(encoder), source(tiny_model, size, 0.5)
    TileCoder(tiny_model, calls, 4, size, given, tally).run()
    assert tiny_model.coarse is not None
    coarse, fine = tiny_model.coarse.tables, tiny_model.fine.tables
    assert calls.escaped() == 0
    expected = 0.0
    order = (None, coarse, fine) * passes(tiny_model, 0, size)
    for number, tables in enumerate(order):
        if tables is not None:  # else a flag, which counts nowhere
            expected += ideal_bits(tables, calls.classes[number], calls.symbols[number])
    assert tally.bits["slice 0"] == pytest.approx(expected)


def test_a_higher_price_of_bits_costs_fewer_of_them(tiny_model: CodingModel) -> None:
    size = (16, 16)
    lengths = [
        len(both(tiny_model, size, source(tiny_model, size, 1.0, rate))[2])
        for rate in (0.0, RATE, 4 * RATE)
    ]
    assert lengths[0] > lengths[1] > lengths[2]


def test_rate_aware_assignment_is_the_better_trade(tiny_model: CodingModel) -> None:
    size = (16, 16)
    costs = []
    for rate in (0.0, RATE):
        given = source(tiny_model, size, 1.0, rate)
        _, latent, payload = both(tiny_model, size, given)
        error = float((latent - given.latent).square().sum())
        costs.append(error + RATE * 8 * len(payload))
    assert costs[1] < 0.98 * costs[0]


def test_the_order_of_symbols(tiny_model: CodingModel) -> None:
    """Of slices and passes flag, coarse symbols if any, fine symbols; before an optional slice
    whether it is coded.
    """
    size = (3, 3)
    calls, _, _ = both(tiny_model, size, source(tiny_model, size, 1.0))
    assert calls.escaped() == 0
    assert tiny_model.coarse is not None
    fine, coarse = tiny_model.fine.tables.symbols, tiny_model.coarse.tables.symbols
    assert passes(tiny_model, 0, size) == 5
    flagged = [2, fine] * 2
    assert calls.sizes == [2, coarse, fine] * 5 + flagged + [2] + flagged
    kinds = [len(classes) > 0 for classes in calls.classes]
    assert kinds.index(False) == 5 * 3 + 4  # the one uniform value
    assert kinds.count(False) == 1
    assert calls.optional() == [1]
    # of nine positions one in the first pass, two groups in each
    assert len(calls.symbols[2]) == 2


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (8, 12)])
def test_an_optional_slice_that_is_left_out_is_zero(tiny_model: CodingModel, size) -> None:
    """It costs the bit that says so, wherever it begins and whatever the others hold."""
    part = tiny_model.config.part(2)
    given = source(tiny_model, size, 3.0)
    given.latent[:, :, part] *= 0.1
    calls, latent, payload = both(tiny_model, size, given)
    assert calls.optional() == [0]
    assert bool((latent[:, :, part] == 0).all())
    tally = Tally()
    TileCoder(tiny_model, Decoder(payload), 3, size, tally=tally).run()
    assert set(tally.bits) == {"slice 0", "slice 1"}
    given.latent[:, :, part] *= 300
    calls, coded, _ = both(tiny_model, size, given)
    assert calls.optional() == [1]
    assert float((coded - given.latent)[:, :, part].abs().max()) < 2
    assert torch.equal(coded[:, :, : part.start], latent[:, :, : part.start])


def test_a_slice_is_worth_coding_where_its_groups_have_energy() -> None:
    """In squared cells beyond 1.25 a group: 0.02 a position, over all positions of a picture."""
    y = torch.zeros(3, 100, 4)
    y[0, :, 1] = 1.1  # every group small enough to stay null
    y[1, 7, 2:] = 1.27  # one group: 3.23 - 1.25 = 1.98 of 100 positions, just below
    y[2, 7, 2:] = 1.29  # 3.33 - 1.25 = 2.08, just above
    assert is_worth_coding(y, 2).tolist() == [False, False, True]


def test_check_crc() -> None:
    check_crc(5, 5, 0)
    with pytest.raises(DamagedError, match="indices of tile 3"):
        check_crc(5, 6, 3)


def test_escaped_coordinates_of_every_length(tiny_model: CodingModel) -> None:
    values = [0, 1, -1, 2, -2, 1000, -1001, 4095, 4096, -4097, (1 << 23), -(1 << 23)]
    values += [(1 << k) - 1 for k in range(2, 23)] + [-(1 << k) for k in range(2, 23)]
    given = np.array(values, dtype=np.int64)
    encoder = Encoder()
    TileCoder(tiny_model, encoder, 0, (1, 1))._escapes("", len(given), given)
    coder = TileCoder(tiny_model, Decoder(encoder.finish()), 0, (1, 1))
    assert coder._escapes("", len(given), None).tolist() == values


def test_first_slices_keep_more(tiny_model: CodingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every slice bits count for their share: less of it, more bits and smaller errors."""
    size = (12, 12)
    given = source(tiny_model, size, 3.0)

    def coded(share: float | None) -> tuple[dict[str, float], list[float]]:
        if share is not None:
            monkeypatch.setattr(search, "rate_share", lambda channel: share)
        tally = Tally()
        latent, _ = TileCoder(tiny_model, Encoder(), 3, size, given, tally).run()
        error = (latent.float() * 2.0**-GRID_BITS - given.latent).square()
        parts = [tiny_model.config.part(s) for s in range(len(tiny_model.config.slices))]
        return tally.bits, [float(error[:, :, part].mean()) for part in parts]

    bits, errors = coded(None)
    same_bits, same_errors = coded(0.5)  # the share of the first slice
    all_bits, all_errors = coded(1.0)
    assert (bits["slice 0"], errors[0]) == (same_bits["slice 0"], same_errors[0])
    assert bits["slice 0"] > all_bits["slice 0"]
    assert all(error < full for error, full in zip(errors, all_errors, strict=True))
