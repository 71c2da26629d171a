"""The context model as it is trained: it sees what a decoder will have seen, and nothing else."""

import pytest
import torch
from torch import Tensor

from diveqcodec.fixedprior import ACTIVATION_BITS, LATENT_BOUND
from diveqcodec.fixedprior import _log_magnitude as exact_log_magnitude
from diveqcodec.model import DvqModel
from diveqcodec.passes import passes_of
from diveqcodec.prior import as_grid, as_rows, log_gain_of, log_magnitude
from diveqcodec.quantize.rate_aware import Classes
from diveqcodec.quantize.search import GRID, RATE
from tests.test_passes import order as order_of_passes
from tests.tiny import TINY

SIZE = (4, 8)


@pytest.fixture(scope="module")
def model() -> DvqModel:
    """Untrained, but with random output layers, which otherwise start at zero."""
    torch.manual_seed(0)
    made = DvqModel(TINY)
    with torch.no_grad():
        for net in made.prior.nets:
            net.out.weight.normal_(0, 0.3)  # type: ignore[union-attr, operator]
    return made


def predictions(model: DvqModel, y: Tensor) -> Tensor:
    """Means and sizes `[h, w, C + groups]` where every latent is coded without loss."""
    height, width = SIZE
    found = torch.full((height * width, 16 + 8), float("nan"))
    config = TINY.prior()
    calls = [
        (s, one.places)
        for s in range(2)
        for one in passes_of(height, width, config.levels(s), config.radius(s), y.device)
        if len(one.places)
    ]

    def quantise(s: int, latent: Tensor, mean: Tensor, classes: Classes) -> Tensor:
        number, part = calls.pop(0)
        assert number == s
        start, groups = TINY.prior().start(s), TINY.slices[s]
        found[part, start : start + 2 * groups] = mean.detach()
        sizes = classes.size.detach().view(-1, groups)
        found[part, 16 + start // 2 : 16 + start // 2 + groups] = sizes
        return latent

    gain = model.log_gain(torch.tensor([0.01]))
    with torch.no_grad():
        y_hat = model.prior.walk(y, None, model.sigma, gain, quantise)
    torch.testing.assert_close(y_hat, y)
    assert not bool(found.isnan().any())
    return found.view(height, width, -1)


def order(s: int, y: int, x: int) -> tuple[int, int]:
    """When a slice of a position is coded."""
    return s, order_of_passes(TINY.prior().levels(s), y, x)


@pytest.mark.parametrize("place", [(1, 1), (1, 2), (3, 7)])
@pytest.mark.parametrize("channel", [0, 3, 4, 15])
def test_nothing_is_predicted_from_what_comes_later(
    model: DvqModel, place: tuple[int, int], channel: int
) -> None:
    y = torch.randn(1, 16, *SIZE, generator=torch.Generator().manual_seed(1))
    before = predictions(model, y)
    y[0, channel, place[0], place[1]] += 2.0
    changed = (predictions(model, y) - before).abs() > 1e-6
    when = order(int(channel >= 4), *place)
    both = (slice(0, 4), slice(16, 18)), (slice(4, 16), slice(18, 24))  # means, sizes of slices
    for i in range(SIZE[0]):
        for j in range(SIZE[1]):
            for s, parts in enumerate(both):
                if order(s, i, j) <= when:
                    assert not any(bool(changed[i, j, part].any()) for part in parts)
    # The last pass of the last slice tells nobody; all others are listened to.
    assert TINY.prior().levels(0) > TINY.prior().levels(1) == 0
    assert bool(changed.any()) == (when != (1, 1))


def test_rows_and_grids_are_inverse() -> None:
    grid = torch.randn(2, 5, 3, 4)
    assert torch.equal(as_grid(as_rows(grid), 2, 3, 4), grid)


def test_gain_of_a_trade_off() -> None:
    """The design's example: lambda .0067 gives a gain of 2.05."""
    assert float(torch.tensor(log_gain_of(0.0067, RATE)).exp()) == pytest.approx(2.05, abs=0.01)


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
