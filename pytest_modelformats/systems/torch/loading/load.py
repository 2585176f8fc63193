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
from pytest_modelformats.systems.torch.loading import checkpoint
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
    from collections.abc import Sequence

    import torch

    from pytest_modelformats.schema import Source
    from pytest_modelformats.systems.torch.loading.checkpoint import State


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A module and, where one is known, the architecture that built it.

    ``entry`` is where in a checkpoint its weights lay, "" where the file holds nothing else.
    """

    module: torch.nn.Module
    architecture: Architecture | None = None
    entry: str = ""


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
    return _with_weights(source, _states(source, content))


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


def _states(source: Source, content: Any) -> list[tuple[str, State]]:
    """Every state_dict of the file, with the entry that it lies in; raises SourceError where there is none."""
    found = list(checkpoint.states(content))
    if not found:
        msg = (
            f"'{Path(source.location).name}' holds a {type(content).__name__} and no state_dict or module; save "
            "model.state_dict(), bare or as an entry of a dict"
        )
        raise SourceError(msg)
    return found


def _with_weights(source: Source, states: Sequence[tuple[str, State]]) -> Loaded:
    """Build the architecture and fill it; every key and shape must match."""
    name = Path(source.location).name
    if source.arch:
        architecture = by_reference(source.arch, source.search_path)
        module = _build(architecture, source)
        entry, refusal = _fill(module, states, name)
        if refusal:
            msg = f"the weights of '{name}' do not fit --mf-arch '{source.arch}': {refusal}"
            raise SourceError(msg)
        return Loaded(module, architecture, entry)
    tried: list[str] = []
    for architecture in by_stem(Path(source.location).stem):
        module = _build(architecture, source)
        entry, refusal = _fill(module, states, name)
        if not refusal:
            return Loaded(module, architecture, entry)
        tried.append(f"{architecture.reference}: {refusal}")
    names = " or ".join(names_of(Path(source.location).stem))
    found = "; ".join(tried) if tried else f"no fixture, torchvision or timm model is called {names}"
    msg = (
        f"'{name}' holds weights without the code of their model ({found}); "
        "say what builds it with --mf-arch 'module:callable'"
    )
    raise SourceError(msg)


def _fill(module: torch.nn.Module, states: Sequence[tuple[str, State]], name: str) -> tuple[str, str]:
    """Load the one state_dict that fits strictly; its entry, and "" or, in a few words, what does not fit.

    Raises: SourceError where several fit that are not equal.
    """
    own = module.state_dict()
    fitting = [(entry, state) for entry, state in states if not checkpoint.mismatch(own, state)]
    if len(fitting) > 1 and not checkpoint.same(fitting):
        entries = ", ".join(f"'{entry}'" if entry else "the file itself" for entry, _ in fitting)
        msg = (
            f"'{name}' holds {len(fitting)} different state_dicts that fit the model ({entries}); save the one that is "
            "meant in a file of its own"
        )
        raise SourceError(msg)
    if not fitting:
        entry, state = max(states, key=lambda found: len(own.keys() & found[1].keys()))
        said = checkpoint.mismatch(own, state)
        return entry, f"in its entry '{entry}' {said}" if entry else said
    entry, state = fitting[0]
    try:
        module.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        return entry, " ".join(str(error).split("\n")[1:2]).strip() or first_line(error)
    return entry, ""
