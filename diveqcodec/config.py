"""Configuration dataclasses <-> nested dicts of plain values, with errors that help.

Knows nothing of what is configured.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from typing import Any, Literal, TypeVar

from diveqcodec.errors import ConfigError

T = TypeVar("T")


def from_dict(cls: type[T], values: dict[str, Any], prefix: str = "") -> T:
    """Build the dataclass `cls` from nested dicts; missing keys keep their defaults."""
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = (
                f"; did you mean {prefix}{close[0]}?" if close else f"; known: {', '.join(known)}"
            )
            raise ConfigError(f"unknown key {prefix}{key}{hint}")
        arguments[key] = _convert(hints[key], value, prefix + key)
    return cls(**arguments)


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dicts of plain values, the inverse of `from_dict`."""
    values: dict[str, Any] = {}
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        values[entry.name] = list(value) if isinstance(value, tuple) else value
    return values


def _convert(hint: Any, value: Any, name: str) -> Any:
    """Check `value` against the annotation `hint` and convert lists to tuples."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{name}: is a section, not a value")
        return from_dict(hint, value, name + ".")
    if origin is Literal:
        allowed = typing.get_args(hint)
        if value not in allowed:
            raise ConfigError(f"{name}: {value!r} is not one of {', '.join(map(repr, allowed))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{name}: expected a list, got {value!r}")
        inner = typing.get_args(hint)
        if inner[-1] is not Ellipsis and len(inner) != len(value):
            raise ConfigError(f"{name}: expected {len(inner)} values, got {len(value)}")
        return tuple(_convert(inner[0], v, name) for v in value)
    if origin is types.UnionType:
        raise ConfigError(f"{name}: cannot be set")
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, name)
    if isinstance(value, bool) and hint is not bool or not isinstance(value, hint):
        raise ConfigError(f"{name}: expected {hint.__name__}, got {value!r}")
    return value


def _finite(value: float, name: str) -> float:
    """A number as a float; TOML and JSON know some that are none."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"{name}: expected a finite number, got {str(value)[:20]}")
    return number
