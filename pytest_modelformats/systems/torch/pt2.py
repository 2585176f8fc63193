"""Exported programs: what ``torch.export.save`` writes, a graph of operators with its shapes and signature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConvertError, SourceError
from pytest_modelformats.schema import TensorSpec
from pytest_modelformats.systems.torch.loading.archive import zip_entries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.schema import Description, Source
    from pytest_modelformats.schema.contract import Feed


_OLD_RECORD = "serialized_exported_program.json"


def sniff(path: Path, head: bytes) -> str | None:
    """Return ``pt2`` for a zip with an exported program; raises SourceError where it is damaged."""
    entries = zip_entries(path, head)
    if entries is None:
        return None
    new = "archive_format" in entries and any(entry.startswith("models/") for entry in entries)
    return "pt2" if new or _OLD_RECORD in entries else None


def stated_inputs(program: Any) -> tuple[TensorSpec, ...]:
    """Return the program's own inputs, in order; a dynamic dimension is the letter of its symbol.

    The symbol of the first dimension of the first input, mostly the batch, is called ``N``.
    """
    import torch

    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    named: list[tuple[str, Any]] = [(str(n), values.get(n)) for n in program.graph_signature.user_inputs]
    foreign = [name for name, value in named if not isinstance(value, torch.Tensor)]
    if foreign:
        msg = (
            f"the exported program takes '{foreign[0]}', which is no tensor; export it with tensors as its only inputs"
        )
        raise SourceError(msg)
    batch = _batch_symbol(program)
    return tuple(_spec(name, value, batch) for name, value in named)


def stated_outputs(program: Any) -> tuple[TensorSpec, ...]:
    """Return the program's outputs without ``None``; their names are the keys of a dict, otherwise not stated."""
    import torch
    from torch.utils import _pytree as pytree

    node = next(node for node in program.graph.nodes if node.op == "output")
    values = {n.name: n.meta.get("val") for n in node.all_input_nodes}
    flat = [values.get(str(name)) for name in program.graph_signature.user_outputs]
    keyed = pytree.tree_unflatten(flat, program.call_spec.out_spec)
    names = list(keyed) if isinstance(keyed, dict) and len(keyed) == len(flat) else [""] * len(flat)
    batch = _batch_symbol(program)
    return tuple(
        _spec(str(name), value, batch)
        for name, value in zip(names, flat, strict=True)
        if isinstance(value, torch.Tensor)
    )


def _batch_symbol(program: Any) -> str:
    """Return the program's own symbol of the first dimension of its first input, "" where that is fixed."""
    first = next(iter(program.graph_signature.user_inputs), "")
    value = next(node.meta.get("val") for node in program.graph.nodes if node.name == first)
    dims = list(value.shape[:1])
    return str(dims[0]) if dims and not isinstance(dims[0], int) else ""


def _spec(name: str, value: Any, batch: str) -> TensorSpec:
    dims = tuple(d if isinstance(d, int) else "N" if str(d) == batch else str(d) for d in value.shape)
    return TensorSpec(name, str(value.dtype).removeprefix("torch."), dims)


def describe(source: Source) -> Description:
    """State what the file holds of inputs and outputs; raises SourceError, TrustError."""
    from pathlib import Path

    from pytest_modelformats.systems.torch.loading.load import load_module
    from pytest_modelformats.systems.torch.loading.programs import load_exported
    from pytest_modelformats.systems.torch.reference.describing import complete_inputs, describe_module

    module = load_module(source)
    inputs = source.inputs or stated_inputs(load_exported(Path(source.location), trust=source.trust)[0])
    return describe_module(module, complete_inputs(module, inputs, source.name or source.location), source.sha256)


def evaluate(source: Source, feeds: Sequence[Feed], precision: str) -> tuple[list[list[np.ndarray]], str]:
    """Return the outputs per feed at ``float64`` or a precision, and the method; raises Unsupported."""
    from pytest_modelformats.systems.torch.loading.load import load_module
    from pytest_modelformats.systems.torch.reference import numerics

    return numerics.evaluate(load_module(source), feeds, precision)


def check(artifact: Path) -> None:
    """Return where torch loads the program back and its graph is well-formed; raises ConvertError."""
    from pytest_modelformats.systems.torch.loading.programs import load_exported

    try:
        load_exported(artifact, trust=True)[0].graph_module.graph.lint()
    except (SourceError, RuntimeError) as error:
        msg = f"torch does not accept the exported program it wrote: {error}"
        raise ConvertError(msg) from error
