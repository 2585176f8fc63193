"""The code that builds a model: given by name, or found by the name of the file of its weights."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import SourceError
from pytest_modelformats.source.shipped import fixture_models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import ModuleType


@dataclass(frozen=True, slots=True)
class Architecture:
    """A constructor and what its file says of the model.

    ``inputs`` are specifications as text; ``file`` is where the constructor stands, ""
    where it belongs to a library whose version says enough.
    """

    reference: str
    build: Callable[[], Any]
    inputs: tuple[str, ...] = ()
    data: str = ""
    classifier: bool | None = None
    file: str = ""


@contextmanager
def importing_from(search_path: Sequence[str]) -> Iterator[None]:
    """Put ``search_path`` in front of ``sys.path`` for the duration of the block."""
    before = list(sys.path)
    sys.path[:0] = search_path
    try:
        yield
    finally:
        sys.path[:] = before


def _import(name: str, search_path: Sequence[str]) -> ModuleType:
    if name.endswith(".py"):
        path = Path(name)
        # The full path is in the name: two recipes of one stem stay two modules.
        key = "modelformats_" + re.sub(r"\W", "_", str(path.resolve()))
        if key in sys.modules:
            return sys.modules[key]
        spec = importlib.util.spec_from_file_location(key, path)
        if spec is None or spec.loader is None or not path.is_file():
            msg = f"there is no Python file '{name}'"
            raise ImportError(msg)
        module = importlib.util.module_from_spec(spec)
        sys.modules[key] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[key]
            raise
        return module
    # A worker serves several models: 'model.py' of another folder may already be loaded under this name.
    root = name.partition(".")[0]
    found = PathFinder.find_spec(root, list(search_path)) if search_path else None
    if found is not None and root in sys.modules and getattr(sys.modules[root], "__file__", None) != found.origin:
        for loaded in [m for m in sys.modules if m == root or m.startswith(f"{root}.")]:
            del sys.modules[loaded]
        importlib.invalidate_caches()
    return importlib.import_module(name)


def import_callable(reference: str, search_path: Sequence[str] = ()) -> Any:
    """Return what ``package.module:callable`` or ``path/to/file.py:callable`` names.

    Raises: SourceError saying which half of the reference does not lead anywhere.
    """
    name, _, attribute = reference.rpartition(":")
    if not name or not attribute:
        msg = f"'{reference}' does not name a constructor; write 'package.module:callable'"
        raise SourceError(msg)
    with importing_from(search_path):
        try:
            target: Any = _import(name, search_path)
        except Exception as error:  # the user's own module: it may raise anything while it is imported
            msg = f"'{name}', which is to build the model, cannot be imported ({type(error).__name__}: {error})"
            raise SourceError(msg) from error
    for part in attribute.split("."):
        if not hasattr(target, part):
            msg = f"'{name}' has no '{attribute}'; name a function or class that returns the model, as in '{name}:Net'"
            raise SourceError(msg)
        target = getattr(target, part)
    return target


def by_reference(reference: str, search_path: Sequence[str] = ()) -> Architecture:
    """Return the architecture that ``reference`` names, with what its file says beside the constructor."""
    constructor = import_callable(reference, search_path)
    name = reference.rpartition(":")[0]
    module = sys.modules.get(getattr(constructor, "__module__", ""))
    stated: dict[str, Any] = vars(module) if module is not None else {}
    try:
        file = inspect.getsourcefile(constructor) or ""
    except TypeError:
        file = ""
    # A constructor's own statement comes first: a file may hold several.
    inputs = getattr(constructor, "INPUTS", stated.get("INPUTS", ()))
    data = stated.get("DATA", "")
    return Architecture(
        reference,
        constructor,
        tuple(inputs) if isinstance(inputs, (tuple, list)) and all(isinstance(i, str) for i in inputs) else (),
        f"{file if name.endswith('.py') else name}:{data}" if data and isinstance(data, str) else "",
        stated["CLASSIFIER"] if isinstance(stated.get("CLASSIFIER"), bool) else None,
        file,
    )


def names_of(stem: str) -> tuple[str, ...]:
    """The names a file of weights may stand for: ``resnet50-0676ba61`` is also ``resnet50``."""
    ends = [match.start() for match in re.finditer(r"[-_.]", stem) if match.start()]
    return (stem, *(stem[:end] for end in reversed(ends)))


def by_stem(stem: str) -> Iterator[Architecture]:
    """Yield every architecture that the name of the file may mean, the longest name first."""
    names = names_of(stem)
    recipes = fixture_models()
    for name in names:
        if name in recipes:
            yield by_reference(recipes[name])
    yield from _torchvision(names)
    yield from _timm(names)


def _torchvision(names: Sequence[str]) -> Iterator[Architecture]:
    try:
        from torchvision import models
    except (ImportError, RuntimeError):  # a torchvision built for another torch raises RuntimeError
        return
    known = set(models.list_models(module=models))
    for name in names:
        if name in known:
            side = 299 if name.startswith("inception") else 224
            build = models.get_model_builder(name)
            yield Architecture(f"torchvision.models:{name}", build, (f"float32[N,3,{side},{side}]",))


def _timm(names: Sequence[str]) -> Iterator[Architecture]:
    try:
        import timm
    except (ImportError, RuntimeError):
        return
    for name in names:
        if timm.is_model(name):
            yield Architecture(f"timm:{name}", partial(timm.create_model, name, pretrained=False))
