"""What a log line says of codebooks, against figures worked out by hand; and what is validated."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diveqcodec.model.dvq import DvqModel, Output
from diveqcodec.model.recorder import SliceStatistics
from diveqcodec.ssim import ms_ssim
from diveqcodec.train import data, loop
from diveqcodec.train.config import DataConfig, LossConfig, TrainConfig
from diveqcodec.train.loss import MS_SSIM_SCALE, balanced
from diveqcodec.train.statistics import Interval, summary
from diveqcodec.train.validation import Validation
from tests.support.tiny import TINY, tiny_config
from tests.support.training import draw_pictures

CPU = torch.device("cpu")


def trainer_on(folder: Path, config: TrainConfig, size: tuple[int, int] = (96, 80)) -> loop.Trainer:
    pictures = data.load(draw_pictures(folder / "drawn", size=size), config.data.crop, CPU)
    trainer = loop.Trainer(config, pictures, folder)
    trainer.start()
    return trainer


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ([6, 1, 1, 0, 0], {"null": 0.75, "used": 3, "perplexity": 2.0}),
        # entropy of (1/2, 1/4, 1/4) is 1.5 bits, and 2^1.5 = 2.83
        ([0, 4, 2, 0, 2], {"null": 0.0, "used": 3, "perplexity": 2.8}),
        ([5, 0, 0, 0, 0], {"null": 1.0, "used": 1, "perplexity": 1.0}),
        ([0, 0, 0, 0, 0], {"null": 0.0, "used": 0, "perplexity": 1.0}),
    ],
)
def test_summary_of_counts(counts: list[int], wanted: dict[str, float]) -> None:
    assert summary(torch.tensor(counts)) == wanted


def test_a_line_has_the_coarse_layer_of_the_slices_that_have_one() -> None:
    interval = Interval(DvqModel(TINY), CPU)
    first = SliceStatistics([torch.ones(4)], [torch.tensor([0, 0, 0, 7])])
    first.coarse = [torch.tensor([0, 0]), torch.tensor([3, 64])]  # two passes; 64: the escape
    second = SliceStatistics([torch.full((2,), 6.0)], [torch.tensor([5, 6])])
    third = SliceStatistics()  # left out
    x_hat, y_hat = torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 1, 1)
    slices = [first, second, third]
    output = Output(x_hat, y_hat, torch.ones(1), slices, y_hat, y_hat, y_hat)
    for _ in range(2):  # the second line does not remember the first
        interval.add(torch.tensor(1.0), output, torch.zeros(1, 3, 4, 4), torch.tensor(2.0))
        fine = {"bpp": 0.25, "null": 0.75, "used": 2, "perplexity": 1.0}
        coarse = {"null": 0.5, "used": 3, "perplexity": 2.0}
        assert interval.line()["slices"] == [
            fine | {"coarse": coarse},
            {"bpp": 0.75, "null": 0.0, "used": 2, "perplexity": 2.0},
            {"bpp": 0.0, "null": 0.0, "used": 0, "perplexity": 1.0},
        ]


def test_the_model_says_which_coarse_codewords_it_chose(tmp_path: Path) -> None:
    trainer = trainer_on(tmp_path, tiny_config())
    x = data.batch(trainer.pictures, trainer.config.data, 0, 0)
    output = trainer.model(x, torch.full((2,), 0.2))
    with_layer, without, optional = output.slices
    assert [len(part) for part in with_layer.coarse] == [len(part) for part in with_layer.symbols]
    assert bool(torch.cat(with_layer.coarse).any())
    assert without.coarse == optional.coarse == []


def test_ms_ssim_is_what_is_minimised(tmp_path: Path) -> None:
    config = replace(
        tiny_config(1),
        data=DataConfig(crop=192, batch=2),
        loss=LossConfig(distortion="ms-ssim"),
    )
    trainer = trainer_on(tmp_path, config, (200, 196))
    x = data.batch(trainer.pictures, config.data, config.seed, 0)
    c = config.model
    lam = data.lambdas(c.lambda_min, c.lambda_max, config.data, config.seed, 0)
    with torch.no_grad():
        output = loop.forward(trainer.model, x, lam, 0)
    bpp = output.bits / 192**2
    wanted = balanced(bpp + lam * MS_SSIM_SCALE * (1 - ms_ssim(output.x_hat, x)), lam)
    interval = Interval(trainer.model, CPU)
    trainer.advance(interval)
    assert interval.line()["loss"] == pytest.approx(float(wanted), rel=1e-4)


def test_validation_codes_as_coding_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By look-up, with rounded classes: what the model does when it is not in training."""
    config = tiny_config(log={"samples": 0}, quantizer={"assignment": "nearest"})
    trainer = trainer_on(tmp_path, config)
    model, x = trainer.model, trainer.held_out.tensors[0][None, :, 8:72, 16:80].float() / 255
    bpp = {}
    for mode in (True, False):
        model.train(mode)
        with torch.no_grad():
            output = loop.forward(model, x, torch.tensor([0.0067]))
        bpp[mode] = float(output.bits) / 64**2
    model.train()
    modes: list[bool] = []
    real = DvqModel.forward

    def watched(self: DvqModel, *arguments: Any) -> Output:
        modes.append(self.training)
        return real(self, *arguments)

    monkeypatch.setattr(DvqModel, "forward", watched)
    line = Validation(trainer.config, trainer.held_out, trainer.pictures).measure(model).line
    assert line["0.0067"]["bpp"] == pytest.approx(bpp[False], abs=1e-4)
    assert abs(bpp[True] - bpp[False]) > 3e-4
    assert modes == [False] * 3
    assert model.training


def test_validation_says_what_the_networks_are_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The PSNR of the model less that of its linear transform, here a grey that has a known one."""
    trainer = trainer_on(tmp_path, tiny_config(log={"samples": 0}))
    grey = torch.full((1, 3, 64, 64), 0.5)
    monkeypatch.setattr(DvqModel, "decode_linear", lambda *_: grey)
    validation = Validation(trainer.config, trainer.held_out, trainer.pictures)
    errors = [(crop.float() / 255 - 0.5).square().mean() for crop in validation.crops]
    psnrs = [-10 * float(error.log10()) for error in errors]
    entry = validation.measure(trainer.model).line["0.0067"]
    expected = entry["psnr"] - sum(psnrs) / len(psnrs)
    assert entry["networks"] == pytest.approx(expected, abs=2e-3)
    assert abs(expected) > 1
