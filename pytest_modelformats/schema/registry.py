"""Names of formats, converters and backends, resolved on first use.

Adding a system is one folder under ``systems/`` and one word here. An outside package registers ``module:attribute``
of a declaration (:class:`~.schema.Format`, :class:`~.schema.Converter`, :class:`~.schema.Backend`) through the
entry-point groups ``modelformats.formats``, ``modelformats.converters`` and ``modelformats.backends``.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, TypeVar

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema.system import Backend, Converter, Format

# One word per family, and a folder of that name in ``systems/`` with a ``declared.py``: its FORMATS, CONVERTERS and
# BACKENDS, as far as it has them.
SYSTEMS = ("torch", "onnx", "onnxruntime", "openvino", "golden")

_T = TypeVar("_T", Format, Converter, Backend)


def resolve(reference: str) -> Any:
    """Import ``module:attribute`` and return the attribute, which may be one of an attribute; or the module alone."""
    module, _, attribute = reference.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part)
    return found


def _own(kind: str, expected: type[_T]) -> dict[str, tuple[str, _T]]:
    """Our own declarations of a kind by name, each with where it is declared."""
    found: dict[str, tuple[str, _T]] = {}
    for system in SYSTEMS:
        module = f"pytest_modelformats.systems.{system}.declared"
        for declaration in getattr(importlib.import_module(module), kind.upper(), ()):
            if declaration.name in found:
                both = f"{found[declaration.name][0]} and {module}"
                msg = f"{both} declare the {kind[:-1]} '{declaration.name}'; rename one"
                raise ConfigurationError(msg)
            found[declaration.name] = (module, _checked(kind, declaration.name, declaration, expected, module))
    return found


def _checked(kind: str, name: str, declaration: Any, expected: type[_T], where: str) -> _T:
    if not isinstance(declaration, expected) or declaration.name != name:
        msg = f"{where}, registered as the {kind[:-1]} '{name}', is not a {expected.__name__} of that name"
        raise ConfigurationError(msg)
    return declaration


def _load(kind: str, expected: type[_T]) -> dict[str, _T]:
    from importlib.metadata import entry_points

    found = _own(kind, expected)
    for entry in entry_points(group=f"modelformats.{kind}"):
        if entry.name in found:
            both = f"{found[entry.name][0]} and {entry.value}"
            msg = f"two packages register the {kind[:-1]} '{entry.name}': {both}; uninstall one"
            raise ConfigurationError(msg)
        found[entry.name] = (entry.value, _checked(kind, entry.name, resolve(entry.value), expected, entry.value))
    return {name: declaration for name, (_, declaration) in found.items()}


@cache
def formats() -> dict[str, Format]:
    """Every format by name."""
    return _load("formats", Format)


@cache
def converters() -> dict[str, Converter]:
    """Every converter by name."""
    return _load("converters", Converter)


@cache
def backends() -> dict[str, Backend]:
    """Every backend by name."""
    return _load("backends", Backend)
