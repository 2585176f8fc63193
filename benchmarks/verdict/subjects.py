"""A subject: an architecture with the correct artifacts that the product's own converters make of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.verdict import networks

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from torch import nn

    from pytest_modelformats.schema import Description, Source


@dataclass(frozen=True, slots=True)
class Subject:
    """An architecture, its contract, and where its correct artifacts are."""

    name: str
    given: str
    source: Source
    description: Description
    module: nn.Module
    graph: onnx.ModelProto
    traced: Path

    @property
    def input_names(self) -> list[str]:
        """The contract's inputs in order."""
        return [spec.name for spec in self.description.inputs]


def prepare(name: str, folder: Path) -> Subject:
    """Convert an architecture to ONNX and TorchScript as the product does; every node of the graph has a name."""
    import onnx

    from pytest_modelformats.source.samples import make_samples, rows
    from pytest_modelformats.systems.onnx import from_pytorch
    from pytest_modelformats.systems.torch import pytorch, torchscript_from_pytorch

    folder.mkdir(parents=True, exist_ok=True)
    given = networks.given(name)
    source = _source(name, given)
    description = pytorch.describe(source)
    example = rows(make_samples(description.inputs, 2, 0), 0, 2)
    graph, traced = folder / f"{name}.onnx", folder / f"{name}.ts.pt"
    from_pytorch.convert_dynamo(_job(source, description, example, graph))
    torchscript_from_pytorch.trace(_job(source, description, example, traced))
    model = onnx.load(graph)
    if name == "quantised":
        _store_as_int8(model)
    _name_nodes(model)
    onnx.checker.check_model(model)
    return Subject(name, given, source, description, networks.build(name)[0], model, traced)


def _source(name: str, given: str) -> Source:
    from pytest_modelformats.schema import Source
    from pytest_modelformats.settings.references import importable

    if ":" in given:
        location, search = importable(given)
        return Source(name, location, "factory", "pytorch", search_path=tuple(search))
    return Source(name, given, "state-dict", "pytorch")


def _job(source: Source, description: Description, example: dict[str, np.ndarray], output: Path) -> Any:
    from pytest_modelformats.schema.contract import ConversionJob

    start = Path(source.location)
    contract = (description.inputs, description.outputs, example, {"dynamic": True})
    return ConversionJob(source, start, output, "fp32", "fp32", *contract)


def _name_nodes(model: onnx.ModelProto) -> None:
    taken = {node.name for node in model.graph.node}
    for index, node in enumerate(model.graph.node):
        if not node.name:
            node.name = f"{node.op_type}_{index}"
            while node.name in taken:
                node.name += "_"
            taken.add(node.name)


def _store_as_int8(model: onnx.ModelProto) -> None:
    """Weights on the grid become integers and a DequantizeLinear: the same values, bit for bit.

    Raises: ValueError where a weight does not lie on the grid.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    step = np.float32(networks.STEP)
    for tensor in list(model.graph.initializer):
        weight = numpy_helper.to_array(tensor)
        if weight.dtype != np.float32 or weight.ndim < 2:  # noqa: PLR2004 - biases stay as they are
            continue
        integers = np.round(weight / step).astype(np.int8)
        if not np.array_equal(integers.astype(np.float32) * step, weight):
            raise ValueError(f"the weight {tensor.name} is not on the grid of {step}")
        parts = {"int8": integers, "scale": step.reshape(()), "zero": np.zeros((), np.int8)}
        names = [f"{tensor.name}_{part}" for part in parts]
        model.graph.initializer.remove(tensor)
        arrays = zip(parts.values(), names, strict=True)
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for array, name in arrays)
        node = helper.make_node("DequantizeLinear", names, [tensor.name], name=f"{tensor.name}_dequantised")
        model.graph.node.insert(0, node)
