"""What code made something that is kept: digests of modules' files, read and not imported."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

from pytest_modelformats.convert.cache import key_of, sha256_of

# Each entry is a module, or a package for all that lies in it; one that does not exist raises.
# tests/convert/test_code_digest.py has every other file of the core. A system's files are in no list: they count
# through the imports of its declared modules, so that a new system needs no line here.
#
# Words and errors: every module imports them, and nothing is made by them.
WORDS = ("pytest_modelformats.errors", "pytest_modelformats.schema")
# What evaluates a source, beside the module of its format.
EVALUATE = (
    "pytest_modelformats.compare.noise",
    "pytest_modelformats.compare.noise_profile",
    "pytest_modelformats.compare.reference",
    "pytest_modelformats.compare.sampled",
    "pytest_modelformats.compare.weights_noise",
)
# What opens, calls and times a session, beside the module of its backend.
MEASURE = (
    "pytest_modelformats.measure.sampling",
    "pytest_modelformats.measure.conditions",
    "pytest_modelformats.run.workers",
)
# What no interpreter but pytest's own needs.
NOT_SHIPPED = ("pytest_modelformats.report",)


@cache
def module_digest(name: str) -> str:
    """The SHA-256 of a module's file, which need not be imported for it; "" where it has none."""
    file = _file_of(name)
    return sha256_of(file) if file is not None else ""


def modules_digest(names: tuple[str, ...]) -> str:
    """The SHA-256 of the files of modules, and of all files in packages.

    Raises: ModuleNotFoundError, for a name that has no file: a module that moved must not leave a key in silence.
    """
    return key_of({name: module_digest(name) for listed in names for name in files_of(listed)})


def files_of(name: str) -> dict[str, Path]:
    """The file of a module, or every module and its file of a package, by name.

    Raises: ModuleNotFoundError.
    """
    file = _file_of(name)
    if file is None:
        raise ModuleNotFoundError(f"{name} has no file: it moved, or its name is misspelt", name=name)
    if file.name != "__init__.py":
        return {name: file}
    found = {}
    for path in sorted(file.parent.rglob("*.py")):
        parts = path.relative_to(file.parent).with_suffix("").parts
        found[".".join((name, *(part for part in parts if part != "__init__")))] = path
    return found


def place_of(name: str) -> Path:
    """The file of a module, or the folder of a package.

    Raises: ModuleNotFoundError.
    """
    file = files_of(name)[name]
    return file.parent if file.name == "__init__.py" else file


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
        if module not in found and not _listed(module, WORDS):
            found[module] = module_digest(module)
            waiting += _imports(module)
    return key_of(found)


def _listed(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


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
