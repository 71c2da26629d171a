"""Refinement of a latent: what it finds is cheaper, and what it counts is what coding counts."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diveqcodec.model import refine as room
from diveqcodec.model.dvq import DvqModel
from diveqcodec.model.recorder import Recorder
from diveqcodec.model.refine import refine
from diveqcodec.quality import RATE, lambda_of, log_gain_of
from tests.support.tiny import TINY, drawn, trained


@pytest.fixture(scope="module")
def model() -> DvqModel:
    return trained(TINY, 30)[0].eval()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.from_numpy(drawn(64, 96, 5)).permute(2, 0, 1)[None].float() / 255


def start(model: DvqModel, x: Tensor, lam: float) -> tuple[Tensor, Tensor, Callable[..., Tensor]]:
    """Latent, log gain, and distortion in bits of a picture."""
    log_gain = torch.tensor([log_gain_of(lam)])

    def distortion(y_hat: Tensor) -> Tensor:
        error = (model.decode_latent(y_hat, log_gain) - x).square().sum() / 3
        return error * lambda_of(float(log_gain)) * 255**2

    with torch.no_grad():
        return model.encode_latent(x, log_gain), log_gain, distortion


@torch.no_grad()
def coded(model: DvqModel, y: Tensor, log_gain: Tensor) -> tuple[Tensor, float]:
    """ŷ and bits of `y` as coding has them."""
    recorder = Recorder(model.quantizer, model.config, model.rules, training=False)
    y_hat, bits = model.prior.walk(y, model.sigma, model.binned_log_gain(log_gain), recorder)
    return y_hat, float(bits)


@pytest.mark.parametrize("lam", [0.0067, 0.25])
def test_it_makes_pictures_cheaper(model: DvqModel, x: Tensor, lam: float) -> None:
    y, log_gain, distortion = start(model, x, lam)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    seen: list[None] = []
    refined = refine(model, y, log_gain, distortion, 6, lambda: seen.append(None))
    assert len(seen) == 6
    assert refined.shape == y.shape
    assert not refined.requires_grad
    costs = []
    for latent in (y, refined):
        y_hat, bits = coded(model, latent, log_gain)
        costs.append((bits, bits + float(distortion(y_hat).detach())))
    # what the few channels of the tiny model lose cannot be won back
    assert costs[1][1] < costs[0][1] - 0.005 * costs[0][0]
    assert not model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_no_rounds_change_nothing(model: DvqModel, x: Tensor) -> None:
    y, log_gain, distortion = start(model, x, 0.05)
    assert torch.equal(refine(model, y, log_gain, distortion, 0), y)


def test_what_a_round_counts_is_what_coding_counts(model: DvqModel, x: Tensor) -> None:
    y, log_gain, distortion = start(model, x, 0.05)
    y_hat, bits = coded(model, y, log_gain)
    expected = bits + float(distortion(y_hat).detach())
    for is_last in (False, True):
        cost, _ = room._look(model, y, log_gain, distortion, is_last)
        assert cost == pytest.approx(expected, rel=1e-5)


def test_without_networks_or_context_the_target_is_the_picture_s_own_latent(
    model: DvqModel, x: Tensor
) -> None:
    """All of the gradient is that of (ŷ - y)² / RATE then, and the target y itself."""
    y, log_gain, _ = start(model, x, 0.05)

    def distance(y_hat: Tensor) -> Tensor:
        return (y_hat - y).square().sum() / RATE

    def blind(self: Recorder, s: int, y: Tensor, y_hat: Tensor) -> tuple[Tensor, Tensor]:
        del self, s, y
        return y_hat, y_hat

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room._Straight, "seen", blind)
        _, target = room._look(model, y, log_gain, distance, False)
    always = slice(0, TINY.part(1).stop)  # slices that are never left out
    assert torch.allclose(target[:, always], y[:, always], atol=1e-4)


def test_a_group_that_is_nearly_zero_grows_the_way_its_latent_goes(model: DvqModel) -> None:
    """Two groups: one whose mean, .1, is all there is of it, and one that is coded."""
    coder = room._Straight(model.quantizer, model.config, model.rules, training=False)
    y = torch.tensor([[-0.3, 0.2, 1.2, 3.0]], requires_grad=True)
    y_hat = torch.tensor([[0.1, 0.1, -0.1, 3.1]])
    rows, large = coder.seen(0, y, y_hat)
    assert torch.equal(rows, y_hat)
    assert torch.equal(large, y_hat.abs())
    (slope,) = torch.autograd.grad(large.sum(), y)
    assert slope.tolist() == [[-1, 1, -1, 1]]


def test_of_dearer_and_dearer_latents_the_first_is_kept(
    model: DvqModel, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_STEPS", (-3.0, -3.0))  # away from every target
    y, log_gain, distortion = start(model, x, 0.05)
    assert torch.equal(refine(model, y, log_gain, distortion, 3), y)
