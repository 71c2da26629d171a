"""Basis, lapping and networks: a start that inverts, reaches that are bounds."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from diveqcodec.model.transform import (
    SIDE,
    Analysis,
    Basis,
    Conditions,
    Lapping,
    Mirror,
    Synthesis,
    cosines,
    prefilter,
)


def random_order(channels: int) -> Tensor:
    return torch.randperm(768, generator=torch.Generator().manual_seed(7))[:channels]


def some_basis(channels: int) -> Basis:
    """Orthonormal, but with no axis or order that hides a transposition."""
    torch.manual_seed(0)
    basis = Basis(channels)
    with torch.no_grad():
        basis.colour.copy_(torch.linalg.qr(torch.randn(3, 3)).Q)
        basis.rows.copy_(torch.linalg.qr(torch.randn(16, 16)).Q)
        basis.mean.copy_(torch.tensor([0.3, -0.1, 0.2]))
        basis.order.copy_(random_order(channels))
    return basis


def test_components_are_inner_products_with_what_the_basis_says() -> None:
    """Component 256 a + 16 k + m: colour axis a, row k of `rows` down, row m across."""
    basis = some_basis(40)
    x = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        y = basis(x)
        assert y.shape == (2, 40, 2, 3)
        centred = x - basis.mean[:, None, None]
        for channel, number in enumerate(basis.order.tolist()):
            a, k, m = number // 256, number // 16 % 16, number % 16
            function = torch.einsum("c,i,j->cij", basis.colour[a], basis.rows[k], basis.rows[m])
            for i, j in ((0, 0), (1, 2)):
                block = centred[:, :, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16]
                torch.testing.assert_close(
                    y[:, channel, i, j], (block * function).sum((1, 2, 3)), atol=1e-5, rtol=1e-5
                )


@pytest.mark.parametrize("size", [(16, 16), (32, 16), (48, 64)])
def test_the_inverse_of_a_basis_inverts_it(size: tuple[int, int]) -> None:
    basis = some_basis(768)
    x = torch.rand(2, 3, *size) * 2 - 1
    with torch.no_grad():
        y = basis(x)
        torch.testing.assert_close(basis.inverse(y), x, atol=1e-5, rtol=0)
        centred = x - basis.mean[:, None, None]
        torch.testing.assert_close(y.norm(), centred.norm())


def test_the_inverse_of_a_part_of_a_basis_is_its_transpose() -> None:
    """Also where it is not orthonormal: <basis(x), y> = <x, inverse(y)> without the mean."""
    basis = some_basis(24)
    with torch.no_grad():
        for parameter in (basis.colour, basis.rows):
            parameter.add_(torch.randn_like(parameter) * 0.1)
        basis.mean.zero_()
        x, y = torch.randn(1, 3, 32, 32), torch.randn(1, 24, 2, 2)
        there, back = (basis(x) * y).sum(), (x * basis.inverse(y)).sum()
    torch.testing.assert_close(there, back, atol=1e-3, rtol=1e-4)


def pair(channels: int = 768, *, of_cosines: bool = False) -> tuple[Analysis, Synthesis]:
    torch.manual_seed(0)
    analysis, synthesis = Analysis(channels), Synthesis(channels, (8, 8, 8), (1, 1, 1))
    for basis in (analysis.basis, synthesis.basis):
        basis.load_state_dict(some_basis(channels).state_dict())
        if of_cosines:
            basis.rows.data.copy_(cosines())
    return analysis, synthesis


def told(
    latent: Tensor, u: float, size: Sequence[float] = (1.0,), mirror: Mirror | None = None
) -> Conditions:
    return Conditions(latent, torch.full((len(latent),), u), torch.tensor(size), mirror)


@pytest.mark.parametrize("size", [(16, 16), (32, 16), (48, 64)])
def test_it_starts_as_an_orthonormal_transform(size: tuple[int, int]) -> None:
    """With all 768 components and no correction yet, synthesis inverts analysis."""
    analysis, synthesis = pair()
    with torch.no_grad():
        x = torch.rand(1, 3, *size) * 2 - 1
        y = analysis(x)
        assert y.shape == (1, 768, size[0] // 16, size[1] // 16)
        restored = synthesis(y, told(y, 0.3))
        torch.testing.assert_close(restored, x, atol=1e-4, rtol=0)
        assert torch.equal(restored, synthesis.linear(y))


def test_a_fresh_basis_is_a_dct() -> None:
    """Of one colour channel: a constant is all in frequency 0, a cosine in its own."""
    basis = Basis(768)
    rows = cosines()
    torch.testing.assert_close(rows @ rows.T, torch.eye(16, dtype=torch.float64))
    x = torch.zeros(1, 3, 16, 16)
    x[0, 1] = torch.outer(rows[3], rows[5]).float() * 2
    with torch.no_grad():
        y = basis(x)[0, :, 0, 0]
    assert float(y[256 + 16 * 3 + 5]) == pytest.approx(2, abs=1e-5)
    assert float(y.square().sum()) == pytest.approx(4, abs=1e-5)


def test_what_networks_add_is_proportional_to_their_size() -> None:
    _, synthesis = pair(8)
    torch.nn.init.normal_(synthesis.tail.weight)
    y = torch.randn(1, 8, 3, 3).expand(2, 8, 3, 3)
    with torch.no_grad():
        added = synthesis(y, told(y, 0.2, size=(1.0, 0.25))) - synthesis.linear(y)
    torch.testing.assert_close(added[1], added[0] / 4, atol=1e-5, rtol=1e-4)
    assert float(added[0].abs().max()) > 0.01


def test_a_mirror_image_has_the_latent_that_its_mirror_says() -> None:
    analysis, synthesis = pair(500, of_cosines=True)
    mirror = synthesis.basis.mirror()
    with torch.no_grad():
        x = torch.rand(1, 3, 48, 32) * 2 - 1
        y = analysis(x)
        assert torch.equal(mirror.picture(x), x.flip(3))
        mirrored = analysis(x.flip(3))
        torch.testing.assert_close(mirror.latent(y), mirrored, atol=1e-5, rtol=0)
        assert float((mirrored - y).abs().max()) > 0.1
        assert torch.equal(mirror.latent(mirror.latent(y)), y)


@pytest.mark.parametrize("has_mirror", [False, True])
def test_averaged_over_the_mirror_image_networks_mirror_with_it(has_mirror: bool) -> None:
    _, synthesis = pair(500, of_cosines=True)
    torch.nn.init.normal_(synthesis.tail.weight)
    mirror = synthesis.basis.mirror()
    given = mirror if has_mirror else None
    y = torch.randn(1, 500, 3, 2)
    with torch.no_grad():
        x = synthesis(y, told(y, 0.4, mirror=given))
        turned = mirror.latent(y)
        difference = synthesis(turned, told(turned, 0.4, mirror=given)) - mirror.picture(x)
        assert (float(difference.abs().max()) < 1e-3) == has_mirror
        alone = synthesis(y, told(y, 0.4))
        assert torch.equal(x, alone) != has_mirror


def test_prefilter_is_orthogonal_and_keeps_constants() -> None:
    matrix = prefilter()
    eye = torch.eye(SIDE, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.T, eye)
    torch.testing.assert_close(matrix.sum(1), torch.ones(SIDE, dtype=torch.float64))
    assert float((matrix - eye).abs().max()) > 0.3


def test_lapping_mixes_across_boundaries_and_leaves_the_border() -> None:
    lapping = Lapping(transposed=False)
    x = torch.zeros(1, 1, 48, 48)
    x[..., 15, 20] = 1.0  # just above the boundary of two blocks
    with torch.no_grad():
        moved = lapping(x)[0, 0]
    rows = (moved.abs() > 1e-6).any(1).nonzero()[:, 0].tolist()
    assert min(rows) >= 8
    assert 16 <= max(rows) < 24
    x = torch.rand(1, 2, 48, 48)
    with torch.no_grad():
        out = lapping(x)
        torch.testing.assert_close(out[..., :8, :8], x[..., :8, :8])
        torch.testing.assert_close(Lapping(transposed=True)(out), x)  # the inverse


def test_lapping_packs_energy_into_fewer_coefficients() -> None:
    """A smooth picture: the log determinant of its blocks' covariance gets smaller."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 256, 256, generator=generator).cumsum(2).cumsum(3) / 256

    def log_energy(picture: Tensor) -> float:
        parts = picture.view(16, 16, 16, 16).permute(0, 2, 1, 3).reshape(256, 256)
        covariance = parts.T @ parts / 256 + 1e-4 * torch.eye(256)
        return float(torch.logdet(covariance))

    with torch.no_grad():
        assert log_energy(Lapping(transposed=False)(x)[0, 0]) < log_energy(x[0, 0]) - 5


@pytest.mark.parametrize("blocks", [(1, 1, 1), (2, 1, 1)])
def test_nothing_depends_on_more_than_the_reach(blocks: tuple[int, int, int]) -> None:
    """What `Codec` takes for the overlap of its windows: a change farther away changes nothing."""
    torch.manual_seed(0)
    analysis, synthesis = Analysis(8), Synthesis(8, (8, 8, 8), blocks)
    torch.nn.init.normal_(synthesis.tail.weight)
    side, middle = 16 * 21, 16 * 10
    with torch.no_grad():
        x = torch.randn(1, 3, side, side)
        touched = x.clone()
        touched[..., middle : middle + 16, middle : middle + 16] += 1
        moved = (analysis(touched) - analysis(x)).abs().amax((0, 1))
        rows = (moved.amax(1) > 1e-7).nonzero()[:, 0] - middle // 16
        assert int(rows.abs().max()) == 1  # half a block, so that half of the next one sees it
        assert analysis.reach == 8
        y = torch.randn(1, 8, 21, 21)
        touched = y.clone()
        touched[..., 10, 10] += 1
        moved = (synthesis(touched, told(touched, 0.3)) - synthesis(y, told(y, 0.3))).abs()
        rows = (moved.amax((0, 1, 3)) > 1e-7).nonzero()[:, 0]
        reach = synthesis.reach
        assert middle - reach <= int(rows.min()) < middle - 16
        assert middle + 16 <= int(rows.max()) < middle + 16 + reach
