import pytest
import torch
from torch import Tensor, nn

from diveqcodec.errors import ConfigError
from diveqcodec.quantize import DiVeQ, index_counts, replace_unused, usage


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(size: int = 6) -> tuple[nn.Parameter, torch.optim.Adam]:
    """A parameter whose optimizer has moments everywhere."""
    unit = nn.Parameter(torch.randn(size, 3, generator=seeded()))
    other = nn.Parameter(torch.ones(size, 3))
    optimizer = torch.optim.Adam([unit, other], lr=1e-3, amsgrad=True)
    for _ in range(3):
        (unit.sin().sum() + (2 * other).square().sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return unit, optimizer


def test_rare_codewords_move_beside_used_ones_and_the_rest_stays() -> None:
    unit, _ = trained()
    before = unit.detach().clone()
    counts = torch.tensor([10, 0, 90, 0, 1, 0])  # mean 16.8, so 1 is over 5 % of it
    assert replace_unused(unit, counts, generator=seeded()) == 3
    kept, moved = [0, 2, 4], [1, 3, 5]
    assert unit[kept].equal(before[kept])
    distance, donor = torch.cdist(unit.detach()[moved], before[kept]).min(1)
    rms = before.square().mean().sqrt()
    assert (distance > 0).all()
    assert (distance < 5e-3 * rms).all()
    assert (donor == 1).sum() >= 2  # drawn by count: 90 of 101


def test_threshold_is_relative_to_the_mean_count() -> None:
    unit, _ = trained(4)
    counts = torch.tensor([100, 100, 100, 20])  # mean 80
    assert replace_unused(unit, counts, threshold=0.2) == 0
    assert replace_unused(unit, counts, threshold=0.25) == 1


def test_moments_of_moved_rows_are_cleared_and_no_others() -> None:
    unit, optimizer = trained()
    counts = torch.tensor([10, 0, 90, 0, 1, 0])
    replace_unused(unit, counts, optimizer=optimizer)
    state = optimizer.state[unit]
    for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
        rows = state[name].abs().sum(1)
        assert rows[[1, 3, 5]].eq(0).all()
        assert rows[[0, 2, 4]].gt(0).all()
    assert state["step"].item() == 3
    neighbour = optimizer.state[optimizer.param_groups[0]["params"][1]]
    assert neighbour["exp_avg"].ne(0).all()


def test_stale_moments_would_carry_a_moved_codeword_off() -> None:
    drift = {}
    for is_reset in (True, False):
        unit, optimizer = trained()
        replace_unused(
            unit,
            torch.tensor([10, 0, 90, 0, 1, 0]),
            optimizer=optimizer if is_reset else None,
            generator=seeded(),
        )
        placed = unit.detach().clone()
        unit.grad = torch.zeros_like(unit)  # nobody uses anything in this step
        optimizer.step()
        drift[is_reset] = (unit - placed)[[1, 3, 5]].abs().max().item()
    assert drift[True] == 0.0
    assert drift[False] > 1e-4


def test_nothing_happens_without_counts_or_optimizer_state() -> None:
    unit = nn.Parameter(torch.randn(4, 2, generator=seeded()))
    before = unit.detach().clone()
    assert replace_unused(unit, torch.zeros(4)) == 0
    assert unit.equal(before)
    fresh = torch.optim.Adam([unit])
    assert replace_unused(unit, torch.tensor([5, 5, 5, 0]), optimizer=fresh) == 1


def test_same_generator_same_codebook() -> None:
    results: list[Tensor] = []
    for seed in (3, 3, 4):
        unit, _ = trained()
        replace_unused(unit, torch.tensor([10, 0, 90, 0, 1, 0]), generator=seeded(seed))
        results.append(unit.detach())
    assert results[0].equal(results[1])
    assert not results[0].equal(results[2])


def test_counts_of_another_codebook_are_refused() -> None:
    unit, _ = trained(4)
    with pytest.raises(ConfigError, match=r"counts \[3\]"):
        replace_unused(unit, torch.zeros(3))


def test_replacement_revives_a_collapsed_codebook() -> None:
    latents = torch.randn(4000, 2, generator=seeded())
    used = {}
    for until in (150, 0):
        torch.manual_seed(0)
        quantizer = DiVeQ(64, 2)
        quantizer.unit.data[1:] += 50.0  # all but one are out of reach
        optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.01)
        counts = torch.zeros(64, dtype=torch.int64)
        g = seeded(1)
        for step in range(1, 201):
            batch = latents[torch.randint(len(latents), (256,), generator=g)]
            z_q, indices, _ = quantizer(batch, g)
            (z_q - batch).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            counts += index_counts(indices, 64)
            if step % 5 == 0 and step <= until:
                replace_unused(quantizer.unit, counts, optimizer=optimizer, generator=g)
                counts.zero_()
        used[until] = usage(quantizer.encode(latents), 64)
    assert used[150] > 0.95
    assert used[0] < 0.1
