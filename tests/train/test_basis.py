"""The transform that a run starts from: groups of cosines, and deviations as they are measured."""

import numpy as np
import pytest
import torch

from diveqcodec.model.transform import Analysis
from diveqcodec.train.basis import Component, cosine_basis, groups
from diveqcodec.train.data import Pictures
from tests.support.tiny import training_pictures
from tests.support.training import Operations


def deviations() -> torch.Tensor:
    """Of natural pictures, about: falling with frequency, smaller for colour."""
    axis, k, m = (torch.arange(n, dtype=torch.float64) for n in (3, 16, 16))
    spread = (1 + k[:, None] ** 2 + 1.3 * m**2) ** -0.7
    return spread * torch.exp(-1.2 * axis)[:, None, None]


def is_along_its_direction(members: tuple[Component, ...]) -> bool:
    """Neighbours in the larger frequency, all with the same smaller one."""
    axes = {a for a, _, _ in members}
    down, across = [k for _, k, _ in members], [m for _, _, m in members]
    if min(down) > max(across):
        down, across = across, down
    steps = set(np.diff(across).tolist())
    return len(axes) == 1 and len(set(down)) == 1 and steps == {1} and min(across) > down[0]


@pytest.mark.parametrize(("size", "others"), [(2, 24 + 24), (4, 12 + 36)])
def test_groups_hold_every_component_once(size: int, others: int) -> None:
    found = groups(deviations(), size)
    components = [component for members in found for component in members]
    assert sorted(components) == list(np.ndindex(3, 16, 16))
    assert {len(members) for members in found} == {size}
    logs = deviations().log()
    means = [sum(float(logs[c]) for c in members) / size for members in found]
    assert means == sorted(means, reverse=True)
    # the others: diagonals, and the ends of rows whose length is no multiple
    assert sum(not is_along_its_direction(members) for members in found) == others
    for members in found:
        assert len({a for a, _, _ in members}) == 1
        assert len({np.sign(k - m) for _, k, m in members}) == 1  # never mirrored ones
        assert not any((a, m, k) in members for a, k, m in members if k != m)


def test_pairs_by_hand() -> None:
    found = groups(deviations(), 2)
    assert ((0, 1, 0), (0, 2, 0)) in found
    assert ((0, 0, 1), (0, 0, 2)) in found
    assert ((0, 0, 0), (0, 1, 1)) in found
    assert ((0, 2, 1), (0, 3, 1)) in found


@pytest.mark.parametrize(("channels", "group"), [(768, 2), (48, 4)])
def test_channels_have_the_deviations_that_are_said(channels: int, group: int) -> None:
    """Measured on pictures of coloured noise by the transform itself, borders left out."""
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(6, 3, 288, 288, generator=random)
    smooth = 5 * torch.nn.functional.avg_pool2d(noise, 5, 1, 2) + 0.3 * noise
    mixing = torch.tensor([[1.0, 0.6, 0.2], [0.9, -0.3, 0.1], [0.8, 0.1, -0.4]])
    pixels = torch.einsum("ij,bjhw->bihw", mixing, smooth) * 20 + 120
    tensors = list(pixels.clamp(0, 255).round().to(torch.uint8))
    pictures = Pictures([str(i) for i in range(6)], tensors, [])
    start = cosine_basis(pictures, channels, group, seed=0, blocks=20000)
    assert start.order.shape == start.sigma.shape == (channels,)
    assert len(start.order.unique()) == channels
    torch.testing.assert_close(start.axes @ start.axes.T, torch.eye(3), atol=1e-5, rtol=0)
    analysis = Analysis(channels)
    with torch.no_grad():
        analysis.basis.mean.copy_(start.mean)
        analysis.basis.colour.copy_(start.axes)
        analysis.basis.order.copy_(start.order)
        rows = []
        for dy, dx in np.ndindex(2, 2):  # at other places of the blocks
            x = torch.stack(tensors)[..., 8 * dy : 8 * dy + 272, 8 * dx : 8 * dx + 272]
            y = analysis(x.float() / 127.5 - 1)[:, :, 1:-1, 1:-1]
            rows.append(y.permute(0, 2, 3, 1).flatten(0, 2))
    measured = torch.cat(rows).square().mean(0).sqrt()
    ratio = (start.sigma / measured).log().abs()
    assert float(ratio.median()) < 0.02
    assert float(ratio.max()) < 0.1
    assert start.sigma[0] > 2 * start.sigma[-1]


def test_axes_are_principal_and_the_mean_is_zero() -> None:
    """Pictures of one colour direction: all of the energy is on the first axis."""
    random = torch.Generator().manual_seed(0)
    direction = torch.tensor([0.6, 0.64, 0.48])
    grey = torch.randn(1, 96, 96, generator=random) * 60
    pixels = direction[:, None, None] * grey + torch.tensor([100.0, 120, 140])[:, None, None]
    pictures = Pictures(["a"], [pixels.clamp(0, 255).round().to(torch.uint8)], [])
    start = cosine_basis(pictures, 768, 2, seed=0, blocks=3000)
    torch.testing.assert_close(start.axes[0], direction, atol=0.02, rtol=0)
    expected = pictures.tensors[0].float().mean((1, 2)) / 127.5 - 1
    torch.testing.assert_close(start.mean, expected, atol=0.02, rtol=0)
    first = start.order < 256
    assert float(start.sigma[first].min()) > 8 * float(start.sigma[~first].max())


def test_one_large_picture_takes_little_memory() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 512, 512), dtype=torch.uint8, generator=generator)
    with Operations() as seen:
        cosine_basis(Pictures(["a"], [pixels], []), 4, 2, seed=0, blocks=16000)
    assert 1e6 < seen.largest < 110e6  # bytes; 16000 windows of 32x32x3 doubles are 393 million


def test_the_choice_of_blocks_depends_on_the_seed_alone() -> None:
    pictures = training_pictures()
    first, again, other = (cosine_basis(pictures, 24, 2, seed, blocks=500) for seed in (0, 0, 1))
    assert torch.equal(first.sigma, again.sigma)
    assert not torch.equal(first.sigma, other.sigma)
