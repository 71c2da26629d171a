"""What every quantizer promises, in every form: one interface, and one answer to bad input."""

import math
import re
from typing import Any

import pytest
import torch
from torch import nn

from diveqcodec.errors import ConfigError, DiveqError, ModelError, TrainingError
from diveqcodec.quantize import (
    FSQ,
    CodebookQuantizer,
    DiVeQ,
    Product,
    Projected,
    Quantised,
    Quantizer,
    Residual,
    SFDiVeQ,
    nearest,
    replace_unused,
    split_index,
)
from tests.support.quantizers import CODEBOOKS, EVERY, GRIDS, PLAIN, latents, made


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", EVERY)
def test_one_interface(name: str) -> None:
    quantizer = made(name)
    quantizer.initialise(latents(), seeded())
    z = latents(30, seed=2).reshape(5, 6, 4).requires_grad_()
    result = quantizer(z, seeded())
    assert isinstance(result, Quantised)
    value, indices, loss = result
    assert value.shape == (5, 6, 4)
    assert indices.shape == (5, 6, *quantizer.index_shape)
    assert indices.dtype == torch.int64
    assert loss.shape == ()
    (value.square().sum() + loss).backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    assert z.grad.abs().sum() > 0
    for parameter in quantizer.parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("name", EVERY)
def test_evaluation_draws_nothing_and_is_lookup_of_encode(name: str) -> None:
    quantizer = made(name)
    quantizer.initialise(latents(), seeded())
    quantizer.eval()
    z = latents(30, seed=2).reshape(5, 6, 4)
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    g, state = seeded(3), torch.get_rng_state()
    value, indices, loss = quantizer(z, g)
    assert torch.get_rng_state().equal(state)
    assert g.get_state().equal(seeded(3).get_state())
    assert indices.equal(quantizer.encode(z))
    assert value.equal(quantizer.lookup(indices))
    assert loss.item() == 0
    # A point of the table is its own point.
    if name in CODEBOOKS or name == "lfq":
        assert quantizer.lookup(quantizer.encode(value)).allclose(value)
    # Indices stay within the sizes, and evaluation changes no state.
    columns = indices.reshape(-1, len(quantizer.sizes)).amax(0)
    assert (columns < torch.tensor(quantizer.sizes)).all()
    assert indices.min() >= 0
    for key, tensor in quantizer.state_dict().items():
        assert tensor.equal(before[key]), key


@pytest.mark.parametrize("name", [n for n in EVERY if "nsvq" not in n])
def test_the_value_of_training_is_the_lookup_of_its_indices(name: str) -> None:
    quantizer = made(name)
    quantizer.initialise(latents(), seeded())
    table = quantizer.lookup  # EMA moves its codewords after the step: look up before
    state = {key: value.clone() for key, value in quantizer.state_dict().items()}
    value, indices, _ = quantizer(latents(40, seed=2), seeded(4))
    quantizer.load_state_dict(state)
    torch.testing.assert_close(value, table(indices), rtol=0, atol=0)


@pytest.mark.parametrize("name", EVERY)
def test_training_is_a_function_of_the_generator_and_the_state(name: str) -> None:
    first, second = made(name), made(name, seed=9)
    first.initialise(latents(), seeded())
    second.load_state_dict(first.state_dict())
    z = latents(40, seed=2)
    for _ in range(2):
        one, other = first(z, seeded(4)), second(z, seeded(4))
        torch.rand(3)
        assert one.value.equal(other.value)
        assert one.indices.equal(other.indices)
        assert one.loss.equal(other.loss)
    for key, tensor in first.state_dict().items():
        assert tensor.equal(second.state_dict()[key]), key


@pytest.mark.parametrize("name", EVERY)
def test_bad_input_is_one_clear_error_or_the_right_result(name: str) -> None:
    quantizer = made(name)
    quantizer.initialise(latents(), seeded())
    z = latents(20, seed=2)
    for wrong, kind, message in (
        (z[:, :3], ConfigError, r"float32 \[20, 3\].*\[\.\.\., 4\]"),
        (torch.tensor(1.0), ConfigError, r"\[\].*\[\.\.\., 4\]"),
        (z.to(torch.complex64), ConfigError, r"complex64 \[20, 4\]"),
        (z.masked_fill(z > 1, torch.nan), TrainingError, r"\[20, 4\] hold NaN or infinity"),
        (z.masked_fill(z > 1, torch.inf), TrainingError, r"\[20, 4\] hold NaN or infinity"),
    ):
        for call in (quantizer.train(), quantizer.eval(), quantizer.encode):
            with pytest.raises(kind, match=message) as caught:
                call(wrong)
            assert "\n" not in str(caught.value)
        with pytest.raises(DiveqError) as caught:
            quantizer.initialise(wrong)
        assert "\n" not in str(caught.value)
    # An empty batch: nothing, no loss, no change.
    state = {key: value.clone() for key, value in quantizer.state_dict().items()}
    quantizer.train()
    empty = torch.zeros(0, 4, requires_grad=True)
    value, indices, loss = quantizer(empty, seeded())
    (value.sum() + loss).backward()
    assert value.shape == (0, 4)
    assert indices.shape == (0, *quantizer.index_shape)
    assert loss.item() == 0
    assert quantizer.encode(empty).shape == indices.shape
    with pytest.raises(DiveqError, match="latents"):
        quantizer.initialise(empty)
    for key, tensor in quantizer.state_dict().items():
        assert tensor.equal(state[key]), key
    # Half precision: the result of the same numbers in float32.
    for dtype in (torch.float16, torch.bfloat16):
        half = made(name)
        half.load_state_dict(state)
        quantizer.load_state_dict(state)
        low, full = half(z.to(dtype), seeded(5)), quantizer(z.to(dtype).float(), seeded(5))
        assert low.value.dtype == torch.float32
        assert low.value.equal(full.value)
        assert low.indices.equal(full.indices)
        quantizer.load_state_dict(state)
        with torch.autocast("cpu", torch.bfloat16):
            auto = quantizer(z.to(dtype).float(), seeded(5))
        assert auto.value.equal(full.value)
        assert auto.loss.equal(full.loss)
        # Weights of 16 bits, too.
        low = half.to(dtype).eval()(z)
        assert low.value.dtype == torch.float32
        assert torch.isfinite(low.value).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", EVERY)
def test_a_model_of_16_bits_computes_in_float32(name: str, dtype: torch.dtype) -> None:
    quantizer = made(name)
    quantizer.initialise(latents(), seeded())
    before, after = nn.Linear(4, 4), nn.Linear(4, 4)
    model = nn.Sequential(before, quantizer, after).to(dtype)
    full = made(name)
    full.load_state_dict(quantizer.state_dict())
    z = before(latents(40, seed=2).to(dtype))
    low, exact = quantizer(z, seeded(4)), full(z.float(), seeded(4))
    assert low.value.dtype == dtype
    assert low.value.equal(exact.value.to(dtype))
    assert low.indices.equal(exact.indices)
    assert low.loss.equal(exact.loss)
    (after(low.value).square().mean() + low.loss).backward()
    for parameter in model.parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all()
    assert before.weight.grad is not None
    assert before.weight.grad.abs().sum() > 0
    model.eval()
    full.load_state_dict(quantizer.state_dict())  # EMA's moved
    value, indices, _ = quantizer(z)
    assert value.dtype == quantizer.lookup(indices).dtype == quantizer.dtype == dtype
    assert value.equal(quantizer.lookup(indices))
    assert value.equal(full.eval()(z.float()).value.to(dtype))
    assert after(value).dtype == dtype
    # Latents of float32 are answered in float32, with the points that a decoder sees.
    assert quantizer(z.float()).value.equal(value.float())
    with torch.autocast("cpu", dtype):  # weights of float32: the value is exact
        value = full(z).value
    assert value.dtype == torch.float32
    assert value.equal(full.lookup(indices))


@pytest.mark.parametrize("name", [n for n in EVERY if "projected" not in n])  # 1e9 is none, too
def test_a_scale_that_halves_cannot_hold(name: str) -> None:
    for magnitude in (0.0, 1e-9):
        quantizer = made(name).half()
        quantizer.initialise(magnitude * latents(), seeded())
        value, _, loss = quantizer((magnitude * latents()).half(), seeded())
        assert torch.isfinite(value).all()
        assert torch.isfinite(loss)
        assert torch.isfinite(quantizer.eval()(latents().half()).value).all()


def strangers(name: str) -> list[Quantizer]:
    """Quantizers of the kind whose states are not to be loaded."""
    plain = name.rpartition(":")[2]
    others = [made(name, dim=2)]
    if plain in CODEBOOKS:
        others.append(made(name, size=9))
    if plain == "fsq":  # the same shapes, and other levels
        widths = {"product": 2, "residual": 4, "projected": 3, "": 4}
        inner = FSQ((3,) * widths[name.rpartition(":")[0]])
        outer: dict[str, Any] = {
            "product": Product([inner, inner]),
            "residual": Residual([inner, inner]),
            "projected": Projected(inner, 4),
            "": inner,
        }
        others.append(outer[name.rpartition(":")[0]])
    return others


@pytest.mark.parametrize("name", EVERY)
def test_a_state_of_another_size_is_refused_and_nothing_is_touched(name: str) -> None:
    quantizer = made(name)
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    for other in strangers(name):
        with pytest.raises(ModelError, match="saved with") as caught:
            quantizer.load_state_dict(other.state_dict())
        assert "\n" not in str(caught.value)
    lacking = dict(list(before.items())[1:])
    with pytest.raises(ModelError, match="lacks"):
        quantizer.load_state_dict(lacking)
    with pytest.raises(ModelError, match="unknown 'more'"):
        quantizer.load_state_dict({**before, "more": torch.zeros(1)})
    quantizer.load_state_dict(lacking, strict=False)
    for key, tensor in quantizer.state_dict().items():
        assert tensor.equal(before[key]), key


@pytest.mark.parametrize("name", EVERY)
def test_in_a_model_too_a_state_of_another_size_is_refused(name: str) -> None:
    quantizer = made(name)
    quantizer.initialise(latents(), seeded())
    model = nn.ModuleDict({"deep": nn.Sequential(nn.Linear(2, 2), quantizer)})
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    for other in strangers(name):
        state = nn.ModuleDict({"deep": nn.Sequential(nn.Linear(2, 2), other)}).state_dict()
        for assign in (False, True):
            message = rf"^{type(quantizer).__name__}: deep\.1\.\S+ is \[.*; build .* saved with$"
            with pytest.raises(ModelError, match=message) as caught:
                model.load_state_dict(state, assign=assign)
            assert "\n" not in str(caught.value)
            for key, tensor in quantizer.state_dict().items():
                assert tensor.equal(before[key]), key
    equal = nn.ModuleDict({"deep": nn.Sequential(nn.Linear(2, 2), made(name, seed=5))})
    equal.load_state_dict(model.state_dict())
    for key, tensor in equal.state_dict().items():
        assert tensor.equal(model.state_dict()[key]), key
    # Keys that are missing or unknown are torch's business there.
    lacking = model.state_dict()
    key = f"deep.1.{next(iter(before))}"
    lacking["deep.1.more"] = lacking.pop(key)
    with pytest.raises(RuntimeError, match=rf"Missing key.*{key}"):
        model.load_state_dict(lacking)
    model.load_state_dict(lacking, strict=False)


def test_levels_of_a_state_come_from_the_constructor() -> None:
    for own, others in (((5, 6, 8), (8, 6, 5)), ((8, 5, 5, 3), (4, 4, 4, 4))):
        quantizer = FSQ(own)
        model = nn.ModuleDict({"q": quantizer})
        state = nn.ModuleDict({"q": FSQ(others)}).state_dict()
        mine, given = str(list(own)), str(list(others))
        message = f"FSQ: q.levels is {mine}, the state's {given}; build the quantizer with the "
        with pytest.raises(ModelError, match=f"^{re.escape(message)}levels it was saved with$"):
            model.load_state_dict(state)
        assert tuple(quantizer.levels.tolist()) == own
        assert quantizer.sizes == (math.prod(own),)


@pytest.mark.parametrize("name", CODEBOOKS)
def test_one_codeword_and_one_dimension(name: str) -> None:
    if name == "sf-diveq":
        with pytest.raises(ConfigError, match="at least 2 codewords"):
            made(name, size=1)
    else:
        single = made(name, size=1)
        single.initialise(latents(), seeded())
        value, indices, loss = single(latents(20), seeded())
        assert indices.eq(0).all()
        assert torch.isfinite(value).all()
        assert torch.isfinite(loss)
        assert single.eval()(latents(20)).value.equal(single.lookup(torch.zeros(20).long()))
    for size, dim in ((0, 4), (8, 0), (-1, 4)):
        with pytest.raises(ConfigError, match=r"codewords|dimensions"):
            CODEBOOKS[name](size, dim)
    line = made(name, dim=1)
    z = latents(50, 1).requires_grad_()
    line.initialise(z.detach(), seeded())
    value, _, loss = line(z, seeded())
    (value.square().sum() + loss).backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    points = line.lookup(torch.arange(line.sizes[0]))
    error = (z.detach() - points.t()).abs().min(1).values
    torch.testing.assert_close((line.eval()(z).value - z).abs().squeeze(1), error)


@pytest.mark.parametrize("name", GRIDS)
def test_grids_of_one_dimension(name: str) -> None:
    line = made(name, dim=1)
    z = torch.linspace(-3, 3, 41)[:, None].requires_grad_()
    line.initialise(z.detach())
    value, indices, loss = line(z, seeded())
    (value.square().sum() + loss).backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    assert indices.unique().tolist() == list(range(line.sizes[0]))
    assert (value.detach().diff(dim=0) >= 0).all()  # a staircase


@pytest.mark.parametrize("name", PLAIN)
def test_all_equal_and_all_zero_latents(name: str) -> None:
    for z in (torch.zeros(30, 4), torch.ones(30, 4)):
        quantizer = made(name)
        quantizer.initialise(z, seeded())
        leaf = z.clone().requires_grad_()
        value, _, loss = quantizer(leaf, seeded())
        (value.square().sum() + loss).backward()
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        assert torch.isfinite(quantizer.eval()(z).value).all()


# Dead codewords: one that no latent is near.


@pytest.mark.parametrize("name", CODEBOOKS)
def test_what_becomes_of_a_codeword_that_nobody_uses(name: str) -> None:
    quantizer = made(name, size=6, dim=2)
    assert isinstance(quantizer, CodebookQuantizer)
    z = latents(200, 2)
    quantizer.initialise(z, seeded())
    if name == "simvq":
        quantizer.unit[5] = 40.0
    else:
        quantizer.unit.data[5] = 40.0
    if name == "ema":
        quantizer.sums[5] = 40.0  # type: ignore[operator]
    before = quantizer.codebook.detach().clone()
    trained = list(quantizer.parameters())
    optimizer = torch.optim.SGD(trained, lr=0.1) if trained else None
    g = seeded(1)
    for _ in range(20):
        value, indices, loss = quantizer(z, g)
        last = 8 if name == "sf-diveq" else 4  # on a curve, the start of the segment to it
        assert indices.max() <= last
        total = (value - z).square().mean() + loss
        if optimizer:
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
    moved = (quantizer.codebook.detach() - before).norm(dim=1)
    assert moved[:5].max() > 1e-4
    if name == "simvq":  # the map moves all
        assert moved[5] > 1e-3
    elif name == "ema":  # counts decay together with sums; eps shrinks it in the end
        assert moved[5] < 1e-2 * before[5].norm()
        for _ in range(2000):
            quantizer(z, g)
        assert quantizer.codebook[5].norm() < 0.1 * before[5].norm()
    else:  # far away even the softmax gives exactly nothing
        assert moved[5] == 0
    if name in ("ema", "simvq"):
        with pytest.raises(ConfigError, match="no parameter"):
            replace_unused(quantizer.unit, torch.ones(6))
    else:
        found = quantizer.encode(z).flatten()
        counts = torch.bincount(found, minlength=6).float()
        if name == "sf-diveq":  # both ends of a segment share its latents
            segment, tau = split_index(found, 6, 2)
            counts = torch.zeros(6).index_add(0, segment, 1 - tau).index_add(0, segment + 1, tau)
        assert counts[5] == 0
        assert replace_unused(quantizer.unit, counts) >= 1


def test_gumbel_reaches_codewords_that_nobody_chose() -> None:
    quantizer = made("gumbel", size=3, dim=1)
    assert isinstance(quantizer, CodebookQuantizer)
    quantizer.unit.data.copy_(torch.tensor([[0.0], [1.0], [3.0]]))
    z = torch.zeros(4, 1)
    value, indices, _ = quantizer(z, seeded(1))
    (value - 5).square().sum().backward()
    assert quantizer.unit.grad is not None
    assert 2 not in indices
    assert quantizer.unit.grad[2].abs().item() > 1e-6


# SF-DiVeQ's index is of finite rate.


def test_sf_diveqs_index_is_segment_and_step() -> None:
    quantizer = SFDiVeQ(5, 2, steps=4)
    z = latents(200, 2)
    quantizer.initialise(z)
    _, indices, _ = quantizer(z, seeded())
    codebook = quantizer.codebook.detach()
    assert quantizer.sizes == (17,)
    for index in indices.unique().tolist():
        segment, step = divmod(index, 4)
        end = codebook[min(segment + 1, 4)]
        point = (1 - step / 4) * codebook[segment] + step / 4 * end
        torch.testing.assert_close(quantizer.lookup(torch.tensor(index)), point)
    assert quantizer.eval()(z).indices.equal(nearest(z, quantizer.table))


def test_the_sizes_of_a_state_come_from_the_constructor() -> None:
    with pytest.raises(ModelError, match=r"^DiVeQ: unit is \[8, 4\], the state's \[9, 4\]; build"):
        DiVeQ(8, 4).load_state_dict(DiVeQ(9, 4).state_dict())
