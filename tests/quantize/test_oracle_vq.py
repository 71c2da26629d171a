"""vector-quantize-pytorch as an oracle for the methods that it has; it is never copied."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from diveqcodec.quantize import BSQ, EMA, FSQ, LFQ, RotationTrick, SimVQ, rotate
from tests.support.quantizers import latents


@pytest.fixture(scope="module")
def oracle() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            "vector_quantize_pytorch", reason="vector-quantize-pytorch is not installed"
        )


def both(ours: Any, theirs: Any, z: Tensor, g: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Value, indices, loss, dL/dz of both."""
    results = []
    for quantizer in (ours, theirs):
        leaf = z.clone().requires_grad_()
        inputs = leaf if quantizer is ours else leaf[None]
        value, indices, loss = quantizer(inputs)
        (grad,) = torch.autograd.grad((value.reshape(g.shape) * g).sum() + loss.sum(), leaf)
        results.append([value.reshape(g.shape), indices.flatten(), loss.sum(), grad])
    return results[0], results[1]


def agree(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert ours[1].equal(theirs[1].long())
    for a, b in zip(ours, theirs, strict=True):
        if a.is_floating_point():
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


Z, G = latents(200, 5), latents(200, 5, seed=3)


@pytest.mark.parametrize("is_rotated", [True, False])
def test_ema_and_rotation_forward_backward_and_update(oracle: Any, is_rotated: bool) -> None:
    theirs = oracle.VectorQuantize(
        dim=5, codebook_size=16, decay=0.9, commitment_weight=0.25, rotation_trick=is_rotated
    )
    start = latents(16, 5, seed=7)
    theirs._codebook.embed.data.copy_(start[None])
    theirs._codebook.embed_avg.data.copy_(start[None])
    theirs._codebook.cluster_size.data.fill_(1.0)
    ours = EMA(16, 5, decay=0.9)
    ours.set_codebook(start, torch.tensor(1.0))
    if not is_rotated:
        agree(*both(ours, theirs, Z, G))
        torch.testing.assert_close(ours.codebook, theirs._codebook.embed[0], atol=1e-5, rtol=1e-4)
        for seed in (4, 5, 6):
            ours(latents(200, 5, seed))
            theirs(latents(200, 5, seed)[None])
        torch.testing.assert_close(ours.codebook, theirs._codebook.embed[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours.counts, theirs._codebook.cluster_size[0])
        return
    leaf = Z.clone().requires_grad_()
    value = theirs(leaf[None])[0][0]
    (grad,) = torch.autograd.grad(value, leaf, G)
    trick = RotationTrick(16, 5)
    trick.set_codebook(start, torch.tensor(1.0))
    mine = Z.clone().requires_grad_()
    torch.testing.assert_close(trick(mine).value, value, atol=1e-5, rtol=1e-4)
    (ours_grad,) = torch.autograd.grad(rotate(mine, start[trick.encode(mine)]), mine, G)
    torch.testing.assert_close(ours_grad, grad, atol=1e-5, rtol=1e-4)


def test_fsq(oracle: Any) -> None:
    levels = [8, 5, 5, 6, 3]
    agree_without_loss(FSQ(levels), oracle.FSQ(levels))


def agree_without_loss(ours: Any, theirs: Any) -> None:
    mine, other = Z.clone().requires_grad_(), Z.clone().requires_grad_()
    value, indices, _ = ours(mine)
    value_theirs, indices_theirs = theirs(other[None])
    assert indices.equal(indices_theirs[0].long())
    torch.testing.assert_close(value, value_theirs[0], atol=1e-6, rtol=1e-5)
    (a,) = torch.autograd.grad(value, mine, G)
    (b,) = torch.autograd.grad(value_theirs, other, G[None])
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_lfq(oracle: Any, temperature: float) -> None:
    theirs = oracle.LFQ(dim=5, entropy_loss_weight=0.1, commitment_loss_weight=0.25)
    ours = LFQ(5, inverse_temperature=temperature)
    agree(*both(ours, lambda z: theirs(z, inv_temperature=temperature), Z, G))


def test_bsq_without_its_entropy(oracle: Any) -> None:
    # Theirs takes the entropy over all codewords, ours (as the paper) over independent bits.
    theirs = oracle.LFQ(dim=5, spherical=True, entropy_loss_weight=0.0, commitment_loss_weight=0.25)
    agree(*both(BSQ(5, entropy_weight=0.0), theirs, Z, G))


def test_simvq(oracle: Any) -> None:
    theirs = oracle.SimVQ(dim=5, codebook_size=16, rotation_trick=False)
    ours = SimVQ(16, 5)
    ours.set_codebook(theirs.frozen_codebook, torch.tensor(1.0))
    with torch.no_grad():
        ours.weight.copy_(theirs.code_transform.weight)
    agree(*both(ours, theirs, Z, G))
    torch.testing.assert_close(ours.codebook, theirs.codebook)
