"""Networks before the analysis: their targets, what they leave alone, and files made with them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diveqcodec.codec import Codec
from diveqcodec.container import bitstream
from diveqcodec.exact import weights
from diveqcodec.model.dvq import DvqModel, Output
from diveqcodec.model.layers import zeroed
from diveqcodec.quality import RATE
from diveqcodec.train import runs
from diveqcodec.train.config import TrainConfig
from diveqcodec.train.encoder import encoder_loss
from diveqcodec.train.loop import Trainer
from diveqcodec.train.loss import balanced
from tests.support.tiny import TINY, drawn, picture_of, tiny_config, trained, training_pictures

WITH = replace(TINY, predistortion=True)


def output_of(y_hat: Tensor, latent: Tensor, analysed: Tensor, plain: Tensor) -> Output:
    nothing = torch.zeros(len(y_hat))
    return Output(nothing, y_hat, nothing, [], latent, analysed, plain)


def test_the_target_of_an_orthonormal_codec_is_the_latent_itself() -> None:
    """Error in cells, a bit being worth RATE of it, and nothing else that ŷ costs."""
    torch.manual_seed(0)
    y = 3 * torch.randn(3, 8, 4, 5)
    lam = torch.tensor([0.001, 0.02, 0.4])
    latent = y.round().requires_grad_()
    bits = (latent - y).square().sum((1, 2, 3)) / RATE
    balanced(bits / 1000, lam).backward()
    gradient = latent.grad
    assert gradient is not None
    output = output_of(latent, latent, y, y)
    assert float(encoder_loss(output, gradient, lam, 1000, 2)) < 1e-9
    moved = output_of(latent, latent, y + 0.1, y)
    weights = (lam / 0.0067).rsqrt().mean()
    expected = 0.01 * y[0].numel() * weights / 1000
    torch.testing.assert_close(encoder_loss(moved, gradient, lam, 1000, 2), expected)


def test_null_groups_stay_where_the_linear_analysis_puts_them() -> None:
    y = torch.full((1, 4, 1, 1), 0.3)
    y_hat = torch.tensor([0.0, 0.2, 0.0, 1.0]).view(1, 4, 1, 1)
    gradient = torch.full_like(y, 1e3)
    lam = torch.tensor([0.0067])
    loss = encoder_loss(output_of(y_hat, y_hat, y, y), gradient, lam, 1, 2)
    target = y_hat.flatten()[2:] - RATE / 2 * 1e3
    torch.testing.assert_close(loss, (0.3 - target).square().sum())


def trainer_of(config: TrainConfig) -> Trainer:
    return Trainer(config, training_pictures(), Path())


def settings(**optim: Any) -> TrainConfig:
    return tiny_config(30, {"warmup": 1, "linear": 0.0, "lr": 1e-3, **optim}, model=WITH)


def step(one: Trainer) -> dict[str, Tensor]:
    """The gradients of a step."""
    from diveqcodec.train.statistics import Interval

    one.advance(Interval(one.model, one.device))
    return {
        name: parameter.grad.clone()
        for name, parameter in one.model.named_parameters()
        if parameter.grad is not None
    }


def test_all_else_learns_as_with_a_fixed_encoder() -> None:
    start, _ = trained(TINY, 20)
    torch.nn.init.normal_(start.synthesis.tail.weight, std=0.01)
    gradients = []
    for model in (WITH, TINY):
        one = trainer_of(replace(settings(clip=1e9), model=model))
        one.start_from(start, [])
        gradients.append(step(one))
    more, usual = gradients
    tail = more["predistortion.tail.weight"]
    assert float(tail.abs().max()) > 0
    for name, value in usual.items():
        torch.testing.assert_close(more[name], value, rtol=1e-4, atol=1e-7, msg=name)
    assert {name for name in more if name not in usual} == {
        name for name in more if name.startswith("predistortion.")
    }
    assert not any(name.startswith("analysis.") for name in more)


def test_it_moves_latents_towards_targets() -> None:
    """On one batch again and again, everything else fixed."""
    start, _ = trained(TINY, 60)
    one = trainer_of(settings())
    one.start_from(start, [])
    model = one.model.train().requires_grad_(False)
    assert model.predistortion is not None
    model.predistortion.requires_grad_(True)
    x = torch.from_numpy(drawn(64, 128, 5)).permute(2, 0, 1)[None].float() / 255
    lam = torch.tensor([0.02])
    optimizer = torch.optim.Adam(model.predistortion.parameters(), lr=1e-3)
    losses = []
    for _ in range(40):
        output = model(x, lam)
        error = lam * 255**2 * (output.x_hat - x).square().mean((1, 2, 3))
        balanced(output.bits / x[0, 0].numel() + error, lam).backward()
        assert output.latent.grad is not None
        loss = encoder_loss(output, output.latent.grad, lam, x[0, 0].numel(), 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_it_starts_adding_nothing() -> None:
    start, _ = trained(TINY, 5)
    one = trainer_of(settings())
    one.start_from(start, ["before"])
    x, log_gain = torch.rand(1, 3, 32, 48), torch.zeros(1)
    plain, analysed = one.model.analyse(x, log_gain)
    assert torch.equal(plain, analysed)
    torch.testing.assert_close(plain, start.encode_latent(x, log_gain))
    predistortion = one.model.predistortion
    assert predistortion is not None
    assert torch.equal(predistortion.stem.weight, start.synthesis.stem.weight)
    assert torch.equal(one.average["predistortion.stem.weight"], predistortion.stem.weight)


def test_networks_rest_together() -> None:
    one = trainer_of(settings(linear=0.5))
    one.start()
    before = {k: v.clone() for k, v in one.model.state_dict().items()}
    step(one)
    for name, value in one.model.state_dict().items():
        if name.startswith(("predistortion", "synthesis.fine")):
            assert torch.equal(before[name], value), name


def test_training_averages_over_the_mirror_image_if_asked() -> None:
    """As files of effort 5 do: before the analysis and behind the latent."""
    start, _ = trained(WITH, 5)
    assert start.predistortion is not None
    for networks in (start.synthesis, start.predistortion):
        torch.nn.init.normal_(networks.tail.weight, std=0.05)
    x, lam = torch.rand(1, 3, 64, 64), torch.tensor([0.1])
    for is_asked in (False, True):
        one = trainer_of(settings(mirror=is_asked))
        one.start_from(start, [])
        model = one.model.eval()
        with torch.no_grad():
            output = model(x, lam)
            gain = model.log_gain(lam)
            for has_mirror in (False, True):
                analysed = model.encode_latent(x, gain, has_mirror)
                pixels = model.decode_latent(output.y_hat, gain, has_mirror)
                is_same = has_mirror == is_asked
                assert torch.allclose(output.analysed, analysed, atol=1e-3) == is_same
                assert torch.allclose(output.x_hat, pixels, atol=1e-4) == is_same


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    model, _ = trained(WITH, 10, gradient="diveq")
    assert model.predistortion is not None
    torch.nn.init.normal_(model.predistortion.tail.weight, std=0.05)
    path = tmp_path_factory.mktemp("weights") / "with.safetensors"
    weights.save(model, path, {})
    return Codec(weights.load(path), networks=torch.float32)


def test_files_are_coded_with_it(codec: Codec, tmp_path: Path) -> None:
    picture = picture_of(drawn(70, 85, 3))
    data = codec.compress(picture, 60, lossless="never")
    assert codec.decompress(data).pixels.shape == picture.pixels.shape
    model, _ = weights.load_for_training(codec.model.path)
    assert model.config == WITH
    assert model.predistortion is not None
    zeroed(model.predistortion.tail)
    weights.save(model, tmp_path / "without.safetensors", {})
    other = Codec(weights.load(tmp_path / "without.safetensors"), networks=torch.float32)
    assert other.compress(picture, 60, lossless="never")[26:] != data[26:]
    payloads = set()
    for effort in (3, 5):  # without and with the mirror image
        (tile,) = bitstream.read(codec.compress(picture, 60, effort, lossless="never")).tiles
        assert tile is not None
        payloads.add(tile.payload)
    assert len(payloads) == 2
    refined = codec.compress(picture, 60, 7, lossless="never")
    assert codec.decompress(refined).pixels.shape == picture.pixels.shape


def test_going_on_with_and_without(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare.safetensors"
    weights.save(trained(TINY, 2)[0], bare, {})
    monkeypatch.setattr(runs, "ModelConfig", lambda: TINY)
    config = tiny_config(2)
    for path, wanted, expected in (
        (bare, TINY, TINY),
        (bare, WITH, WITH),
        (codec.model.path, WITH, WITH),
        (codec.model.path, TINY, WITH),
    ):
        found, start = runs._weights(replace(config, model=wanted), path)
        assert found.model == expected
        assert start is not None
        assert isinstance(start[0], DvqModel)
