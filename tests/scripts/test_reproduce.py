"""The experiments of scripts/reproduce.py on drawn pictures, and the page that they write."""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diveqcodec.errors import DiveqError
from diveqcodec.quantize import FSQ, DiVeQ, Projected, SFDiVeQ
from scripts import reproduce
from scripts.reproduction import (
    costs,
    network,
    page,
    plan,
    plots,
    rates,
    sources,
    split,
    tables,
    verdicts,
    vqvae,
)
from scripts.reproduction.lines import Line, Lines, Run, Value
from scripts.reproduction.methods import LEVELS, METHODS, REPLACING, make
from scripts.reproduction.perceptual import haarpsi
from scripts.reproduction.photos import centres, crops, load, patches
from tests.support.places import ROOT


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    g = np.random.default_rng(0)
    for number in range(34):
        coarse = g.integers(0, 255, (17, 17, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((272, 264), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.png")
    return folder


def short(run: Run, steps: int) -> Run:
    return Run.of(run.experiment, run.scale, **{**dict(run.settings), "steps": steps})


@pytest.fixture(scope="module")
def judged(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    for number in range(2):
        shutil.copy(photos / f"{number}.png", folder)
    return folder


# Runs.


def one_of_each() -> Iterator[Run]:
    seen = set()
    for run in plan.runs("quick"):
        settings = dict(run.settings)
        kind = (run.experiment, settings.get("way"), settings.get("split"))
        if kind not in seen:
            seen.add(kind)
            yield run


@pytest.mark.parametrize("run", [pytest.param(r, id=str(i)) for i, r in enumerate(one_of_each())])
def test_every_kind_of_run_gives_finite_figures_twice(run: Run, photos: Path, judged: Path) -> None:
    lines = Lines(photos / "none.jsonl")
    run = short(run, 12)
    result = plan.execute(run, lines, photos, judged)
    for value in result.values():
        assert not isinstance(value, float) or math.isfinite(value)
    assert json.loads(json.dumps(result)) is not None
    if run.experiment != "vqvae":  # a second is enough for the others
        assert plan.execute(run, lines, photos, judged) == result


def test_a_plan_has_no_run_twice_and_quick_is_smaller() -> None:
    for scale in ("quick", "full"):
        runs = list(plan.runs(scale))
        assert len(set(runs)) == len(runs)
        assert {plan.belongs(run) for run in runs} == set(plan.EXPERIMENTS)
    assert len(list(plan.runs("quick"))) < len(list(plan.runs("full"))) / 3


def test_a_scale_costs_what_it_promises() -> None:
    assert costs.hours(list(plan.runs("full"))) < 0.95 * 6
    assert costs.hours(list(plan.runs("quick"))) < 11 / 60
    tables_of_photographs = [run for run in plan.runs("full") if run.experiment == "vqvae"]
    assert costs.hours(tables_of_photographs) > 3
    for scale in ("quick", "full"):
        lines = Lines(ROOT / "results" / "quantizers" / f"{scale}.jsonl")
        timed = [line for line in lines if line.processor_seconds is not None]
        for experiment in {line.run.experiment for line in timed}:
            own = [line for line in timed if line.run.experiment == experiment]
            took = sum(line.processor_seconds or 0.0 for line in own)
            # A first run of a process loads the pictures; a busy machine takes a third more.
            assert 0.5 < (took + 1) / (1 + sum(costs.expected(line.run) for line in own)) < 2


def test_codewords_are_replaced_where_the_authors_prescribe_it(photos: Path) -> None:
    for method in ("diveq", "nsvq", "ste"):
        run = Run.of(
            "vqvae", "quick", method=method, shape="small", size=256, seed=0, batch=2, steps=20
        )
        torch.manual_seed(0)
        found = vqvae.fit(run, make(method, 256, 32), photos, 0.0015)
        # 32 latents a step for 256 codewords: most are idle, at each of 12 replacements.
        assert (found.replaced > 12 * 220) == (method in REPLACING), method
        assert found.counts.sum() == 4 * 2 * 16  # of the last fifth of the steps


def test_diveq_has_the_published_noise_unless_it_is_swept(photos: Path) -> None:
    for method in ("diveq", "sf-diveq"):
        quantizer = make(method, 64, 4)
        assert isinstance(quantizer, DiVeQ | SFDiVeQ)
        assert (quantizer.sigma, quantizer.noise) == (1e-3, "forward")
        vqvae.set_noise(quantizer, "inf")
        assert (quantizer.rho, quantizer.sigma, quantizer.noise) == (math.inf, None, "gradient")


def test_ways_to_decode_one_curve_share_its_training(photos: Path) -> None:
    common: dict[str, Value] = {"source": "gaussian", "dim": 2, "bits": 4, "seed": 5, "steps": 3}
    rates._trained.cache_clear()
    for way in ("segment+0", "real", "dither"):
        rates.run(Run.of("rates", "quick", way=way, **common), photos)
    assert rates._trained.cache_info().misses == 1


def test_methods_trade_at_equal_bits() -> None:
    for size in LEVELS:
        for method in METHODS:
            if method in ("lfq", "bsq") and size > 2048:
                continue
            assert 0.7 * size <= make(method, size, 4).sizes[0] <= size, (method, size)
    assert isinstance(make("fsq", 256, 4), Projected)
    assert FSQ(LEVELS[256]).sizes == (240,)


def test_the_best_learning_rate_of_the_search_is_taken(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "lines.jsonl")
    job = Run.of("sources", "quick", method="ema", seed=1)
    assert plan.chosen(lines, job, "sources-knob", "mse") == "middle"
    for knob, mse in (("low", 0.3), ("high", 0.2), ("middle", 0.4)):
        run = Run.of("sources-knob", "quick", method="ema", knob=knob)
        lines.add(Line(run, {"mse": mse}, 1.0))
    lines.add(Line(Run.of("sources-knob", "full", method="ema", knob="low"), {"mse": 0.0}, 1.0))
    assert plan.chosen(lines, job, "sources-knob", "mse") == "high"


# What is measured.


def test_bounds_lie_below_what_k_means_reaches() -> None:
    g = torch.Generator().manual_seed(0)
    for kind, most in (("gaussian", 2.2), ("laplacian", 3.5)):
        source = sources.Source(kind, 2, None)
        assert source.tested.square().mean().item() == pytest.approx(1.0, abs=0.03)
        table = sources.k_means(source, 64, g)
        mse = torch.cdist(source.tested, table).min(1).values.square().mean().item() / 2
        bound = source.bound(6.0)
        assert bound is not None
        assert bound < mse < most * bound
    assert sources.Source("gaussian", 2, None).bound(6.0) == pytest.approx(2**-6)


def test_a_real_number_is_better_than_any_finite_rate_of_the_same_curve() -> None:
    g = torch.Generator().manual_seed(0)
    codebook, z = torch.randn(9, 2, generator=g), torch.randn(500, 2, generator=g)
    real = (rates.project(z, codebook) - z).square().mean()
    errors = []
    for parts in (1, 2, 8, 64):
        table = rates.midpoints(codebook, parts)
        assert len(table) == 8 * parts
        errors.append(torch.cdist(z, table).min(1).values.square().mean() / 2)
    assert errors == sorted(errors, reverse=True)
    assert real < errors[-1] < 1.01 * real
    point = rates.project(torch.tensor([[1.0, 5.0]]), torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
    assert point.tolist() == [[1.0, 0.0]]


def test_gradients_of_the_splits() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(5, 8, 2, generator=g).requires_grad_()
    c = torch.randn(5, 8, 2, generator=g).requires_grad_()
    up = torch.randn(5, 8, 2, generator=g)
    for name, encoder, codeword in (
        ("encoder", up, None),
        ("codeword", torch.zeros_like(up), up),
        ("both", up, up),
        ("commitment", up, up),
        ("vq-vae", up, None),
    ):
        value, extra = split.step_of(split.Rule(name, 1.0, False, False), z, c, g)
        assert torch.equal(value, c)
        found = torch.autograd.grad(value, (z, c), up, retain_graph=True, allow_unused=True)
        assert found[0].equal(encoder)
        assert (found[1] is None) == (codeword is None)
        if codeword is not None:
            assert found[1].equal(codeword)
        if name == "commitment":  # d|z - c|^2/dz, a mean over the five patches
            (grad,) = torch.autograd.grad(extra, z)
            torch.testing.assert_close(grad, 2 * (z - c).detach() / 5)
    for is_joint in (False, True):
        value, _ = split.step_of(split.Rule("diveq", 0.0, is_joint, False), z, c, g)
        g_z, g_c = torch.autograd.grad(value, (z, c), up)
        torch.testing.assert_close(g_z + g_c, up)
        d = (c - z).detach()
        d, part = (d.flatten(1), g_c.flatten(1)) if is_joint else (d, g_c)
        cosine = torch.cosine_similarity(d, part, dim=-1).abs()
        torch.testing.assert_close(cosine, torch.ones_like(cosine), atol=1e-4, rtol=0)


def test_haarpsi_falls_with_noise_and_knows_its_reference_values() -> None:
    rows = torch.arange(64.0)
    first = torch.stack([4 * rows[:, None] + 0 * rows, 2 * rows + 0 * rows[:, None]])
    first = torch.cat([first, (first[:1] + first[1:]) / 2])[None]
    noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(0))
    values = [haarpsi(first, (first + s * noise).clamp(0, 255)).item() for s in (0, 5, 20, 60)]
    assert values[0] == pytest.approx(1.0, abs=1e-4)
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.6
    assert haarpsi(first.repeat(2, 1, 1, 1), first.repeat(2, 1, 1, 1)).shape == (2,)


def test_network_has_a_stride_of_16() -> None:
    shape = replace(network.SHAPES["small"], widths=(4, 4, 8, 8), blocks=1)
    net = network.VQVAE(shape, make("diveq", 16, shape.dim))
    decoded, quantised = net(torch.rand(2, 3, 64, 48))
    assert quantised.indices.shape == (2, 4, 3)
    assert decoded.shape == (2, 3, 64, 48)


# Pictures.


def test_pictures_crops_and_patches(photos: Path, tmp_path: Path) -> None:
    pictures = load(photos, 5, 64)
    assert [tuple(p.shape) for p in pictures] == [(3, 132, 136)] * 5
    assert len(load(photos, 5, 200)) == 5  # too small to be halved, large enough as they are
    g = torch.Generator().manual_seed(0)
    x = crops(pictures, 7, 64, g)
    assert x.shape == (7, 3, 64, 64)
    assert 0 <= x.min() < x.max() <= 1
    assert centres(photos, 256).shape == (34, 3, 256, 256)
    for dim in (2, 4, 8, 16, 32, 64):
        found = patches(photos, dim, 500, "train")
        assert found.shape == (500, dim)
        assert found.std().item() == pytest.approx(1.0, abs=0.01)
    with pytest.raises(DiveqError, match="no pictures of 300 pixels"):
        load(photos, 5, 300)
    with pytest.raises(DiveqError, match="smaller than 300x300"):
        centres(photos, 300)
    with pytest.raises(DiveqError, match="no pictures there"):
        centres(tmp_path, 64)
    (tmp_path / "cut.png").write_bytes((photos / "0.png").read_bytes()[:2000])
    for read in (load, lambda folder, *_: centres(folder, 64)):
        with pytest.raises(DiveqError, match="cut.png: cannot be read .* leave it out"):
            read(tmp_path, 5, 64)
    few = Run.of("sweep-batch", "quick", method="ema", shape="small", size=16, seed=0, batch=2,
                 steps=3)  # fmt: skip
    shutil.copy(photos / "0.png", tmp_path / "cut.png")
    with pytest.raises(DiveqError, match="1 pictures, of which 30 only validate"):
        vqvae.fit(few, make("ema", 16, 32), tmp_path, 0.001)


# Lines.


def test_lines_survive_a_kill_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lines.jsonl"
    lines = Lines(path)
    first, second = (Run.of("rates", "quick", bits=bits, rho="inf") for bits in (6, 8))
    lines.add(Line(first, {"mse": 0.5}, 1.234))
    lines.add(Line(second, {"mse": 0.25}, 2.0, 0.5))
    whole = path.read_bytes()
    assert Lines(path).by_run[first] == Line(first, {"mse": 0.5}, 1.23, None)
    assert Lines(path).by_run[second].processor_seconds == 0.5
    path.write_bytes(whole[:-9])
    again = Lines(path)
    assert set(again.by_run) == {first}
    again.add(Line(second, {"mse": 0.25}, 2.0, 0.5))
    assert path.read_bytes() == whole
    other = Lines(path)
    other.add(Line(Run.of("rates", "quick", bits=9, rho=0.0), {"mse": 0.125}, 1.0))
    with pytest.raises(DiveqError, match="lines.jsonl: another call adds lines to it"):
        again.add(Line(Run.of("rates", "quick", bits=7, rho=0.0), {"mse": 0.5}, 1.0))
    assert len(Lines(path).by_run) == 3
    first_line = whole.split(b"\n")[0]
    for changed in (
        b"nonsense",
        first_line.replace(b"6", b"[6]"),
        first_line.replace(b'{"mse": 0.5}', b"5"),
        first_line.replace(b"1.23", b"NaN"),
    ):
        path.write_bytes(changed + b"\n" + whole)
        with pytest.raises(DiveqError, match=r"lines.jsonl, line 1: not a run .* delete the line"):
            Lines(path)


def test_the_command_goes_on_where_it_was(
    tmp_path: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = [Run.of("rates", "quick", source="gaussian", dim=2, bits=4, way="diveq", steps=3, seed=s)
            for s in (0, 1, 2)]  # fmt: skip
    target = tmp_path / "quantizers.md"
    target.write_text((ROOT / "docs" / "quantizers.md").read_text("utf-8"), "utf-8")
    monkeypatch.setattr(plan, "runs", lambda scale: iter(runs))
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path)
    monkeypatch.setattr(reproduce, "PAGE", target)
    folders = ["--train", str(photos), "--test", str(photos), "--quick"]
    assert reproduce.main([*folders, "--hours", "0"]) == 0
    assert "3 runs are left" in capsys.readouterr().err
    monkeypatch.setattr(plan, "runs", lambda scale: iter(runs[:2]))
    assert reproduce.main(folders) == 0
    monkeypatch.setattr(plan, "runs", lambda scale: iter(runs))
    capsys.readouterr()
    assert reproduce.main(folders) == 0
    assert capsys.readouterr().err.startswith("1/1 rates")
    assert len((tmp_path / "quick.jsonl").read_text("utf-8").splitlines()) == 3
    assert reproduce.main([*folders, "--only", "split"]) == 0
    assert reproduce.main(["--page"]) == 0
    assert reproduce.main([*folders[:3], str(tmp_path / "nowhere"), "--quick"]) == 1
    assert "nowhere: no pictures there" in capsys.readouterr().err
    target.write_text("no markers", "utf-8")
    assert reproduce.main(["--page"]) == 1
    assert "generated parts []" in capsys.readouterr().err
    for wrong in (["--quick"], [*folders, "--hours", "nan"], [*folders, "--hours", "-1"]):
        with pytest.raises(SystemExit):
            reproduce.main(wrong)


# The page.


def stores_with(psnr: dict[str, list[float]]) -> dict[str, Lines]:
    stores = {scale: Lines(Path("nowhere") / scale) for scale in ("quick", "full")}
    for method in METHODS:
        for seed, value in enumerate(psnr.get(method, [20.0, 20.2, 20.4])):
            run = Run.of(
                "vqvae", "full", method=method, size=256, seed=seed, steps=5, batch=2, shape="small"
            )
            result = {
                "psnr": value, "ms_ssim": 0.5, "haarpsi": 0.5, "usage": 1.0, "perplexity": 9.0,
                "bpp_fixed": 0.03, "bpp_coded": 0.02, "codewords": 256, "rate": "low", "use": [],
                "replaced": 7,
            }  # fmt: skip
            stores["full"].by_run[run] = Line(run, result, 1.0)
    return stores


def test_verdicts_need_every_seed_of_three() -> None:
    def verdict(row: int, **psnr: list[float]) -> str:
        return verdicts.table(stores_with(psnr))[2 + row].split(" | ")[2]

    assert verdict(0, diveq=[20.5, 20.6, 20.7]) == "holds"
    assert verdict(0, diveq=[20.3, 20.6, 20.7]) == "holds: level with STE"
    assert verdict(0, diveq=[19.0, 19.5, 19.9]) == "does not hold"
    sf = {"sf-diveq": [20.5, 20.6, 20.7]}
    assert verdict(1, **sf) == "holds"
    assert verdict(3, **sf) == "holds"  # the better of both against the best other
    assert verdict(3, **sf, ema=[21.0, 21.1, 21.2]) == "does not hold"
    # One of the others has the best mean, another the best seed.
    rivals = {"diveq": [21.2] * 3, "ema": [21.1] * 3, "ste": [20.0, 20.0, 22.5]}
    assert verdict(3, **rivals) == "not separated"
    assert verdict(0, diveq=[20.5, 20.6]) == verdicts.OPEN
    assert verdicts.table(stores_with({}))[2 + 6].split(" | ")[2] == "not tested"


def test_a_table_shows_mean_and_half_the_range() -> None:
    text = "\n".join(tables.vqvae(stores_with({"diveq": [20.0, 21.0, 23.0]}), 256))
    assert "| DiVeQ | 256 | 0.0300 | 0.0200 ± 0.0000 | 21.33 ± 1.50 |" in text
    assert "| 9 | 7 | low |" in text
    assert "| 9 | – | low |" in text  # whose codewords stay
    assert text.index("DiVeQ |") < text.index("EMA |")  # best first
    assert tables.vqvae(stores_with({}), 16) == []
    assert tables.vqvae(stores_with({"ema": [1.0, 2.0]}), 256) == []


def test_k_means_is_shown_by_the_mean_of_its_seeds(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "lines")
    for seed, mse in enumerate((1.0, 2.0, 3.0)):
        run = Run.of("sources", "full", method="k-means", source="x", dim=2, size=16, seed=seed)
        lines.by_run[run] = Line(run, {"mse": mse, "bound": 1.0, "usage": 1.0}, 1.0)
    assert tables._source_row(lines, "k-means", [("x", 2, 16)]) == ["k-means", "3.01, 100 %"]


def test_sweeps_share_the_point_that_they_go_through(tmp_path: Path) -> None:
    stores = {scale: Lines(tmp_path / scale) for scale in ("quick", "full")}
    for run in plan.runs("quick"):
        if run.experiment.startswith("sweep"):
            stores["quick"].by_run[run] = Line(run, {"psnr": 10.0 + run["seed"]}, 1.0)
    text = "\n".join(tables.sweeps(stores))
    for head in ("0.1 | 1.0 | 10.0", "4 | 16", "as published | 1.0"):
        assert f"| quantizer | {head} |" in text
    assert text.count("11.00 ± 1.00") == 4 * 3 + 4 * 2 + 2 * 2
    batch = tables.swept(stores["quick"], "sweep-batch", "batch")
    assert {value: len(lines) for value, lines in batch.items()} == {4: 12, 16: 12}
    assert "2 values (quick)" in "\n".join(verdicts.table(stores))
    assert "3 values (quick)" in "\n".join(verdicts.table(stores))


def test_a_training_that_diverges_is_a_result_and_the_rest_goes_on(
    photos: Path, judged: Path, tmp_path: Path
) -> None:
    lines = Lines(tmp_path / "lines.jsonl")
    run = Run.of(
        "sweep-rate", "quick", method="diveq", shape="small", size=256, seed=0, batch=2,
        times=1e38, steps=10,
    )  # fmt: skip
    result = plan.execute(run, lines, photos, judged)
    assert result == {"diverged": True}
    lines.add(Line(run, result, 1.0))
    (again,) = Lines(tmp_path / "lines.jsonl")
    assert again.has_diverged
    lost = Run.of("vqvae-knob", "quick", method="diveq", knob="low")
    won = Run.of("vqvae-knob", "quick", method="diveq", knob="high")
    lines.add(Line(lost, {"diverged": True}, 1.0))
    lines.add(Line(won, {"validation": 0.5}, 1.0))
    assert plan.chosen(lines, run, "vqvae-knob", "validation") == "high"
    with pytest.raises(ValueError, match="JSON"):
        Line(won, {"validation": math.nan}, 1.0).to_json()


def test_a_training_that_diverged_counts_as_the_worst_of_all(tmp_path: Path) -> None:
    def lose(store: Lines, **settings: Value) -> None:
        for line in store.of("vqvae", **settings):
            store.by_run[line.run] = Line(line.run, {"diverged": True}, 1.0)

    stores = stores_with({"diveq": [20.5, 20.6, 20.7], "ema": [30.0, 30.1, 30.2]})
    better = verdicts.table(stores)[2 + 3]
    assert "does not hold" in better
    lose(stores["full"], method="ema", seed=1)
    lose(stores["full"], method="ste")
    text = tables.vqvae(stores, 256)
    (row,) = (line for line in text if "| EMA |" in line)
    assert "30.10 ± 0.10 (1 of 3 diverged) |" in row
    assert text.index(row) > next(i for i, line in enumerate(text) if "| FSQ |" in line)
    (row,) = (line for line in text if "| STE" in line)
    assert row.split(" | ")[1:3] == ["–", "–"]
    assert row.count("diverged") == 6
    assert verdicts.table(stores)[2 + 3].split(" | ")[2] == "not separated"  # two of its seeds
    lose(stores["full"], method="ema")
    assert verdicts.table(stores)[2 + 3].split(" | ")[2] == "holds"
    assert plots.draw(stores, tmp_path) == ["vqvae", "use"]


def test_the_committed_page_is_that_of_the_committed_lines(tmp_path: Path) -> None:
    folder = ROOT / "results" / "quantizers"
    stores = {scale: Lines(folder / f"{scale}.jsonl") for scale in ("quick", "full")}
    committed = (ROOT / "docs" / "quantizers.md").read_text("utf-8")
    target = tmp_path / "quantizers.md"
    target.write_text(committed, "utf-8")
    page.write(stores, target, tmp_path)
    assert target.read_text("utf-8") == committed, "python scripts/reproduce.py --page"
