"""Public names of a package that load on first use (PEP 562), so that it is imported at once."""

import importlib
import sys
from collections.abc import Callable, Mapping


def loader(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of a package that has an `__all__`.

    Args:
        package: The package's dotted name.
        homes: Public name -> the module it lives in, or is.

    Returns:
        What loads a name, which raises AttributeError where the package has none such; and what
        lists the names, loaded or not, for completion and `help`.
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(homes[name])
        value = module if homes[name] == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, value)  # the next use does not come here
        return value

    def names() -> list[str]:
        there = vars(sys.modules[package])
        return sorted({*there, *there["__all__"]})

    return load, names
