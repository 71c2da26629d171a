"""Indices: what is out of range is one error in every form; statistics of the others."""

import re

import pytest
import torch
from torch import Tensor, nn

from diveqcodec.errors import ConfigError
from diveqcodec.quantize import SFDiVeQ, index_counts, perplexity, split_index, usage
from tests.support.quantizers import EVERY, latents, made


@pytest.mark.parametrize("name", EVERY)
def test_an_index_out_of_range_is_one_clear_error(name: str) -> None:
    quantizer = made(name)
    good = quantizer.encode(latents(6)).reshape(2, 3, *quantizer.index_shape)
    columns = good.reshape(6, -1)
    for column, size in enumerate(quantizer.sizes):
        place = f" of codebook {column}" if len(quantizer.sizes) > 1 else ""
        for wrong in (-1, -7, size, 1 << 62):
            bad = columns.clone()
            bad[4, column] = wrong
            hint = r" \(-1: a warm-up let the latent through\)" if wrong == -1 else ""
            message = f"^index {wrong}{place}: use 0 to {size - 1}{hint}$"
            with pytest.raises(ConfigError, match=message):
                quantizer.lookup(bad.reshape(good.shape))
    for kind in (torch.float32, torch.bool, torch.complex64):
        message = re.escape(f"indices {str(kind)[6:]} {list(good.shape)}: give integers")
        with pytest.raises(ConfigError, match=f"^{message}$"):
            quantizer.lookup(good.to(kind))
    # The ends of every range are in it, in any type of integers; so is nothing.
    for ends in (torch.zeros_like(columns), torch.tensor([quantizer.sizes]) - 1):
        point = quantizer.lookup(ends.reshape(-1, *quantizer.index_shape))
        assert torch.isfinite(point).all()
    for kind in (torch.uint8, torch.int16, torch.int32):
        small = torch.ones_like(good, dtype=kind)
        assert quantizer.lookup(small).equal(quantizer.lookup(torch.ones_like(good)))
    assert quantizer.lookup(good[:0]).shape == (0, 3, 4)


@pytest.mark.parametrize("name", ["product:fsq", "residual:diveq"])
def test_an_index_is_wanted_for_every_codebook(name: str) -> None:
    for shape in ((), (5,), (2, 3)):
        message = re.escape(f"indices {list(shape)}: the quantizer takes [..., 2]")
        with pytest.raises(ConfigError, match=message):
            made(name).lookup(torch.zeros(shape, dtype=torch.int64))


def test_what_a_warm_up_returns_is_no_index() -> None:
    quantizer = SFDiVeQ(4, 2, warmup=3)
    indices = quantizer(latents(6, 2)).indices
    with pytest.raises(ConfigError, match=r"^index -1: .*warm-up"):
        quantizer.lookup(indices)
    with pytest.raises(ConfigError, match=r"^index -1: use 0 to 12 "):
        split_index(indices, 4, 4)
    with pytest.raises(ConfigError, match=r"^index 13: use 0 to 12$"):
        split_index(torch.tensor([0, 13]), 4, 4)


def test_statistics_of_indices() -> None:
    indices = torch.tensor([[0, 0], [3, 3], [-1, -1]])  # -1: not quantized
    assert index_counts(indices, 4).tolist() == [2, 0, 0, 2]
    assert usage(indices, 4) == 0.5
    assert perplexity(indices, 4) == pytest.approx(2.0)
    assert perplexity(torch.arange(7), 9) == pytest.approx(7.0)
    assert perplexity(torch.full((3,), -1), 4) == 0.0


@pytest.mark.parametrize("statistic", [index_counts, usage, perplexity])
def test_statistics_of_what_are_no_indices(statistic: object) -> None:
    assert callable(statistic)
    for indices, message in (
        (torch.arange(8), "^index 7: use -1 to 3$"),
        (torch.tensor([[0, -2]]), "^index -2: use -1 to 3$"),
        (torch.rand(4, 2), r"^indices float32 \[4, 2\]: give integers$"),
    ):
        with pytest.raises(ConfigError, match=message):
            statistic(indices, 4)
    with pytest.raises(ConfigError, match="0 codewords"):
        statistic(torch.arange(0), 0)


class Decoder(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.quantizer = made(name)

    def forward(self, indices: Tensor) -> Tensor:
        return self.quantizer.lookup(indices)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diveq", "residual:fsq"])
def test_a_look_up_can_be_exported(name: str) -> None:
    decoder = Decoder(name).eval()
    indices = decoder.quantizer.encode(latents(5))
    exported = torch.export.export(decoder, (indices,)).module()
    assert exported(indices).equal(decoder(indices))
