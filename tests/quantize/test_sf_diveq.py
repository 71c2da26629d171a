import warnings
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from diveqcodec.errors import ConfigError, ModelError, TrainingError
from diveqcodec.quantize import (
    Noise,
    Product,
    SFDiVeQ,
    diveq_step,
    expand,
    interpolate,
    nearest,
    sf_diveq_step,
    split_index,
    usage,
)
from tests.support.quantizers import lookup_mse


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def triple(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
    g = seeded()
    z, c0, c1 = (torch.randn(shape, generator=g).requires_grad_() for _ in range(3))
    return z, c0, c1


def test_hand_computed_gradients() -> None:
    # z at the origin; u0 = (1, 0), u1 = (0, 1); tau = 1/4; g = (8, 4).
    # The ends get d0^ (3/4 u0.g) = (6, 0) and d1^ (1/4 u1.g) = (0, 1); z gets the rest.
    z = torch.zeros(1, 2, requires_grad=True)
    c0 = torch.tensor([[2.0, 0.0]], requires_grad=True)
    c1 = torch.tensor([[0.0, 5.0]], requires_grad=True)
    z_q = sf_diveq_step(z, c0, c1, torch.tensor([[0.25]]), noise="none")
    assert z_q.tolist() == [[1.5, 1.25]]
    g_z, g_0, g_1 = torch.autograd.grad(z_q, (z, c0, c1), torch.tensor([[8.0, 4.0]]))
    assert g_0.tolist() == [[6.0, 0.0]]
    assert g_1.tolist() == [[0.0, 1.0]]
    assert g_z.tolist() == [[2.0, 3.0]]


@pytest.mark.parametrize("noise", ["forward", "gradient", "none"])
def test_gradient_is_split_in_three(noise: Noise) -> None:
    z, c0, c1 = triple(50, 6)
    g = torch.randn(50, 6, generator=seeded(1))
    tau = torch.rand(50, 1, generator=seeded(2))
    z_q = sf_diveq_step(z, c0, c1, tau, noise=noise, generator=seeded(3))
    g_z, g_0, g_1 = torch.autograd.grad(z_q, (z, c0, c1), g)
    torch.testing.assert_close(g_z + g_0 + g_1, g)
    for end, gradient in ((c0, g_0), (c1, g_1)):
        d = (end - z).detach()
        parallel = d * ((gradient * d).sum(-1) / d.square().sum(-1))[:, None]
        torch.testing.assert_close(gradient, parallel, atol=1e-5, rtol=1e-4)


def test_both_ends_have_noises_of_their_own() -> None:
    z, c0, _ = triple(50, 6)
    half = torch.full((50, 1), 0.5)
    both = sf_diveq_step(z, c0, c0, half, noise="forward", generator=seeded(3))
    g = seeded(3)
    first = diveq_step(z, c0, noise="forward", generator=g)
    second = diveq_step(z, c0, noise="forward", generator=g)
    assert not first.equal(second)
    torch.testing.assert_close(both, (first + second) / 2)


def test_an_end_of_the_segment_is_diveq() -> None:
    z, c0, c1 = triple(50, 6)
    at_start = sf_diveq_step(z, c0, c1, torch.zeros(50, 1), noise="forward", generator=seeded(3))
    assert at_start.equal(diveq_step(z, c0, noise="forward", generator=seeded(3)))


@pytest.mark.parametrize("noise", ["gradient", "none"])
@pytest.mark.parametrize("steps", [1, 3, 4, 7])
def test_value_on_the_grid_is_a_row_of_the_table_bit_for_bit(noise: Noise, steps: int) -> None:
    codebook = torch.randn(9, 5, generator=seeded())
    table = expand(codebook, steps)
    indices = torch.arange(len(table))
    segment, tau = split_index(indices, len(codebook), steps)
    z = 100 * torch.randn(len(table), 5, generator=seeded(1))
    z_q = sf_diveq_step(z, codebook[segment], codebook[segment + 1], tau[:, None], noise=noise)
    assert z_q.equal(table)


def test_tau_may_differ_by_channel() -> None:
    z, c0, c1 = triple(10, 4)
    tau = torch.rand(10, 2, generator=seeded(2)).repeat_interleave(2, dim=1)
    z_q = sf_diveq_step(z, c0, c1, tau)
    assert z_q.equal(interpolate(c0, c1, tau))


def test_no_error_gives_finite_gradients_and_autocast_float32() -> None:
    z = torch.ones(2, 4, requires_grad=True)
    c = torch.ones(2, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        z_q = sf_diveq_step(z, c, c, torch.full((2, 1), 0.5))
        assert sf_diveq_step(z.bfloat16(), c, c, torch.full((2, 1), 0.5)).dtype == torch.float32
    g_z, g_c = torch.autograd.grad(z_q.sum(), (z, c))
    assert g_z.equal(torch.ones(2, 4))
    assert g_c.equal(torch.zeros(2, 4))


def test_expanded_table_is_the_curve() -> None:
    codebook = torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 8.0]])
    assert expand(codebook, 4).tolist() == [
        [0, 0], [1, 0], [2, 0], [3, 0], [4, 0], [4, 2], [4, 4], [4, 6], [4, 8],
    ]  # fmt: skip
    assert expand(codebook, 1).equal(codebook)
    segment, tau = split_index(torch.tensor([0, 3, 4, 7, 8]), 3, 4)
    assert segment.tolist() == [0, 0, 1, 1, 1]
    assert tau.tolist() == [0.0, 0.75, 0.0, 0.75, 1.0]


def test_expansion_is_differentiable() -> None:
    codebook = torch.randn(4, 3, dtype=torch.float64, generator=seeded(), requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: expand(c, 3), (codebook,))


def test_impossible_curves_are_named() -> None:
    with pytest.raises(ConfigError, match="2 codewords"):
        expand(torch.zeros(1, 3), 4)
    with pytest.raises(ConfigError, match="0 steps"):
        SFDiVeQ(8, 2, steps=0)
    with pytest.raises(ConfigError, match="'round'"):
        SFDiVeQ(8, 2, tau="round")  # type: ignore[arg-type]


def test_training_on_the_grid_gives_rows_of_the_table() -> None:
    torch.manual_seed(0)
    quantizer = SFDiVeQ(8, 3, steps=4)
    z = torch.randn(40, 25, 3, generator=seeded())
    used = set()
    for seed in range(30):
        z_q, indices, _ = quantizer(z, seeded(seed))
        assert z_q.equal(quantizer.table[indices])
        used |= set(indices.flatten().tolist())
        # One coordinate a segment and forward, shared by all latents.
        assert len(indices.unique()) <= 7
    assert {0, 28} <= used <= set(range(29))  # both ends of the curve
    again = quantizer(z, seeded(29))[0]
    assert again.equal(z_q)


def test_uniform_tau_reports_the_row_nearest_to_the_point() -> None:
    torch.manual_seed(0)
    quantizer = SFDiVeQ(8, 3, steps=4, tau="uniform")
    z = torch.randn(100, 3, generator=seeded())
    z_q, indices, _ = quantizer(z, seeded(1))
    table = quantizer.table
    assert not z_q.equal(table[indices])
    length = (quantizer.codebook[1:] - quantizer.codebook[:-1]).norm(dim=1).max()
    assert (z_q - table[indices]).norm(dim=1).max() <= length / 8 + 1e-6


def test_evaluation_is_a_lookup_in_the_expanded_table() -> None:
    quantizer = SFDiVeQ(8, 3, steps=4, noise="forward").eval()
    z = torch.randn(5, 7, 3, generator=seeded())
    z_q, indices, _ = quantizer(z)
    assert quantizer.sizes == (29,)
    assert indices.equal(nearest(z.reshape(-1, 3), quantizer.table).reshape(5, 7))
    assert z_q.equal(quantizer.table[indices])
    assert z_q.equal(quantizer.lookup(indices))


def test_warm_up_passes_through_then_takes_chunk_means() -> None:
    quantizer = SFDiVeQ(4, 2, warmup=3)
    batches = torch.randn(3, 100, 2, generator=seeded())
    for batch in batches:
        assert quantizer.is_warming_up
        z = batch.clone().requires_grad_()
        z_q, indices, _ = quantizer(z)
        z_q.sum().backward()
        assert z_q.equal(z)
        assert z.grad is not None
        assert z.grad.equal(torch.ones_like(z))
        assert indices.eq(-1).all()
    recent = batches.reshape(-1, 2)[-4 * 64 :]
    means = recent.reshape(4, 64, 2).mean(1)
    torch.testing.assert_close(quantizer.codebook.detach(), means)
    assert not quantizer.is_warming_up
    assert quantizer(batches[0])[1].ge(0).all()


def test_warm_up_of_a_model_of_16_bits_passes_its_latents() -> None:
    quantizer = SFDiVeQ(4, 2, warmup=3).half()
    z = torch.randn(100, 2, generator=seeded()).half()
    value = quantizer(z).value
    assert value.dtype == torch.float16
    assert value.equal(z)


def test_warm_up_survives_the_state_dict() -> None:
    batches = torch.randn(4, 30, 2, generator=seeded())
    straight, resumed = SFDiVeQ(4, 2, warmup=4), SFDiVeQ(4, 2, warmup=4)
    for batch in batches[:2]:
        straight(batch)
    resumed.load_state_dict(straight.state_dict())
    for batch in batches[2:]:
        straight(batch)
        resumed(batch)
    assert not resumed.is_warming_up
    assert resumed.codebook.equal(straight.codebook)


def warmed(forwards: int, warmup: int) -> SFDiVeQ:
    torch.manual_seed(forwards)
    quantizer = SFDiVeQ(4, 2, warmup=warmup)
    for batch in torch.randn(forwards, 30, 2, generator=seeded()):
        quantizer(batch)
    return quantizer


def as_it_was_saved_once(quantizer: SFDiVeQ) -> dict[str, Tensor]:
    """The state of before latents were dropped at the end of a warm-up."""
    latents = torch.randn(4 * 64, 2, generator=seeded(7))
    return {**quantizer.state_dict(), "recent": latents, "filled": torch.tensor(4 * 64)}


def test_the_latents_of_a_warm_up_are_dropped_at_its_end() -> None:
    quantizer = warmed(2, 3)
    assert quantizer.recent.shape == (4 * 64, 2)
    quantizer(torch.randn(30, 2, generator=seeded()))
    assert quantizer.recent.shape == (0, 2)
    assert [t.numel() for t in quantizer.state_dict().values()] == [8, 1, 1, 0, 1]
    for end in (
        lambda one: one.initialise(torch.randn(9, 2, generator=seeded())),
        lambda one: one.set_codebook(torch.randn(4, 2), torch.tensor(1.0)),
    ):
        quantizer = warmed(1, 3)
        end(quantizer)
        assert not quantizer.is_warming_up
        assert quantizer.recent.shape == (0, 2)


@pytest.mark.parametrize("warmup", [0, 1, 3, 9])
@pytest.mark.parametrize("saved", [0, 3])
@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("assign", [False, True])
def test_a_state_from_after_a_warm_up_is_that_of_any(
    warmup: int, saved: int, is_old: bool, assign: bool
) -> None:
    trained = warmed(saved, saved)
    if not saved:
        trained.initialise(torch.randn(30, 2, generator=seeded()))
    state = as_it_was_saved_once(trained) if is_old and saved else trained.state_dict()
    before = {key: tensor.clone() for key, tensor in state.items()}
    quantizer = SFDiVeQ(4, 2, warmup=warmup)
    model = nn.Sequential(Product([quantizer]))
    wrapped = {f"0.quantizers.0.{key}": tensor for key, tensor in state.items()}
    for load in (
        lambda: quantizer.load_state_dict(state, assign=assign),
        lambda: model.load_state_dict(wrapped, assign=assign),
    ):
        load()
        assert not quantizer.is_warming_up
        assert quantizer.recent.shape == (0, 2)
        assert quantizer.codebook.equal(trained.codebook)
        z = torch.randn(9, 2, generator=seeded())
        assert quantizer(z, seeded(1)).value.equal(trained(z, seeded(1)).value)
    assert all(state[key].equal(tensor) for key, tensor in before.items())


def test_a_warm_up_goes_on_in_one_that_was_over() -> None:
    straight, resumed = warmed(2, 3), warmed(3, 3)
    resumed.load_state_dict(straight.state_dict())
    assert resumed.is_warming_up
    for key, tensor in resumed.state_dict().items():
        assert tensor.equal(straight.state_dict()[key]), key
    batch = torch.randn(30, 2, generator=seeded(5))
    straight(batch)
    resumed(batch)
    for key, tensor in resumed.state_dict().items():
        assert tensor.equal(straight.state_dict()[key]), key


def test_a_warm_up_that_cannot_go_on_is_named() -> None:
    quantizer = warmed(1, 2)
    model = nn.ModuleDict({"q": quantizer})
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for loaded, has in ((quantizer, 2), (SFDiVeQ(4, 2), 0)):
        for whole, name in ((loaded, ""), (nn.ModuleDict({"q": loaded}), r"q\.")):
            state = nn.ModuleDict({"q": warmed(3, 5)}).state_dict()
            if not name:
                state = warmed(3, 5).state_dict()
            with pytest.raises(
                ModelError,
                match=rf"^SFDiVeQ: {name}recent is of a warm-up that was saved after 3 forwards, "
                rf"this one has {has}; build the quantizer with the warmup it was saved with$",
            ):
                whole.load_state_dict(state)
    for kept in (5, 64, 4 * 64 + 1):
        state = {**quantizer.state_dict(), "recent": torch.zeros(kept, 2)}
        with pytest.raises(ModelError, match=rf"recent is \[256, 2\], the state's \[{kept}, 2\]"):
            quantizer.load_state_dict(state)
    with pytest.raises(ModelError, match=r"unit is \[4, 2\], the state's \[5, 2\]"):
        quantizer.load_state_dict(SFDiVeQ(5, 2, warmup=2).state_dict())
    for key, tensor in model.state_dict().items():
        assert tensor.equal(before[key]), key


def test_evaluation_does_not_advance_the_warm_up() -> None:
    quantizer = SFDiVeQ(4, 2, warmup=2).eval()
    z = torch.randn(10, 2, generator=seeded())
    for _ in range(3):
        assert quantizer(z)[0].equal(quantizer.table[quantizer.encode(z)])
    assert quantizer.is_warming_up


def test_warm_up_too_short_for_the_codebook_is_named() -> None:
    quantizer = SFDiVeQ(64, 2, warmup=1)
    with pytest.raises(TrainingError, match="10 latents for 64 codewords"):
        quantizer(torch.randn(10, 2, generator=seeded()))


@pytest.mark.parametrize("tau", ["grid", "uniform"])
def test_training_unfolds_the_curve(tau: Literal["grid", "uniform"]) -> None:
    latents = torch.randn(20000, 2, generator=seeded())
    torch.manual_seed(0)
    quantizer = SFDiVeQ(16, 2, steps=4, tau=tau, warmup=5)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.05)
    g = seeded(2)
    for step in range(300):
        batch = latents[torch.randint(len(latents), (512,), generator=g)]
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 300)
        loss = (quantizer(batch, generator=g)[0] - batch).square().mean()
        if loss.requires_grad:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if step == 4:
            start = lookup_mse(quantizer, latents)
    # For comparison: k-means of 16 codewords .1073, of 61 (as many as the table has) .0307.
    assert start > 0.7
    assert lookup_mse(quantizer, latents) < 0.097  # measured: .0903 (grid), .0894 (uniform)
    assert usage(quantizer.encode(latents), 61) > 0.95


def test_oracle_forward_and_backward() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle: Any = pytest.importorskip("diveq", reason="the authors' package is not installed")
    codebook = torch.randn(16, 5, generator=seeded())
    theirs = oracle.SFDIVEQ(16, 5, noise_var=1e-9, skip_iters=1, avg_iters=1, allow_warning=False)
    theirs.codebook.data.copy_(codebook)
    z_theirs = torch.randn(200, 5, generator=seeded(1)).requires_grad_()
    g = torch.randn(200, 5, generator=seeded(2))
    torch.manual_seed(11)
    z_q_theirs, segments, _ = theirs(z_theirs)
    z_q_theirs.backward(g)

    ours = SFDiVeQ(16, 5, steps=4, tau="uniform", noise="forward", sigma=1e-9)
    ours.unit.data.copy_(codebook)
    z = z_theirs.detach().clone().requires_grad_()
    z_q, indices, _ = ours(z, generator=seeded(11))
    z_q.backward(g)
    # Rounding to the nearest step may reach the next segment's start.
    assert ((indices // 4 == segments) | (indices == 4 * segments + 4)).all()
    torch.testing.assert_close(z_q, z_q_theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(z.grad, z_theirs.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.unit.grad, theirs.codebook.grad, atol=1e-4, rtol=1e-4)
