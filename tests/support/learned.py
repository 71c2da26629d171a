"""What the tests with CompressAI's learned codecs share: where they run, and small weights."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch

from diveqcodec.evaluate.compressai_compat import import_compressai

ARCHITECTURE = "bmshj2018-hyperprior"
Test = TypeVar("Test", bound=Callable[..., object])


def with_compressai(test: Test) -> Test:
    """A test that needs compressai: left out where it is not installed, as on Python 3.13."""
    marks = (
        pytest.mark.skipif(
            importlib.util.find_spec("compressai") is None, reason="compressai is not installed"
        ),
        # its own imports use what newer torch deprecates
        pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    )
    for mark in marks:
        test = mark(test)
    return test


def save_checkpoint(path: Path, seed: int = 3) -> Path:
    """Write random weights of a small `ARCHITECTURE` as CompressAI's training does."""
    torch.manual_seed(seed)
    model = import_compressai("compressai.zoo.image").model_architectures[ARCHITECTURE]
    torch.save({"state_dict": model(8, 12).state_dict()}, path)
    return path
