import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from diveqcodec.errors import ConfigError, ModelError
from diveqcodec.quantize import DiVeQ, Noise, Product, Quantizer, Residual, SFDiVeQ, nearest


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(kind: str, noise: Noise = "gradient") -> Quantizer:
    torch.manual_seed(0)
    if kind == "product":
        return Product([DiVeQ(16, 2), SFDiVeQ(4, 3, steps=2), DiVeQ(8, 1)], noise=noise)
    if kind == "residual":
        return Residual([DiVeQ(16, 6), SFDiVeQ(4, 6, steps=2), DiVeQ(8, 6)], noise=noise)
    inner = [DiVeQ(16, 2), Residual([DiVeQ(8, 4), DiVeQ(4, 4)])]
    return Product(inner, noise=noise)


KINDS = {"product": (16, 7, 8), "residual": (16, 7, 8), "nested": (16, 8, 4)}


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_is_lookup_of_encode(kind: str) -> None:
    quantizer = made(kind, "forward").eval()
    z = torch.randn(4, 5, 6, generator=seeded())
    z_q, indices, _ = quantizer(z)
    assert quantizer.sizes == KINDS[kind]
    assert indices.shape == (4, 5, 3)
    assert indices.equal(quantizer.encode(z))
    assert quantizer.lookup(indices).equal(z_q)
    assert (indices.amax((0, 1)) < torch.tensor(quantizer.sizes)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_training_on_the_grid_gives_the_lookup_of_its_indices(kind: str) -> None:
    quantizer = made(kind)
    z_q, indices, _ = quantizer(torch.randn(4, 5, 6, generator=seeded()), seeded(1))
    assert z_q.equal(quantizer.lookup(indices))


def test_product_points_lie_side_by_side() -> None:
    quantizer = made("product")
    z = torch.randn(30, 6, generator=seeded())
    first, second, third = quantizer.quantizers  # type: ignore[misc]
    indices = quantizer.encode(z)
    assert indices[:, 0].equal(nearest(z[:, :2], first.codebook))
    assert indices[:, 1].equal(nearest(z[:, 2:5], second.table))
    assert indices[:, 2].equal(nearest(z[:, 5:], third.codebook))


def test_residual_layers_quantize_what_is_left() -> None:
    coarse, fine = DiVeQ(3, 1), DiVeQ(3, 1)
    coarse.unit.data.copy_(torch.tensor([[-10.0], [0.0], [10.0]]))
    fine.unit.data.copy_(torch.tensor([[-1.0], [0.0], [1.0]]))
    quantizer = Residual([coarse, fine]).eval()
    z_q, indices, _ = quantizer(torch.tensor([[9.2], [-0.4], [-8.0]]))
    assert indices.tolist() == [[2, 0], [1, 1], [0, 2]]
    assert z_q.tolist() == [[9.0], [0.0], [-9.0]]


@pytest.mark.parametrize("kind", ["product", "residual"])
def test_one_step_is_taken_on_the_joint_error(kind: str) -> None:
    torch.manual_seed(0)
    dim = 2 if kind == "product" else 4
    parts = [DiVeQ(8, dim), DiVeQ(8, dim)]
    quantizer = (Product if kind == "product" else Residual)(parts, noise="none")
    z = torch.randn(1, 4, generator=seeded(3)).requires_grad_()
    g = torch.randn(1, 4, generator=seeded(4))
    z_q, indices, _ = quantizer(z)
    z_q.backward(g)

    d = (z_q - z).detach()
    expected = d * (d * g).sum() / d.square().sum()  # d^ (u.g) with u = d^
    torch.testing.assert_close(z.grad, g - expected)
    shares = expected.split(2, 1) if kind == "product" else [expected, expected]
    for part, index, share in zip(parts, indices[0], shares, strict=True):
        assert part.unit.grad is not None
        torch.testing.assert_close(part.unit.grad[index], share[0])
        others = part.unit.grad.clone()
        others[index] = 0
        assert others.eq(0).all()


def test_initialising_residual_layers_one_after_another_lowers_the_error() -> None:
    z = torch.randn(2000, 2, generator=seeded())
    quantizer = Residual([DiVeQ(16, 2), DiVeQ(16, 2)]).eval()
    quantizer.initialise(z, seeded(1))
    with torch.no_grad():
        coarse = quantizer.parts[0].lookup(quantizer.encode(z)[:, 0])
        assert (quantizer(z)[0] - z).square().mean() < 0.3 * (coarse - z).square().mean()
    scales = [part.scale.item() for part in quantizer.parts if isinstance(part, DiVeQ)]
    assert scales[1] < 0.6 * scales[0]


@pytest.mark.parametrize("kind", ["product", "residual"])
def test_latents_pass_through_until_every_part_is_warm(kind: str) -> None:
    torch.manual_seed(0)
    dim = 1 if kind == "product" else 2
    first, second = SFDiVeQ(4, dim, warmup=2), SFDiVeQ(4, dim, warmup=3)
    quantizer = (Product if kind == "product" else Residual)([first, second])
    # Products warm up side by side, residual layers in turn.
    forwards = 3 if kind == "product" else 5
    for number in range(forwards):
        assert first.is_warming_up == (number < 2)
        z = torch.randn(50, 2, generator=seeded(number)).requires_grad_()
        z_q, indices, _ = quantizer(z)
        z_q.sum().backward()
        assert z_q.equal(z)
        assert z.grad is not None
        assert z.grad.eq(1).all()
        assert indices.shape == (50, 2)
        assert indices.eq(-1).all()
    assert quantizer(z)[1].ge(0).all()
    if kind == "residual":  # the second layer saw residuals, not latents: its mean is near zero
        rest = torch.cat([torch.randn(50, 2, generator=seeded(n)) for n in (2, 3, 4)])
        rest = rest - first.lookup(first.encode(rest))
        torch.testing.assert_close(second.codebook.mean(0), rest.mean(0), atol=0.02, rtol=0)


def test_state_dict_round_trip_and_seeded_training() -> None:
    quantizer, other = made("nested"), made("product")
    with pytest.raises(
        ModelError, match=r"^Product: the state lacks '\S+'; load that of an equal one$"
    ):
        other.load_state_dict(quantizer.state_dict())
    torch.manual_seed(1)
    copy = Product([DiVeQ(16, 2), Residual([DiVeQ(8, 4), DiVeQ(4, 4)])], noise="forward")
    copy.load_state_dict(quantizer.state_dict())
    assert isinstance(quantizer, Product)
    quantizer.noise = "forward"
    z = torch.randn(9, 6, generator=seeded())
    assert copy(z, seeded(5))[0].equal(quantizer(z, seeded(5))[0])
    assert not copy(z, seeded(6))[0].equal(quantizer(z, seeded(5))[0])


def test_compositions_without_sense_are_named() -> None:
    with pytest.raises(ConfigError, match="no quantizers"):
        Product([])
    with pytest.raises(ConfigError, match=r"\[2, 3\]"):
        Residual([DiVeQ(4, 2), DiVeQ(4, 3)])
    with pytest.raises(ConfigError, match=r"\[\]"):
        Residual([])
    with pytest.raises(ConfigError, match=r"\[5, 2\].*3"):
        made("product").lookup(torch.zeros(5, 2, dtype=torch.int64))


@pytest.mark.parametrize("kind", ["product", "residual"])
def test_oracle_forward_and_backward(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle: Any = pytest.importorskip("diveq", reason="the authors' package is not installed")
    dim = 2 if kind == "product" else 6
    codebooks = torch.randn(3, 16, dim, generator=seeded())
    cls = oracle.ProductDIVEQ if kind == "product" else oracle.ResidualDIVEQ
    theirs = cls(16, 6, 3, noise_var=0.3, allow_warning=False, verbose=False, codebook_reset=False)
    theirs.codebook.data.copy_(codebooks)
    z_theirs = torch.randn(100, 6, generator=seeded(1)).requires_grad_()
    g = torch.randn(100, 6, generator=seeded(2))
    torch.manual_seed(11)
    z_q_theirs, indices_theirs, _ = theirs(z_theirs)
    z_q_theirs.backward(g)

    parts = [DiVeQ(16, dim) for _ in range(3)]
    for part, codebook in zip(parts, codebooks, strict=True):
        part.unit.data.copy_(codebook)
    ours = (Product if kind == "product" else Residual)(parts, noise="forward", sigma=0.3)
    z = z_theirs.detach().clone().requires_grad_()
    z_q, indices, _ = ours(z, seeded(11))
    z_q.backward(g)
    assert indices.equal(torch.stack(list(indices_theirs), 1))
    torch.testing.assert_close(z_q, z_q_theirs)
    torch.testing.assert_close(z.grad, z_theirs.grad, atol=1e-5, rtol=1e-4)
    found: list[Tensor] = [part.unit.grad for part in parts if part.unit.grad is not None]
    torch.testing.assert_close(torch.stack(found), theirs.codebook.grad, atol=1e-4, rtol=1e-4)
