"""PyTorch modules as their authors keep them: weights with an architecture, pickled modules, constructors."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.errors import ConvertError, SourceError
from pytest_modelformats.schema import TensorSpec
from pytest_modelformats.schema.sizes import ARCHITECTURE, Dimension
from pytest_modelformats.source.free_dimensions import free
from pytest_modelformats.systems.torch.loading.archive import foreign_globals, is_legacy, is_safetensors, zip_entries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.schema import Description, Source
    from pytest_modelformats.schema.contract import Feed
    from pytest_modelformats.systems.torch.loading.load import Loaded


def sniff(path: Path, head: bytes) -> str | None:
    """Return ``state-dict`` or ``pickled-module`` by what the file's pickle would build; nothing is executed.

    Raises: SourceError where the file is PyTorch's and damaged.
    """
    if is_safetensors(head, path.stat().st_size):
        return "state-dict"
    entries = zip_entries(path, head)
    if entries is None:
        if not is_legacy(head):
            return None
    elif "data.pkl" not in entries or "constants.pkl" in entries or any(e.startswith("code/") for e in entries):
        return None
    return "pickled-module" if foreign_globals(path, head) else "state-dict"


def describe(source: Source) -> Description:
    """State the module's inputs and outputs, having run it on ones; raises SourceError, TrustError."""
    from pytest_modelformats.systems.torch.loading.load import load
    from pytest_modelformats.systems.torch.reference.code import code_digest
    from pytest_modelformats.systems.torch.reference.describing import complete_inputs, describe_module, state_digest

    loaded = load(source)
    architecture = loaded.architecture
    known = _known_inputs(loaded)
    inputs = complete_inputs(loaded.module, source.inputs or known, source.name or source.location)
    state = source.sha256 or state_digest(loaded.module)
    code = code_digest(loaded.module, *((architecture.file, architecture.reference) if architecture else ()))
    described = describe_module(
        loaded.module,
        inputs,
        hashlib.sha256(f"{state} {code}".encode()).hexdigest(),
        classifier=architecture.classifier if architecture else None,
        data=architecture.data if architecture else "",
        sizes=_known_sizes(inputs, known, architecture.reference if architecture else ""),
    )
    return replace(
        described, notes=(f"Its weights are the entry '{loaded.entry}' of the file.",) if loaded.entry else ()
    )


def _known_sizes(inputs: Sequence[TensorSpec], known: Sequence[TensorSpec], where: str) -> tuple[Dimension, ...]:
    """Return the sizes that the recipe or library states for dimensions that ``--mf-input`` leaves free."""
    found: dict[str, int] = {}
    for given, own in zip(inputs, known, strict=False):
        if len(given.shape or ()) == len(own.shape or ()):
            found |= {
                symbol: size
                for symbol, size in zip(given.shape or (), own.shape or (), strict=True)
                if isinstance(symbol, str) and isinstance(size, int)
            }
    return tuple(
        Dimension(symbol, *place, found[symbol], ARCHITECTURE, where)
        for symbol, place in free(inputs).items()
        if symbol in found
    )


def _known_inputs(loaded: Loaded) -> tuple[TensorSpec, ...]:
    """Return the inputs that the recipe or library states for the model; none where nobody does."""
    if loaded.architecture is not None and loaded.architecture.inputs:
        return tuple(TensorSpec.parse(text) for text in loaded.architecture.inputs)
    # timm's way to say what a model was trained on; its models carry it whoever constructs them.
    size = (getattr(loaded.module, "default_cfg", None) or {}).get("input_size")
    return (TensorSpec("", "float32", ("N", *map(int, size))),) if size else ()


def evaluate(source: Source, feeds: Sequence[Feed], precision: str) -> tuple[list[list[np.ndarray]], str]:
    """Return the module's outputs per feed at ``float64`` or a precision, and the method; raises Unsupported."""
    from pytest_modelformats.systems.torch.loading.load import load_module
    from pytest_modelformats.systems.torch.reference import numerics

    return numerics.evaluate(load_module(source), feeds, precision)


def check(artifact: Path) -> None:
    """Return where the file is whole; its weights are not loaded.  Raises: ConvertError."""
    with artifact.open("rb") as stream:
        head = stream.read(4096)
    try:
        kind = sniff(artifact, head)
    except SourceError as error:
        raise ConvertError(str(error)) from error
    if kind is None:
        msg = f"'{artifact.name}' is not a file of torch.save or safetensors"
        raise ConvertError(msg)
