"""What decides what a torch module computes besides its weights: its structure, its settings and its code.

Two modules of the same weights are different models where one has GELU for ReLU, another stride, or a helper function
that was edited. All of it enters a digest, so that the results of one are never taken for the other's.
"""

from __future__ import annotations

import argparse
import enum
import functools
import hashlib
import inspect
import sys
import sysconfig
import types
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    Inside = Callable[[Any], str]

# What the state of a module holds; the tree of modules is walked on its own.
_PARTS = frozenset({"_parameters", "_buffers", "_modules"})
_PLAIN = (enum.Enum, type(None), bool, int, float, complex, str, bytes, type(...), range, slice)
# Attributes within attributes; a list of nodes that are linked with one another has no end otherwise.
_DEEPEST = 32
_OURS = "pytest_modelformats"


def code_digest(module: torch.nn.Module, file: str = "", constructor: str = "") -> str:
    """The SHA-256 over everything but the state that decides what a module computes.

    That is the tree of modules with every attribute of each (settings, functions, unregistered tensors and modules,
    buffers that are not saved, hooks), and the source of their classes: for the user's own code the whole files, with
    those of the user's that they import. ``file`` is one more of these, and ``constructor`` what in it built the
    module; both "" where there is none.
    """
    digest = hashlib.sha256(constructor.rpartition(":")[2].encode())
    for text in (*_Teller().structure(module), *sorted(_sources(module, file))):
        digest.update(f"\0{text}".encode(errors="backslashreplace"))
    return digest.hexdigest()


class _Teller:
    """Says of objects what they hold, in words that are the same in every process; of each one once."""

    def __init__(self) -> None:
        # The objects are kept, so that no other one gets their id.
        self._told: dict[int, tuple[int, Any]] = {}

    def structure(self, module: torch.nn.Module) -> Iterator[str]:
        """The modules of the tree with their attributes; of parameters and buffers what the state does not hold."""
        tree = list(module.named_modules(remove_duplicate=False))
        for _, part in tree:
            self._is_new(part)
        for name, part in tree:
            # The only ways to what is registered, and to what is not saved.
            unsaved = {n: part._buffers.get(n) for n in sorted(part._non_persistent_buffers_set)}  # noqa: SLF001
            own = {n: v for n, v in vars(part).items() if n not in _PARTS}
            told = {n: list(v.values()) if _are_hooks(n, v) else v for n, v in own.items()}
            yield f"{name}: {_name(type(part))} {self.said(told)} {self.said(unsaved)} {list(part._modules)}"  # noqa: SLF001

    def said(self, value: Any, depth: int = 0) -> str:
        """One value in words."""
        kind = type(value)
        if isinstance(value, _PLAIN):
            return f"{_name(kind)}.{value.name}" if isinstance(value, enum.Enum) else repr(value)
        if isinstance(value, type):
            return _name(value)
        if isinstance(value, PurePath | types.ModuleType):
            return f"<{_name(kind)} {getattr(value, '__name__', value)}>"
        # Two tuples that are equal may or may not be one object.
        if not isinstance(value, tuple | frozenset) and not self._is_new(value):
            return f"<{_name(kind)} {self._told[id(value)][0]}>"
        # The user's own object: asked for its items or its words, it may raise anything.
        with suppress(Exception):
            if depth < _DEEPEST:
                return self._compound(value, functools.partial(self.said, depth=depth + 1))
        return f"<{_name(kind)}>"

    def _compound(self, value: Any, inside: Inside) -> str:
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{inside(k)}: {inside(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list | tuple | set | frozenset):
            texts = [inside(v) for v in value]
            return f"{_name(type(value))}[{', '.join(sorted(texts) if isinstance(value, set | frozenset) else texts)}]"
        if isinstance(value, functools.partial):
            return f"partial({inside(value.func)}, {inside(value.args)}, {inside(value.keywords)})"
        if isinstance(value, types.MethodType):
            return f"{inside(value.__self__)}.{inside(value.__func__)}"
        if isinstance(value, types.FunctionType):
            return _function(value, inside)
        return _array(value) or _object(value, inside)

    def _is_new(self, value: Any) -> bool:
        before = len(self._told)
        self._told.setdefault(id(value), (before, value))
        return len(self._told) > before


def _are_hooks(name: str, value: Any) -> bool:
    """Hooks are kept under numbers that count all hooks of a process; what counts is the functions."""
    return name.startswith("_") and "_hooks" in name and isinstance(value, Mapping)


def _name(of: Any) -> str:
    return f"{of.__module__}.{of.__qualname__}"


def _function(function: types.FunctionType, inside: Inside) -> str:
    """Its source, or its code where there is none, with what it has closed over."""
    held = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        text = function.__code__.co_code.hex()
    # Two lambdas of one line have the same source.
    constants = tuple(c for c in function.__code__.co_consts if not isinstance(c, types.CodeType))
    names = (*function.__code__.co_names, *function.__code__.co_freevars)
    return (
        f"{_name(function)}({text}, {inside((constants, names, held, function.__defaults__, function.__kwdefaults__))})"
    )


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - it raises where nothing is in it yet
    except ValueError:
        return False
    return True


def _array(value: Any) -> str:
    """A tensor or an array by its bytes, "" for anything else."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        head = f"tensor {value.dtype} {tuple(value.shape)} {value.layout}"
        try:
            plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        except (RuntimeError, NotImplementedError, TypeError):  # sparse, quantized, or without storage
            return head
        return f"{head} {hashlib.sha256(plain.tobytes()).hexdigest()}"
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"array {value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    return ""


def _object(value: Any, inside: Inside) -> str:
    """By its attributes, its name or its own words, or by its type alone where these hold an address."""
    own = getattr(value, "__dict__", None)
    library = type(value).__module__.partition(".")[0] in sys.stdlib_module_names
    if library and not isinstance(value, types.SimpleNamespace | argparse.Namespace):
        own = {}  # a logger holds all others, with their streams
    if own:
        return f"{_name(type(value))}({inside(dict(own))})"
    name = getattr(value, "__qualname__", None)  # of torch.relu, say
    text = str(name) if name else repr(value)
    wrapped = inside(getattr(value, "__wrapped__", None))
    return f"<{_name(type(value))} {'' if ' at 0x' in text else text} {wrapped}>"


def _sources(module: torch.nn.Module, file: str) -> set[str]:
    """The texts that the classes of the tree are written in."""
    texts = {Path(file).read_text(encoding="utf-8", errors="replace")} if file else set()
    begun: set[str] = set()
    files = {Path(file).resolve()} if file else set()
    names = {name for name, loaded in tuple(sys.modules.items()) if _file_of(loaded) in files} if file else set()
    for part in module.modules():
        for cls in type(part).__mro__:
            if cls is object or cls.__module__.partition(".")[0] == "torch":
                continue
            loaded = sys.modules.get(cls.__module__)
            if loaded is not None and _is_own(loaded):
                names.add(cls.__module__)
                continue
            try:
                texts.add(inspect.getsource(cls))
            except (OSError, TypeError):
                texts.add(_name(cls))
    while names:
        name = names.pop()
        begun.add(name)
        loaded = sys.modules[name]
        path = _file_of(loaded)
        if path is not None and path.suffix == ".py":
            texts.add(path.read_text(encoding="utf-8", errors="replace"))
        names |= {n for n in _imported(loaded) if n not in begun}
    return texts


def _imported(module: types.ModuleType) -> Iterator[str]:
    """The user's own modules that one refers to, by name, by what it took from them, or as its package."""
    for value in tuple(vars(module).values()):
        name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
        other = sys.modules.get(name) if isinstance(name, str) else None
        if other is not None and _is_own(other):
            yield other.__name__


def _file_of(module: Any) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) else None


@functools.cache
def _libraries() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple({Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _is_own(module: types.ModuleType) -> bool:
    """Whether a module is the user's own code: in a file that is neither Python's nor an installed package's."""
    path = _file_of(module)
    if path is None or module.__name__.partition(".")[0] == _OURS:
        return False
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return not installed and not any(path.is_relative_to(library) for library in _libraries())
