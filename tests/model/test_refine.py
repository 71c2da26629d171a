"""Refinement of a latent: it never costs more than what it started from."""

import pytest
import torch

from diveqcodec.model.dvq import DvqModel
from diveqcodec.model.recorder import Recorder
from diveqcodec.model.refine import refine
from diveqcodec.quality import lambda_of, log_gain_of
from tests.support.tiny import TINY, drawn, trained


@pytest.fixture(scope="module")
def model() -> DvqModel:
    return trained(TINY, 30)[0].eval()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.from_numpy(drawn(64, 96, 5)).permute(2, 0, 1)[None].float() / 255


def cost(
    model: DvqModel, x: torch.Tensor, y: torch.Tensor, log_gain: torch.Tensor
) -> tuple[float, float]:
    """Of coding `y` as coding does it: bits, and these and squared error in bits together."""
    recorder = Recorder(model.quantizer, model.config, model.rules, training=False)
    with torch.no_grad():
        binned = model.binned_log_gain(log_gain)
        y_hat, bits = model.prior.walk(y, model.sigma, binned, recorder)
        error = (model.decode_latent(y_hat, log_gain) - x).square().sum() / 3
    return float(bits), float(bits) + lambda_of(float(log_gain)) * 255**2 * float(error)


@pytest.mark.parametrize("lam", [0.0067, 0.25])
def test_it_makes_pictures_cheaper(model: DvqModel, x: torch.Tensor, lam: float) -> None:
    log_gain = torch.tensor([log_gain_of(lam)])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    seen: list[int] = []
    refined = refine(model, x, log_gain, 6, seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]
    with torch.no_grad():
        plain = model.encode_latent(x, log_gain)
    assert refined.shape == plain.shape
    assert not refined.requires_grad
    bits, most = cost(model, x, plain, log_gain)
    # what the few channels of the tiny model lose cannot be won back
    assert cost(model, x, refined, log_gain)[1] < most - 0.005 * bits
    assert not model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_no_iterations_are_the_analysis(model: DvqModel, x: torch.Tensor) -> None:
    log_gain = torch.tensor([log_gain_of(0.05)])
    with torch.no_grad():
        plain = model.encode_latent(x, log_gain)
    assert torch.equal(refine(model, x, log_gain, 0), plain)
