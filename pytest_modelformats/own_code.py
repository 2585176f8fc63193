"""What code made something that is kept: digests of modules' files, read and not imported."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

from pytest_modelformats.cache import key_of, sha256_of

# Words and errors: every module imports them, and nothing is made by them.
_MAKE_NOTHING = frozenset(f"pytest_modelformats.{name}" for name in ("contract", "errors", "schema"))


@cache
def module_digest(name: str) -> str:
    """The SHA-256 of a module's file, which need not be imported for it; "" where it has none."""
    file = _file_of(name)
    return sha256_of(file) if file is not None else ""


@cache
def imported_digest(name: str) -> str:
    """The SHA-256 of a module's file and of all that it imports, at any place, from its own top-level package.

    What it imports from elsewhere is a library, which has a version; "" where the module has no file.
    """
    if _file_of(name) is None:
        return ""
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module not in found and module not in _MAKE_NOTHING:
            found[module] = module_digest(module)
            waiting += _imports(module)
    return key_of(found)


def _imports(name: str) -> list[str]:
    """The modules with a file that a module imports from its own top-level package."""
    file = _file_of(name)
    if file is None:
        return []
    inside = f"{name.partition('.')[0]}."
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    asked = []
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            asked += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            asked += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [module for module in dict.fromkeys(asked) if module.startswith(inside) and _file_of(module) is not None]


def _file_of(name: str) -> Path | None:
    """A module's file, found as a file: to ask the import system for ``a.b.c`` would import ``a.b``."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or (rest and spec.submodule_search_locations is None):
        return None
    if not rest:
        origin = Path(spec.origin or "")
        return origin if origin.is_file() else None
    places = [Path(place).joinpath(*rest) for place in spec.submodule_search_locations or ()]
    files = [file for place in places for file in (place / "__init__.py", place.with_name(f"{place.name}.py"))]
    return next((file for file in files if file.is_file()), None)
