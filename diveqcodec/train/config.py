"""Training configuration: dataclasses with defaults, replaced by a TOML file, then by `key=value`.

Knows nothing of how any of it is used.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from diveqcodec.config import from_dict, to_dict
from diveqcodec.errors import ConfigError
from diveqcodec.model.config import ModelConfig
from diveqcodec.model.quantizer import Gradient
from diveqcodec.model.transform import SIDE
from diveqcodec.ssim import SMALLEST_SIDE
from diveqcodec.train.loss import Distortion

_SMALLEST_CROP = 64
_LAST_SEED = 2**32 - 1  # a step's noise has 64 bits for its seed, and the lower half is the step's


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which crops are trained on."""

    crop: int = 256  # side of a crop in pixels, a multiple of 16, 64 at least
    batch: int = 4  # crops a step
    long_side: int = 2048  # larger pictures are shrunk to this when they are loaded; 0: none are
    drawn: float = 0.0  # share of crops on which text, windows and shapes are drawn
    min_scale: float = 0.5  # pictures are shrunk by U(max(this, crop / shorter side), 1)
    validation: int = 16  # pictures held out, at most a tenth of them
    knee: float = 0.25  # trade-offs above this are drawn more rarely,
    above: float = 0.12  # with this share


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """Optimizer and schedule."""

    steps: int = 20000
    lr: float = 7e-4  # the others are relative to it
    # Of the networks behind the latent: at 7e-4 itself they stagnate, and above it they fall apart.
    networks_factor: float = 0.3
    prior_factor: float = 2.0  # of the prior
    codebook_factor: float = 0.25  # of codebooks
    table_factor: float = 5.0  # of frequency tables
    linear_factor: float = 0.05  # of the linear transform in the synthesis
    encoder_factor: float = 0.0  # of that in the analysis; 0: it stays as it starts
    predistortion_factor: float = 1.0  # of networks before the analysis, where the model has them
    # Of kernels of the networks: "muon" learns twice as fast per step, which is a little longer.
    kernels: Literal["muon", "adamw"] = "muon"
    momentum: float = 0.95  # Muon's
    betas: tuple[float, float] = (0.9, 0.95)  # AdamW's, of everything else
    weight_decay: float = 0.0
    warmup: int = 200  # steps
    # Share of the steps in which the networks beside the linear transform rest: the prior, which
    # has more to learn, sees more pictures in the same time.
    linear: float = 0.1
    # Share of the crops of a step that they decode, until the cosine begins: the others go through
    # the linear transform alone, which is enough for the prior and takes half the time.
    networks_share: float = 0.5
    # Whether networks are averaged over a crop and its mirror image, as from effort 5 on. For the
    # last part of a run: a step takes 1.7 times as long.
    mirror: bool = False
    flat: float = 0.8  # share of the steps before the cosine begins
    final: float = 0.02  # learning rate at the end, relative
    clip: float = 2.0  # norm of the gradient
    ema: float = 0.999  # decay of the averaged weights
    # Of gradients on their way between processes: half of the bytes, noise far below a batch's.
    exchange: Literal["bfloat16", "float32"] = "bfloat16"


@dataclass(frozen=True, slots=True)
class LossConfig:
    """What is minimised."""

    distortion: Distortion = "mse"  # "ms-ssim" is weighted by 1300 * lambda


@dataclass(frozen=True, slots=True)
class QuantizerConfig:
    """How the quantizer is trained."""

    gradient: Gradient = "diveq"  # "soft", "soft-diveq", "diveq" or "ste"
    assignment: Literal["rate-aware", "nearest"] = "rate-aware"
    refresh: int = 50  # steps between rebuilds of the neighbour lists
    # Steps between replacements of unused codewords, 0: never. Acts with nearest assignment only:
    # under rate-aware assignment rare codewords are rightly rare, and their tables know it.
    replace: int = 0
    replace_until: float = 0.5  # share of the steps after which nothing is replaced


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is written, and how often."""

    every: int = 50  # steps between lines of the log
    validate_every: int = 1000
    checkpoint_minutes: float = 5.0
    samples: int = 3  # held-out crops drawn at every validation; 0: none


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A whole run."""

    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        for is_allowed, complaint, names in _RANGES:
            for name in names:
                value = attrgetter(name)(self)
                if not all(map(is_allowed, value if isinstance(value, tuple) else (value,))):
                    raise ConfigError(f"{name}: {value} {complaint}")
        data = self.data
        if data.crop % SIDE:
            raise ConfigError(f"data.crop: {data.crop} is not a multiple of {SIDE}")
        if data.long_side and data.long_side < data.crop:
            raise ConfigError(
                f"data.long_side: {data.long_side} is below data.crop; 0 keeps every size"
            )
        if data.crop < self.smallest_crop:
            raise ConfigError(
                f"data.crop: {data.crop} is too small for loss.distortion = ms-ssim; use 192"
            )

    @property
    def smallest_crop(self) -> int:
        """Pixels of the side of a crop, at least."""
        least = SMALLEST_SIDE if self.loss.distortion == "ms-ssim" else _SMALLEST_CROP
        return -(-least // SIDE) * SIDE


# What numbers mean something: a condition, what is said of others, and the settings it is for.
_RANGES: tuple[tuple[Callable[[float], bool], str, tuple[str, ...]], ...] = (
    (lambda value: 0 <= value <= _LAST_SEED, f"is not in 0 ... {_LAST_SEED}", ("seed",)),
    (
        lambda value: value >= _SMALLEST_CROP,
        f"is below {_SMALLEST_CROP}, the smallest side of a crop",
        ("data.crop",),
    ),
    (
        lambda value: value > 0,
        "is not positive",
        (
            *("data.batch", "data.knee", "optim.steps", "optim.lr", "optim.clip"),
            *("quantizer.refresh", "log.every", "log.validate_every"),
        ),
    ),
    (
        lambda value: value >= 0,
        "is negative",
        (
            *("data.long_side", "data.validation", "optim.warmup", "optim.weight_decay"),
            *("optim.networks_factor", "optim.prior_factor", "optim.codebook_factor"),
            *("optim.table_factor", "optim.linear_factor", "optim.encoder_factor"),
            *("optim.predistortion_factor", "quantizer.replace"),
            *("log.checkpoint_minutes", "log.samples"),
        ),
    ),
    (
        lambda value: 0 <= value <= 1,
        "is not in [0, 1]",
        (
            *("data.drawn", "optim.linear", "optim.networks_share", "optim.flat", "optim.final"),
            "quantizer.replace_until",
        ),
    ),
    (
        lambda value: 0 <= value < 1,
        "is not in [0, 1)",
        ("data.above", "optim.momentum", "optim.betas", "optim.ema"),
    ),
    (lambda value: 0 < value <= 1, "is not in (0, 1]", ("data.min_scale",)),
)


def load(path: Path | None, assignments: tuple[str, ...] = ()) -> TrainConfig:
    """Defaults, replaced by the TOML file `path`, then by `key=value` assignments.

    Raises:
        ConfigError: an unknown key (with a suggestion), a bad value, an unreadable file.
    """
    written = {} if path is None else _read(path)
    values = copy.deepcopy(written)
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigError(f"--set {assignment}: expected KEY=VALUE, as in optim.lr=1e-4")
        place = values
        *sections, last = key.strip().split(".")
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {assignment}: {section} is not a section")
        place[last] = _parse(text.strip())
    try:
        return from_dict(TrainConfig, values)
    except ConfigError as error:
        if path is None or str(error) != _complaint(written):
            raise
        raise ConfigError(f"{path}: {error}") from error


def settings(
    path: Path | None = None,
    assignments: tuple[str, ...] = (),
    *,
    steps: int | None = None,
    seed: int | None = None,
    resumed: Path | None = None,
) -> TrainConfig:
    """The configuration of a run: `load`, with what has an option of its own replaced last.

    Args:
        path: TOML file.
        assignments: `key=value` each.
        steps: replaces `optim.steps`.
        seed: replaces `seed`.
        resumed: folder of a run to go on with, whose configuration replaces the defaults if no
            `path` is given.

    Raises:
        ConfigError: as `load`.
    """
    if path is None and resumed is not None:
        path = resumed / "config.toml"
    config = load(path, assignments)
    if steps is not None:
        config = replace(config, optim=replace(config.optim, steps=steps))
    return config if seed is None else replace(config, seed=seed)


def to_toml(config: TrainConfig) -> str:
    """The configuration as a TOML file that `load` reads back."""
    values = to_dict(config)
    lines = [f"{k} = {_toml(v)}" for k, v in values.items() if not isinstance(v, dict)]
    for section, content in values.items():
        if isinstance(content, dict):
            lines += ["", f"[{section}]", *(f"{k} = {_toml(v)}" for k, v in content.items())]
    return "\n".join(lines) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file ({error})") from error


def _complaint(values: dict[str, Any]) -> str:
    """What is wrong with the values of a file by themselves; empty if nothing is."""
    try:
        from_dict(TrainConfig, values)
    except ConfigError as error:
        return str(error)
    return ""


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return repr(value)


def _parse(text: str) -> Any:
    """A value as TOML has it, or as people write it: `.5`, `1.`, `True`, a bare word."""
    if re.fullmatch(r"[+-]?(\d+\.|\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE):
        return float(text)
    if text in ("True", "False"):
        return text == "True"
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string
