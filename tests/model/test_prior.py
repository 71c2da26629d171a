"""The context model as it is trained: it sees what a decoder will have seen, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from diveqcodec.exact.prior import ACTIVATION_BITS, LATENT_BOUND
from diveqcodec.exact.prior import _log_magnitude as exact_log_magnitude
from diveqcodec.model import prior
from diveqcodec.model.candidates import GRID
from diveqcodec.model.config import ModelConfig
from diveqcodec.model.dvq import DvqModel
from diveqcodec.model.passes import order_of_batch
from diveqcodec.model.prior import as_grid, as_rows, log_magnitude
from diveqcodec.model.priorlayers import layers_of
from diveqcodec.model.quantizer import Classes
from tests.support.passes import pass_of
from tests.support.tiny import IN_FOURS, TINY

SIZE = (4, 8)
CPU = torch.device("cpu")


def model_of(config: ModelConfig) -> DvqModel:
    """Untrained, but with random output layers, which otherwise start at zero."""
    torch.manual_seed(0)
    made = DvqModel(config)
    with torch.no_grad():
        for net in made.prior.nets:
            net.out.weight.normal_(0, 0.3)  # type: ignore[union-attr, operator]
            net.quality.weight.normal_(0, 0.3)  # type: ignore[union-attr, operator]
    return made


@pytest.fixture(scope="module")
def model() -> DvqModel:
    return model_of(TINY)


class Asked:
    """A coder that keeps what it was asked: what it codes are the latents plus `noise`.

    The order of rows is that of coding, which `at` turns into positions.
    """

    def __init__(
        self, config: ModelConfig, noise: float = 0.0, coded: Tensor | None = None
    ) -> None:
        self.config, self.noise, self.chosen = config, noise, coded
        self.means: dict[int, list[Tensor]] = {}
        self.classes: dict[int, list[Classes]] = {}
        self.learned: dict[int, tuple[Tensor, Classes]] = {}
        self.wanted: dict[int, Tensor] = {}

    def is_coded(self, s: int, y: Tensor) -> Tensor:
        assert self.config.is_optional(s)
        return torch.ones(len(y), dtype=torch.bool) if self.chosen is None else self.chosen

    def quantise(self, s: int, y: Tensor, mean: Tensor, classes: Classes) -> Tensor:
        assert not torch.is_grad_enabled()
        self.means.setdefault(s, []).append(mean)
        self.classes.setdefault(s, []).append(classes)
        return y + self.noise * torch.sin(40 * y)

    def learn(self, s: int, y: Tensor, mean: Tensor, classes: Classes) -> tuple[Tensor, Tensor]:
        assert s not in self.learned  # once a slice
        self.learned[s] = mean, classes
        self.wanted[s] = y.detach()
        return y + self.noise * torch.sin(40 * y), mean.abs().sum(1)

    def seen(self, s: int, y: Tensor, y_hat: Tensor) -> tuple[Tensor, Tensor]:
        return y_hat + 0 * y, y_hat + 0 * y


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize(
    "changes", [{}, IN_FOURS, {"pyramid_slices": 2}, {"optional_slices": 0, "pyramid_slices": 0}]
)
def test_looking_at_all_positions_gives_what_the_walk_gave(
    monkeypatch: pytest.MonkeyPatch, mode: bool, learns: bool, changes: dict[str, Any]
) -> None:
    """Means and classes of `learn`, one call a slice, are those of `quantise`, pass by pass."""
    monkeypatch.setattr(prior, "fast_dtype", lambda _device: torch.float32)
    config = replace(TINY, **changes)
    model = model_of(config).train(mode)
    y = torch.randn(3, 24, 5, 7) * 3
    y.requires_grad_(learns)
    chosen = torch.tensor([True, False, True])
    asked = Asked(config, noise=0.4, coded=chosen)
    gain = model.log_gain(torch.tensor([0.001, 0.03, 1.0]))
    y_hat, bits = model.prior.walk(y, model.sigma, gain, asked)
    for s in range(3):
        means, classes = asked.learned[s]
        torch.testing.assert_close(torch.cat(asked.means[s]), means, atol=1e-5, rtol=1e-5)
        assert float(means.detach().std()) > 0.1
        for name in ("size", "shape", "coarse"):
            parts = [getattr(one, name) for one in asked.classes[s]]
            if s >= config.coarse_slices and name == "coarse":
                assert getattr(classes, name) is None
                assert set(parts) == {None}
                continue
            whole = getattr(classes, name)
            torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=1e-5)
            assert len(whole) == len(means) * config.slices[s]
        batch = 2 if config.is_optional(s) else 3
        pictures = chosen.nonzero()[:, 0] if config.is_optional(s) else torch.arange(3)
        order = order_of_batch(5, 7, config.levels(s), config.radius(s), batch, CPU)
        rows = as_rows(y.detach()[pictures][:, config.part(s)])
        assert torch.equal(asked.wanted[s], rows[order.places])
        coded = as_rows(y_hat.detach()[pictures][:, config.part(s)])
        torch.testing.assert_close(coded, rows + 0.4 * torch.sin(40 * rows))
    assert bits.requires_grad
    if config.optional_slices:
        assert bool((y_hat[1, config.part(2)] == 0).all())
        assert bool((y_hat[0, config.part(2)] != 0).any())


def test_bits_go_to_the_pictures_that_they_were_spent_on(model: DvqModel) -> None:
    """Slices of a picture that leaves them out cost it nothing."""
    y = torch.randn(3, 24, *SIZE)
    gain = model.log_gain(torch.tensor([0.001, 0.03, 1.0]))
    found = {}
    for name, chosen in (("all", [True] * 3), ("some", [True, False, True]), ("none", [False] * 3)):
        asked = Asked(TINY, coded=torch.tensor(chosen))
        with torch.no_grad():
            _, found[name] = model.prior.walk(y, model.sigma, gain, asked)
        assert (2 in asked.learned) == (name != "none")
    assert torch.equal(found["some"][1], found["none"][1])
    torch.testing.assert_close(found["some"][[0, 2]], found["all"][[0, 2]])
    assert bool((found["all"] > found["none"]).all())


@pytest.mark.parametrize(
    "changes", [{}, IN_FOURS, {"pyramid_slices": 2}, {"optional_slices": 0, "coarse_slices": 0}]
)
def test_every_weight_of_the_prior_is_a_layer(changes: dict[str, Any]) -> None:
    """The list that shapes, bounds and export go by covers all matrices and biases."""
    config = replace(TINY, **changes)
    nets = DvqModel(config).prior.nets
    by_slice: dict[int, dict[str, tuple[int, int]]] = {s: {} for s in range(3)}
    for layer in layers_of(config):
        assert layer.name not in by_slice[layer.s]
        by_slice[layer.s][layer.name] = layer.outputs, layer.inputs
    for s, net in enumerate(nets):
        matrices = net.matrices()  # type: ignore[operator]
        assert {name: tuple(weight.shape) for name, (weight, _) in matrices.items()} == by_slice[s]
        used = sum(
            weight.numel() + (0 if bias is None else bias.numel())
            for weight, bias in matrices.values()
        )
        quality = net.quality.weight.numel()  # type: ignore[union-attr, operator]
        assert sum(p.numel() for p in net.parameters()) == used + quality


def predictions(model: DvqModel, y: Tensor) -> Tensor:
    """Means and sizes `[h, w, C + groups]` where every latent is coded without loss."""
    height, width = SIZE
    asked = Asked(TINY)
    gain = model.log_gain(torch.tensor([0.01]))
    with torch.no_grad():
        y_hat, _ = model.prior.walk(y, model.sigma, gain, asked)
    torch.testing.assert_close(y_hat, y)
    found = torch.full((height * width, 24 + 12), float("nan"))
    for s, (mean, classes) in asked.learned.items():
        order = order_of_batch(height, width, TINY.levels(s), TINY.radius(s), 1, CPU)
        part = TINY.part(s)
        found[order.places, part] = mean
        groups = slice(24 + part.start // 2, 24 + part.stop // 2)
        found[order.places, groups] = classes.size.view(len(mean), -1)
    assert not bool(found.isnan().any())
    return found.view(height, width, -1)


def order(s: int, y: int, x: int) -> tuple[int, int]:
    """When a slice of a position is coded."""
    return s, pass_of(TINY.levels(s), y, x)


@pytest.mark.parametrize("place", [(1, 1), (1, 2), (3, 7)])
@pytest.mark.parametrize("channel", [0, 3, 4, 15, 16, 23])
def test_nothing_is_predicted_from_what_comes_later(
    model: DvqModel, place: tuple[int, int], channel: int
) -> None:
    y = torch.randn(1, 24, *SIZE, generator=torch.Generator().manual_seed(1))
    before = predictions(model, y)
    y[0, channel, place[0], place[1]] += 2.0
    changed = (predictions(model, y) - before).abs() > 1e-6
    touched = next(s for s in range(3) if channel < TINY.part(s).stop)
    when = order(touched, *place)
    for i in range(SIZE[0]):
        for j in range(SIZE[1]):
            for s in range(3):
                if order(s, i, j) <= when:
                    part = TINY.part(s)
                    groups = slice(24 + part.start // 2, 24 + part.stop // 2)
                    assert not bool(changed[i, j, part].any() or changed[i, j, groups].any())
    # The last pass of the last slice tells nobody; all others are listened to.
    assert TINY.levels(0) > TINY.levels(1) == TINY.levels(2) == 0
    assert bool(changed.any()) == (when != (2, 1))


def test_rows_and_grids_are_inverse() -> None:
    grid = torch.randn(2, 5, 3, 4)
    assert torch.equal(as_grid(as_rows(grid), 2, 3, 4), grid)


@pytest.mark.parametrize("group", [2, 4])
def test_log_magnitudes_are_what_the_exact_prior_computes(group: int) -> None:
    """To a rounding; a smooth logarithm would be off by 0.086 between powers of two."""
    random = torch.Generator().manual_seed(0)
    scale = 2.0 ** torch.randint(0, 22, (4000, 1), generator=random)
    coded = (torch.randn(4000, 3 * group, generator=random) * scale).round()
    coded = coded.clamp(-LATENT_BOUND, LATENT_BOUND)
    floats = log_magnitude(coded / GRID, group)
    exact = exact_log_magnitude(coded.double(), group) / 2**ACTIVATION_BITS
    torch.testing.assert_close(floats.double(), exact, atol=2e-4, rtol=1e-6)
    assert log_magnitude(torch.tensor([[0.0, 0.0], [-1.0, 0.0], [1.5, -0.5]]), 2).tolist() == [
        [0],
        [1],
        [1.5],
    ]
