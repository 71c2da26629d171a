"""The house has floors: a module imports only from lower ones, and cheap rooms stay cheap."""

import ast
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.places import PACKAGE, ROOT

STOREYS = (  # from the ground up
    {"errors", "folders", "lazy", "limits", "locks", "threads"},
    {"processes", "scheduler", "store"},
    {"atomic", "cluster", "config", "device", "image", "parallel", "psnr", "quality", "ssim"},
    {"container", "quantize"},  # bytes; the paper
    {"model"},  # floats
    {"exact"},  # integers
    {"zoo"},
    {"windows"},
    {"patching", "tilefilters", "refinement"},
    {"encoder", "decoder"},
    {"codec", "target", "verify"},
    {"", "api", "evaluate", "train"},  # "" is __init__.py: it names things lazily
    {"pillow"},
    {"cli"},
    {"__main__"},
)
FLOORS = {name: floor for floor, names in enumerate(STOREYS) for name in names}
# The end of a training run checks what it exports with the codec; the loop does not know it.
EXPORTING = "diveqcodec.train.exporting"
# Bytes and pixels know no networks: all that these rooms may import from outside the package and
# the standard library.
OUTSIDE = {
    "": set(),
    "atomic": set(),
    "errors": set(),
    "folders": set(),
    "lazy": set(),
    "limits": set(),
    "locks": set(),
    "processes": set(),
    "threads": set(),
    "store": {"fsspec"},
    "cluster": {"dask", "distributed"},
    "scheduler": {"distributed"},
    "psnr": {"numpy"},
    "config": set(),
    "container": {"numpy", "PIL", "constriction"},
    "quality": {"torch"},  # for type checkers only
    "image": {"numpy", "PIL"},
    "image.kinds": set(),  # a module of a room that may more
    "image.frames": set(),
    "image.tiff": set(),
    "target": set(),
    "verify": {"numpy"},
}


@dataclass(frozen=True, slots=True)
class Import:
    """`target` is a module of the package (diveqcodec.…) or the first name of another one."""

    target: str
    is_at_once: bool  # at the top of a module, and not for type checkers only
    is_for_types: bool


def module_name(path: Path, package: Path = PACKAGE) -> str:
    """diveqcodec/cli/info.py -> diveqcodec.cli.info; an __init__.py has its folder's name."""
    parts = (package.name, *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """diveqcodec.cli.info -> cli; diveqcodec -> the empty string."""
    return module.partition(".")[2].partition(".")[0]


def is_ours(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE.name


def all_imports(package: Path = PACKAGE) -> dict[str, list[Import]]:
    paths = {module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    return {
        module: [
            Import(target, is_at_once, is_for_types)
            for name, is_at_once, is_for_types in imported_names(path, module)
            if (target := resolve(name, set(paths)))
        ]
        for module, path in paths.items()
    }


def imported_names(path: Path, module: str) -> Iterator[tuple[str, bool, bool]]:
    """Every dotted name that a file imports anywhere, (name, at once, for types only)."""
    pending: list[tuple[ast.AST, bool, bool]] = [(ast.parse(path.read_text("utf-8")), True, False)]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    while pending:
        node, at_once, for_types = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_once, for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield from ((f"{base}.{alias.name}", at_once, for_types) for alias in node.names)
        elif is_import_module_of_a_literal(node):
            yield node.args[0].value, at_once, for_types  # type: ignore[attr-defined]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            at_once = False
        types_below = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            is_else = isinstance(node, ast.If) and child in node.orelse
            only_types = for_types or (types_below and not is_else)
            pending.append((child, at_once and not only_types, only_types))


def is_import_module_of_a_literal(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("import_module")
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    )


def resolve(name: str, modules: set[str]) -> str:
    """`diveqcodec.image.load` -> diveqcodec.image; numpy.linalg -> numpy; the free ones -> ""."""
    if not is_ours(name):
        first = name.partition(".")[0]
        return "" if first in sys.stdlib_module_names else first
    if name == f"{PACKAGE.name}.__version__":
        return ""
    while name not in modules:
        shorter = name.rpartition(".")[0]
        if shorter == PACKAGE.name:  # a module not written yet, or a name of the package itself
            return name if room(name) in FLOORS else shorter
        name = shorter
    return name


def reach(imports: dict[str, list[Import]], start: str, only_at_once: bool) -> dict[str, str]:
    """Everything that importing `start` brings: target -> the path of modules that leads there."""
    found = {start: start}
    pending = [start]
    while pending:
        module = pending.pop()
        parents = [module.rsplit(".", depth)[0] for depth in range(1, module.count(".") + 1)]
        lazy_too = not (only_at_once or module == PACKAGE.name)  # the package only names things
        targets = [
            item.target
            for item in imports.get(module, [])
            if item.is_at_once or (lazy_too and not item.is_for_types)
        ]
        for target in [*parents, *targets]:
            if target not in found:
                found[target] = f"{found[module]} -> {target}"
                pending.append(target)
    return found


IMPORTS = all_imports()


def test_every_module_stands_on_a_floor() -> None:
    homeless = [module for module in IMPORTS if room(module) not in FLOORS]
    assert not homeless, f"give these a floor in {Path(__file__).name}: {homeless}"


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_imports_come_from_lower_floors(module: str) -> None:
    here = room(module)
    for item in IMPORTS[module]:
        there = room(item.target)
        if not is_ours(item.target) or there == here or (here == "" and not item.is_at_once):
            continue
        assert FLOORS[there] < FLOORS[here], (
            f"{module} (floor {FLOORS[here]}) imports {item.target} (floor {FLOORS[there]})"
        )


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_cheap_rooms_import_only_what_they_may(module: str) -> None:
    outside = {item.target for item in IMPORTS[module] if not is_ours(item.target)}
    allowed = OUTSIDE.get(room(module), outside)
    assert outside <= OUTSIDE.get(module.partition(".")[2], allowed)


@pytest.mark.parametrize(
    ("rooms", "banned", "only_at_once"),
    [
        ({"train", "evaluate"}, {"click"}, False),
        ({"train"}, {"compressai", "constriction"}, False),
        ({"codec", "zoo", "pillow"}, {"compressai", "torchvision", "matplotlib"}, False),
        (
            {"", "cli", "pillow", "quality", "__main__"},
            {"torch", "compressai", "torchvision"},
            True,
        ),
    ],
)
def test_no_path_of_imports_leads_to(rooms: set[str], banned: set[str], only_at_once: bool) -> None:
    for module in IMPORTS:
        if room(module) in rooms and module != EXPORTING:
            found = reach(IMPORTS, module, only_at_once)
            assert not banned & found.keys(), [found[name] for name in banned & found.keys()]


def test_nothing_imports_the_scripts_or_the_tests() -> None:
    for module, items in IMPORTS.items():
        assert not {"scripts", "tests", "conftest"} & {item.target for item in items}, module


def test_cheap_rooms_start_without_torch() -> None:
    """The same as above, asked of Python itself: dictionaries of lazy names cannot hide from it."""
    cheap = {"", "cli", "container", "pillow", "zoo", *OUTSIDE}
    modules = [name for name in IMPORTS if room(name) in cheap]
    modules += ["diveqcodec.model.config", "diveqcodec.exact.metadata"]
    code = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "print([name for name in ('torch', 'torchvision', 'compressai') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr


def test_a_public_class_has_a_name_of_its_own() -> None:
    """So that a name found anywhere is one thing; private ones belong to their module."""
    homes: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module_name(path))
    assert not {name: places for name, places in homes.items() if len(places) > 1}


def test_no_test_imports_from_another() -> None:
    """What tests share stands in tests/support, so that each module of tests can be read alone."""
    folder = ROOT / "tests"
    for path in folder.rglob("*.py"):
        names = [name for name, _, _ in imported_names(path, module_name(path, folder))]
        assert not [name for name in names if is_of_a_test(name)], path


def is_of_a_test(name: str) -> bool:
    """tests.cli.test_batch.touch -> yes; tests.support.plans.touch -> no."""
    first, *rest = name.split(".")
    return first == "tests" and any(part.startswith("test_") for part in rest)


# The walk itself, on a small package of known sins.

SINS = {
    "__init__.py": "import importlib\ndef f(): importlib.import_module('diveqcodec.codec')\n",
    "bitstream.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n",
    "image.py": "from . import model\n",
    "model.py": "def f():\n    import diveqcodec.exact\n    from compressai.zoo import models\n",
    "train/__init__.py": "",
    "train/loop.py": "from ..model import Model\nfrom .losses import rate\n",
    "train/losses.py": "import torch.nn\n",
    "attic.py": "",
}


@pytest.fixture
def sinful(tmp_path: Path) -> dict[str, list[Import]]:
    package = tmp_path / PACKAGE.name
    for name, text in SINS.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return all_imports(package)


def test_the_walk_sees_every_kind_of_import(sinful: dict[str, list[Import]]) -> None:
    assert sinful == {
        "diveqcodec": [Import("diveqcodec.codec", False, False)],
        "diveqcodec.attic": [],
        "diveqcodec.bitstream": [Import("torch", False, True)],
        "diveqcodec.image": [Import("diveqcodec.model", True, False)],
        "diveqcodec.model": [
            Import("compressai", False, False),
            Import("diveqcodec.exact", False, False),
        ],
        "diveqcodec.train": [],
        "diveqcodec.train.loop": [
            Import("diveqcodec.train.losses", True, False),
            Import("diveqcodec.model", True, False),
        ],
        "diveqcodec.train.losses": [Import("torch", True, False)],
    }


def test_the_walk_follows_imports(sinful: dict[str, list[Import]]) -> None:
    everything = reach(sinful, "diveqcodec.train.loop", only_at_once=False)
    assert everything["compressai"] == ("diveqcodec.train.loop -> diveqcodec.model -> compressai")
    assert "torch" in everything  # through train.losses
    assert "diveqcodec.codec" not in everything  # what the package names lazily is not loaded
    at_once = reach(sinful, "diveqcodec.train.loop", only_at_once=True)
    assert "torch" in at_once
    assert "compressai" not in at_once
    assert "torch" not in reach(sinful, "diveqcodec.bitstream", only_at_once=False)


def test_every_dependency_is_imported_and_every_import_installed() -> None:
    """What nothing here imports is not asked for; torchvision, say, serves compressai alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    core = {Requirement(text).name for text in project["dependencies"]}
    found = {
        item.target for items in IMPORTS.values() for item in items if not is_ours(item.target)
    }
    found = {{"PIL": "pillow"}.get(name, name) for name in found - set(sys.stdlib_module_names)}
    assert not core - found, "nothing imports these"
    extras = project["optional-dependencies"]
    extra = {Requirement(text).name for name in ("eval", "cluster") for text in extras[name]}
    assert not found - core - extra, "these are not installed with the package"


def test_modules_stay_short() -> None:
    """A module is read in one go: 400 lines at most, and half of them below 150."""
    lines = {path: path.read_text("utf-8").count("\n") for path in PACKAGE.rglob("*.py")}
    assert not {path.name: count for path, count in lines.items() if count > 400}
    assert statistics.median(lines.values()) <= 150
