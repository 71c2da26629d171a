"""What surrounds the code: metadata, packages, weights, public names, examples, sample images."""

import doctest
import importlib
import importlib.metadata
import importlib.resources
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from PIL import Image

import diveqcodec
from tests.support.places import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
MODULES_WITH_EXAMPLES = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "diveqcodec").rglob("*.py")
    if ">>> " in path.read_text("utf-8")
)


def test_the_version_is_that_of_pyproject() -> None:
    assert diveqcodec.__version__ == PROJECT["project"]["version"]


def test_every_public_name_exists() -> None:
    assert set(diveqcodec.__all__) <= set(dir(diveqcodec))
    for name in diveqcodec.__all__:
        assert getattr(diveqcodec, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'compres'"):
        diveqcodec.compres  # noqa: B018


def test_every_folder_of_modules_is_installed() -> None:
    folders = {path.parent for path in (ROOT / "diveqcodec").rglob("__init__.py")}
    packages = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages | {"diveqcodec.models"}
    stray = [
        path.parent
        for path in (ROOT / "diveqcodec").rglob("*.py")
        if path.parent not in folders and "data" not in path.parts
    ]
    assert not stray, "a folder of modules without __init__.py"


def test_weights_are_found_where_the_zoo_looks() -> None:
    weights = importlib.resources.files("diveqcodec.models")
    assert weights.joinpath("__init__.py").read_text("utf-8") == (
        (ROOT / "models" / "__init__.py").read_text("utf-8")
    )


def test_the_command_exists() -> None:
    (command,) = (
        entry
        for entry in importlib.metadata.entry_points(group="console_scripts")
        if entry.name == "diveq"
    )
    assert callable(command.load())


def test_python_dash_m_is_the_command() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "diveqcodec", "--version"], capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert diveqcodec.__version__ in run.stdout


def test_constraints_pin_every_dependency_within_its_range() -> None:
    pins: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if text := line.partition("#")[0].strip():
            pin = Requirement(text)
            assert [item.operator for item in pin.specifier] == ["=="], line
            pins.setdefault(canonical(pin.name), []).append(pin)
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    for requirement in map(Requirement, wanted):
        candidates = pins.get(canonical(requirement.name), [])
        assert candidates, f"constraints.txt does not pin {requirement.name}"
        for pin in candidates:
            (exact,) = pin.specifier
            assert requirement.specifier.contains(exact.version), f"{pin} is not {requirement}"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("path", MODULES_WITH_EXAMPLES, ids=str)
def test_examples_in_docstrings_are_true(path: Path) -> None:
    module = importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


def test_sample_images_are_small_varied_and_credited() -> None:
    folder = ROOT / "sample_images"
    files = sorted(folder.glob("*.png"))
    credits = (folder / "README.md").read_text("utf-8")
    modes = set()
    for path in files:
        assert f"`{path.name}`" in credits, f"{path.name}: no source and licence in the README"
        assert path.stat().st_size <= 120_000
        with Image.open(path) as image:
            modes.add(image.mode)
            assert f"{image.width}×{image.height}" in credits
    assert modes == {"L", "RGB", "RGBA"}
    assert len(files) == credits.count(".png` |")
