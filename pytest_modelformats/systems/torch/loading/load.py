"""From a source of the PyTorch family to a module that can be called: the one place that loads.

Nothing that a file carries is executed unless the user trusts that file. Modules come back
in ``eval`` mode, on the CPU, with ``requires_grad`` off. The last one is kept, because
describe, evaluate, convert and open ask for the same source one after another.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import SourceError, TrustError
from pytest_modelformats.systems.torch.loading.architecture import (
    Architecture,
    by_reference,
    by_stem,
    importing_from,
    names_of,
)
from pytest_modelformats.systems.torch.loading.archive import foreign_globals, is_safetensors
from pytest_modelformats.systems.torch.loading.programs import first_line, load_exported, load_scripted

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from pytest_modelformats.schema import Source

_WRAPPERS = ("state_dict", "model", "model_state_dict")


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A module and, where one is known, the architecture that built it."""

    module: torch.nn.Module
    architecture: Architecture | None = None


def load_module(source: Source) -> torch.nn.Module:
    """Return the source as a module that is called with tensors.

    Raises: SourceError, TrustError.
    """
    return load(source).module


@lru_cache(maxsize=1)
def load(source: Source) -> Loaded:
    """Return the source's module together with its architecture.

    Raises: SourceError, TrustError.
    """
    with warnings.catch_warnings():
        # torch.jit says with every call that it is superseded; that is no news to a user who has such a file.
        warnings.simplefilter("ignore")
        loaded = _load(source)
    for parameter in loaded.module.parameters():  # ScriptModules refuse requires_grad_() as a whole
        parameter.requires_grad_(requires_grad=False)
    if source.kind != "pt2":  # an exported program has no modes: train() and eval() raise on it
        loaded.module.eval()
    return loaded


def _load(source: Source) -> Loaded:
    if source.kind == "torchscript":
        return Loaded(load_scripted(Path(source.location), trust=source.trust))
    if source.kind == "pt2":
        return Loaded(load_exported(Path(source.location), trust=source.trust)[1])
    if source.kind == "factory":
        architecture = by_reference(source.location, source.search_path)
        return Loaded(_build(architecture, source), architecture)
    content = _read(source)
    import torch

    if isinstance(content, torch.nn.Module):
        return Loaded(content)
    return _with_weights(source, _state_dict(source, content))


def _build(architecture: Architecture, source: Source) -> torch.nn.Module:
    import torch

    # Every process that loads a factory must get the same weights, or the cells would differ from their reference.
    with importing_from(source.search_path), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            module = architecture.build()
        except Exception as error:  # the user's own constructor: it may raise anything
            msg = f"'{architecture.reference}' raised while building the model ({type(error).__name__}: {error})"
            raise SourceError(msg) from error
    if not isinstance(module, torch.nn.Module):
        msg = f"'{architecture.reference}' returned a {type(module).__name__}; it must return a torch.nn.Module"
        raise SourceError(msg)
    return module


def _read(source: Source) -> Any:
    """Return what the file holds; the only call of ``torch.load``."""
    import pickle

    import torch

    path = Path(source.location)
    if not path.is_file():
        msg = f"'{source.location}' is not a file; give the path of a saved model"
        raise SourceError(msg)
    with path.open("rb") as stream:
        head = stream.read(4096)
    if is_safetensors(head, path.stat().st_size):
        return _read_safetensors(path)
    foreign = foreign_globals(path, head)
    try:
        with importing_from(source.search_path):
            return torch.load(path, map_location="cpu", weights_only=not source.trust)
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError, AttributeError, ImportError) as error:
        if foreign and not source.trust:
            names = ", ".join(foreign[:3]) + (" and others" if foreign[3:] else "")
            msg = (
                f"'{path.name}' holds Python objects ({names}) whose loading would run code; "
                "add --mf-trust to allow it for this file"
            )
            raise TrustError(msg) from error
        msg = f"'{path.name}' cannot be loaded ({first_line(error)}); save it again, best as a state_dict"
        raise SourceError(msg) from error


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        msg = f"'{path.name}' is a damaged safetensors file ({first_line(error)}); fetch or save it again"
        raise SourceError(msg) from error


def _state_dict(source: Source, content: Any) -> dict[str, torch.Tensor]:
    """Take a state_dict out of the wrappings that training scripts put around it."""
    import torch

    name = Path(source.location).name
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), (dict, torch.nn.Module)):
            content = content[key]
            break
    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    if not isinstance(content, dict) or not content or not any(isinstance(v, torch.Tensor) for v in content.values()):
        msg = (
            f"'{name}' holds a {type(content).__name__} and no state_dict or module; save model.state_dict(), "
            f"bare or under one of the keys {', '.join(_WRAPPERS)}"
        )
        raise SourceError(msg)
    if all(key.startswith("module.") for key in content):  # written by DataParallel
        return {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def _with_weights(source: Source, state: Mapping[str, torch.Tensor]) -> Loaded:
    """Build the architecture and fill it; every key and shape must match."""
    name = Path(source.location).name
    if source.arch:
        architecture = by_reference(source.arch, source.search_path)
        module = _build(architecture, source)
        refusal = _fill(module, state)
        if refusal:
            msg = f"the weights of '{name}' do not fit --mf-arch '{source.arch}': {refusal}"
            raise SourceError(msg)
        return Loaded(module, architecture)
    tried: list[str] = []
    for architecture in by_stem(Path(source.location).stem):
        module = _build(architecture, source)
        refusal = _fill(module, state)
        if not refusal:
            return Loaded(module, architecture)
        tried.append(f"{architecture.reference}: {refusal}")
    names = " or ".join(names_of(Path(source.location).stem))
    found = "; ".join(tried) if tried else f"no fixture, torchvision or timm model is called {names}"
    msg = (
        f"'{name}' holds weights without the code of their model ({found}); "
        "say what builds it with --mf-arch 'module:callable'"
    )
    raise SourceError(msg)


def _fill(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> str:
    """Load the weights strictly; return "" or, in a few words, what does not fit."""
    own = module.state_dict()
    for words, keys in (("lacks", own.keys() - state.keys()), ("does not know", state.keys() - own.keys())):
        if keys:
            return f"{'the file' if words == 'lacks' else 'the model'} {words} {_few(sorted(keys))}"
    try:
        module.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        return " ".join(str(error).split("\n")[1:2]).strip() or first_line(error)
    return ""


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if keys[3:] else "")
