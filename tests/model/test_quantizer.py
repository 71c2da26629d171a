"""Gradients of every rule against hand-computed ones; bits between classes; skipped groups."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from diveqcodec.model.codebook import Codebook
from diveqcodec.model.quantizer import (
    Classes,
    Gradient,
    RateAwareQuantizer,
    clamp_classes,
    reconstruct,
)
from diveqcodec.model.search import skipping

SIZES, SHAPES = 6, 3


@pytest.fixture(scope="module")
def quantizer() -> RateAwareQuantizer:
    fine = Codebook(size=32, dim=2, cell=1.0, sizes=SIZES, shapes=SHAPES)
    return RateAwareQuantizer(fine, Codebook(size=16, dim=2, cell=4.0, sizes=SIZES, shapes=1))


def rule(gradient: Gradient, seed: int = 0) -> tuple[Tensor, ...]:
    """Gradients to latent, means and codewords for a random upstream gradient g.

    Groups 1 are null, the others are coded.
    """
    torch.manual_seed(seed)
    y, mean, e, g = (torch.randn(5, 3, 2) for _ in range(4))
    e[:, 1] = 0
    for leaf in (y, mean, e):
        leaf.requires_grad_()
    jacobian = torch.randn(5, 3, 2, 2)
    value = reconstruct(y, mean, e, jacobian, gradient)
    # The decoder adds the same two numbers: no rounding may come between.
    assert torch.equal(value, mean + e)
    value.backward(g)
    gradients = [leaf.grad for leaf in (y, mean, e)]
    assert all(grad is not None for grad in gradients)
    to_y, to_mean, to_e = (grad for grad in gradients if grad is not None)
    return to_y, to_mean, to_e, g, jacobian, (mean + e - y).detach()


@pytest.mark.parametrize("gradient", get_args(Gradient))
def test_means_hear_of_distortion_where_a_group_is_null(gradient: Gradient) -> None:
    _, to_mean, _, g, _, _ = rule(gradient)
    torch.testing.assert_close(to_mean[:, 1], g[:, 1])
    assert bool((to_mean[:, [0, 2]] == 0).all())


@pytest.mark.parametrize("gradient", get_args(Gradient))
def test_a_latent_without_gradient_changes_nothing_for_the_others(gradient: Gradient) -> None:
    """As in training with an encoder that stays as it is."""
    found = []
    for needs in (True, False):
        torch.manual_seed(1)
        y, mean, e, g = (torch.randn(4, 3, 2) for _ in range(4))
        jacobian = torch.randn(4, 3, 2, 2) if needs else None
        y.requires_grad_(needs)
        e.requires_grad_()
        torch.manual_seed(2)
        value = reconstruct(y, mean, e, jacobian, gradient)
        assert torch.equal(value, mean + e)
        value.backward(g)
        assert e.grad is not None
        found.append(e.grad)
    torch.testing.assert_close(found[0], found[1])


def test_soft_rule() -> None:
    to_y, _, to_e, g, jacobian, _ = rule("soft")
    torch.testing.assert_close(to_y, torch.einsum("mgij,mgi->mgj", jacobian, g))
    torch.testing.assert_close(to_e, g)


def test_diveq_rule_splits_the_gradient_over_a_slice() -> None:
    """dL/dc = d^ (u.g), dL/dz = g - d^ (u.g): jointly over the channels of a slice."""
    to_y, _, to_e, g, _, d = rule("diveq")
    assert_parallel(to_e, d)
    assert_parallel(g - to_y, d)


def test_ste_rule_gives_the_encoder_everything() -> None:
    to_y, _, to_e, g, _, d = rule("ste")
    torch.testing.assert_close(to_y, g)
    assert_parallel(to_e, d)


def test_soft_diveq_rule() -> None:
    to_y, _, to_e, g, jacobian, d = rule("soft-diveq")
    torch.testing.assert_close(to_y, torch.einsum("mgij,mgi->mgj", jacobian, g))
    assert_parallel(to_e, d)


def assert_parallel(gradient: Tensor, d: Tensor) -> None:
    """Each row of `gradient` is a multiple of the row of `d`, over all channels of a slice."""
    flat, direction = gradient.flatten(1), torch.nn.functional.normalize(d.flatten(1))
    along = (flat * direction).sum(1, keepdim=True) * direction
    torch.testing.assert_close(flat, along, atol=1e-5, rtol=1e-4)
    assert float(flat.abs().min()) > 0


def test_diveq_without_noise_is_the_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    """With u exact, the codeword's part is the projection of g on the error."""
    monkeypatch.setattr(torch, "randn", lambda shape, **_: torch.zeros(shape))
    # `rule` itself draws with torch.randn: give it its own numbers.
    y, mean, e, g = (torch.linspace(-k, 2 * k, 6).sin().view(1, 3, 2) for k in (1, 2, 3, 5))
    leaf, latent = e.clone().requires_grad_(), y.clone().requires_grad_()
    reconstruct(latent, mean, leaf, None, "diveq").backward(g)
    d = torch.nn.functional.normalize((mean + e - y).flatten(1))
    expected = ((g.flatten(1) * d).sum() * d).view_as(e)
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, expected)
    assert latent.grad is not None
    torch.testing.assert_close(latent.grad, g - expected)


def test_bits_are_bilinear_between_classes(quantizer: RateAwareQuantizer) -> None:
    torch.manual_seed(0)
    tables = tuple(t.detach() for t in quantizer.tables() if t is not None)
    count = 200
    size = torch.rand(count) * (SIZES - 1)
    shape = torch.rand(count) * 4 - 2  # beyond -1 ... 1 it is clamped
    coarse = torch.rand(count) * (SIZES - 1)
    r = torch.randn(count, 2) * 3
    classes = Classes(size, shape, coarse)
    choice = quantizer.choose(r, classes, (tables[0], tables[1]))
    found = quantizer.bits(choice, classes, (tables[0], tables[1]))
    assert choice.coarse is not None
    for i in range(count):
        low = min(int(size[i]), SIZES - 2)
        left = min(int((shape[i] + 1).clamp(0, 2)), SHAPES - 2)
        a, b = float(size[i]) - low, float((shape[i] + 1).clamp(0, 2)) - left
        at = tables[0].view(SIZES, SHAPES, -1)[..., choice.fine[i]]
        bits = (1 - a) * ((1 - b) * at[low, left] + b * at[low, left + 1])
        bits = bits + a * ((1 - b) * at[low + 1, left] + b * at[low + 1, left + 1])
        low = min(int(coarse[i]), SIZES - 2)
        c = float(coarse[i]) - low
        column = tables[1][:, choice.coarse[i]]
        bits = bits + (1 - c) * column[low] + c * column[low + 1]
        assert float(found[i]) == pytest.approx(float(bits + choice.raw_bits[i]), abs=1e-3)


def test_bits_have_the_gradient_of_their_interpolation(quantizer: RateAwareQuantizer) -> None:
    torch.manual_seed(1)
    size = (torch.rand(50) * (SIZES - 1)).double().requires_grad_()
    shape = (torch.rand(50) * 1.8 - 0.9).double().requires_grad_()
    tables = tuple(t.detach().double() for t in quantizer.tables() if t is not None)
    classes = Classes(size, shape, torch.full((50,), 2.3, dtype=torch.float64))
    r = torch.randn(50, 2)
    choice = quantizer.choose(r, classes, (tables[0].float(), tables[1].float()))
    bits = quantizer.bits(choice, classes, (tables[0], tables[1]))
    bits.sum().backward()
    step = 1e-6
    for leaf in (size, shape):
        moved = Classes(
            size.detach() + step * (leaf is size),
            shape.detach() + step * (leaf is shape),
            classes.coarse,
        )
        slope = (quantizer.bits(choice, moved, (tables[0], tables[1])) - bits.detach()) / step
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, slope, atol=1e-3, rtol=1e-3)


def test_class_zero_is_free_and_null(quantizer: RateAwareQuantizer) -> None:
    fine, coarse = quantizer.tables()
    assert coarse is not None
    tables = skipping(fine.detach(), SHAPES), skipping(coarse.detach(), 1)
    assert bool((tables[0][SHAPES:] == fine[SHAPES:]).all())
    zeros = torch.zeros(20)
    classes = Classes(zeros, zeros, zeros)
    choice = quantizer.choose(torch.randn(20, 2) * 5, classes, tables)
    assert choice.coarse is not None
    assert bool((choice.fine == 0).all())
    assert bool((choice.coarse == 0).all())
    assert bool((quantizer.bits(choice, classes, tables) == 0).all())


def test_value_is_the_codewords_and_their_gradient(quantizer: RateAwareQuantizer) -> None:
    words = [w.detach().requires_grad_() for w in quantizer.words() if w is not None]
    tables = quantizer.tables()
    r = torch.tensor([[0.1, 0.0], [1.0, 0.4], [9.0, -5.0], [700.0, 20.0]])
    classes = Classes(torch.full((4,), 4.0), torch.zeros(4), torch.full((4,), 4.0))
    choice = quantizer.choose(r, classes, tables)
    e = quantizer.value(choice, (words[0], words[1]))
    assert float((e - r).detach()[3].norm()) < 2  # the escape and what the fine layer adds
    assert choice.coarse is not None
    assert int(choice.coarse[3]) == 16
    e.sum().backward()
    assert words[0].grad is not None
    counts = torch.bincount(choice.fine[choice.fine < 32], minlength=32).float()
    counts[0] = 0  # the null codeword is pinned
    torch.testing.assert_close(words[0].grad[:, 0], counts)


def test_clamped_classes_let_gradients_lead_back() -> None:
    classes = torch.tensor([-1.0, -1.0, 2.0, 9.0, 9.0], requires_grad=True)
    clamped = clamp_classes(classes, SIZES)
    assert clamped.tolist() == [0, 0, 2, 5, 5]
    clamped.backward(torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]))
    assert classes.grad is not None
    assert classes.grad.tolist() == [0, -1, 1, 1, 0]


@pytest.mark.parametrize(("size", "dim"), [(2, 2), (25, 2), (256, 2), (9, 4), (256, 4)])
def test_scalar_codewords_are_the_nearest_whole_numbers(size: int, dim: int) -> None:
    """Each once, the null codeword first, and nothing that is left out is nearer; they stay."""
    book = Codebook(size=size, dim=dim, cell=8.0, sizes=SIZES, shapes=1, kind="scalar")
    words = (book.codewords() / 8).detach()
    assert words.shape == (size, dim)
    assert not words[0].any()
    assert torch.equal(words, words.round())
    assert len({tuple(word) for word in words.tolist()}) == size
    axis = torch.arange(-20.0, 21.0) if dim == 2 else torch.arange(-5.0, 6.0)
    norms = torch.cartesian_prod(*[axis] * dim).square().sum(1).sort().values
    assert torch.equal(words.square().sum(1).sort().values, norms[:size])
    assert not book.unit.requires_grad
