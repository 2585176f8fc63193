"""TorchScript: a module traced or compiled to torch's own interpreter, as ``torch.jit.save`` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConvertError, SourceError
from pytest_modelformats.schema import TensorSpec
from pytest_modelformats.source import metadata_sizes
from pytest_modelformats.systems.torch.loading.archive import extra_files, zip_entries

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from pytest_modelformats.schema import Description, Source
    from pytest_modelformats.schema.contract import Feed


def sniff(path: Path, head: bytes) -> str | None:
    """Return ``torchscript`` for a zip with code and constants; raises SourceError where it is damaged."""
    entries = zip_entries(path, head)
    if entries is None or "constants.pkl" not in entries:
        return None
    return "torchscript" if any(entry.startswith("code/") for entry in entries) else None


def stated_inputs(module: Any) -> tuple[TensorSpec, ...]:
    """Return the tensors that ``forward`` takes; dtype and shape are "" and ``None`` where the graph has none."""
    graph_inputs = list(module.graph.inputs())[1:]
    arguments = list(module._c._get_method("forward").schema.arguments)[1:]  # noqa: SLF001 - the only way to them
    stated = []
    for argument, value in zip(arguments, graph_inputs, strict=True):
        kind = value.type()
        tensor = kind.kind() == "TensorType"
        sizes = kind.sizes() if tensor else None
        dtype = str(kind.dtype()).removeprefix("torch.") if tensor and kind.dtype() is not None else ""
        stated.append(TensorSpec(argument.name, dtype, None if sizes is None else tuple(sizes)))
    return tuple(stated)


def describe(source: Source) -> Description:
    """State the inputs, mostly given with ``--mf-input``, and the outputs; raises SourceError, TrustError."""
    from pytest_modelformats.systems.torch.loading.load import load_module
    from pytest_modelformats.systems.torch.reference.describing import complete_inputs, describe_module

    module = load_module(source)
    inputs = source.inputs
    if not inputs:
        stated = stated_inputs(module)
        inputs = stated if all(spec.dtype and spec.shape is not None for spec in stated) else ()
    complete = complete_inputs(module, inputs, source.name or source.location)
    notes = extra_files(Path(source.location), metadata_sizes.LONGEST)
    return describe_module(module, complete, source.sha256, sizes=metadata_sizes.dimensions(complete, notes))


def evaluate(source: Source, feeds: Sequence[Feed], precision: str) -> tuple[list[list[np.ndarray]], str]:
    """Return the outputs per feed at ``float64`` or a precision, and the method; raises Unsupported."""
    from pytest_modelformats.systems.torch.loading.load import load_module
    from pytest_modelformats.systems.torch.reference import numerics

    return numerics.evaluate(load_module(source), feeds, precision)


def check(artifact: Path) -> None:
    """Return where torch loads the file and its graph is well-formed; raises ConvertError."""
    from pytest_modelformats.systems.torch.loading.programs import load_scripted

    try:
        load_scripted(artifact, trust=True).inlined_graph.lint()
    except (SourceError, RuntimeError) as error:
        msg = f"torch does not accept the TorchScript it wrote: {error}"
        raise ConvertError(msg) from error
