"""Parts of an ONNX model as models of their own, and a model with more outputs than it had."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

from pytest_modelformats.source.companions import companions
from pytest_modelformats.systems.onnx.reference import steps as onnx_steps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import onnx

    from pytest_modelformats.systems.onnx.reference.lazy import LazyModel


def cut(
    model: LazyModel, places: Sequence[int], given: Mapping[str, np.ndarray], outputs: Sequence[str], path: Path
) -> dict[str, str]:
    """Write nodes and the constants that they take as a model; returns the dtype of each of its inputs.

    ``given`` holds the float64 values of its inputs; they are stored as ``in_0.npy`` …, in the
    types that the model gives them. Shapes: every dimension as in ``given``.
    """
    import numpy as np
    from onnx import TensorProto, helper

    types = model.types()
    nodes = _with_constants(model, places, set(given))
    needed = {name for node in nodes for name in onnx_steps.takes(node)}
    inputs, dtypes = [], {}
    for index, (name, array) in enumerate(given.items()):
        kind = types.get(name) or (
            TensorProto.FLOAT if array.dtype.kind == "f" else helper.np_dtype_to_tensor_dtype(array.dtype)
        )
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        np.save(path.parent / f"in_{index}.npy", array.astype(dtype), allow_pickle=False)
        inputs.append(helper.make_tensor_value_info(name, kind, list(array.shape)))
        dtypes[name] = str(dtype)
    results = [helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), None) for n in outputs]
    weights = [model.tensor(name) for name in model.tensors if name in needed]
    graph = helper.make_graph(nodes, "part", inputs, results, weights)
    _save(model, graph, path)
    return dtypes


def _with_constants(model: LazyModel, places: Sequence[int], given: set[str]) -> list[onnx.NodeProto]:
    """The nodes at these places, and every constant node that they stand on."""
    makers = {name: i for i, node in enumerate(model.nodes) for name in node.output if name}
    found, waiting = set(places), list(places)
    while waiting:
        for name in onnx_steps.takes(model.nodes[waiting.pop()]):
            place = makers.get(name)
            if place is not None and name not in given and place not in found:
                found.add(place)
                waiting.append(place)
    return [model.nodes[place] for place in sorted(found)]


def _save(model: LazyModel, graph: onnx.GraphProto, path: Path) -> None:
    import onnx
    from onnx import helper

    whole = helper.make_model(
        graph, opset_imports=list(model.structure.opset_import), ir_version=model.structure.ir_version
    )
    onnx.save(whole, str(path))


def expose(model: LazyModel, names: Sequence[str], path: Path) -> None:
    """Write the model with these tensors as further outputs, its weights copied from file to file.

    Source: protobuf encoding, "Last One Wins": a message that comes twice is merged, its repeated fields joined.
    """
    import onnx
    from onnx import TensorProto, helper

    types = model.types()
    more = onnx.ModelProto()
    infos = [helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), None) for n in names]
    more.graph.output.extend(infos)
    shutil.copyfile(model.path, path)
    with path.open("ab") as file:
        file.write(more.SerializeToString())
    for beside in companions(model.path, "onnx"):
        target = path.parent / beside.relative_to(model.path.parent)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(beside, target)


def _link(origin: Path, target: Path) -> None:
    """The same file under another name, or a copy of it where that cannot be."""
    try:
        os.link(origin, target)
    except OSError:
        shutil.copyfile(origin, target)


def prefix(model: LazyModel, output: str, path: Path) -> list[str]:
    """Write what leads to one tensor as a model with that one output; returns the inputs that it takes."""
    from onnx import TensorProto, helper

    types = model.types()
    place = next(i for i, node in enumerate(model.nodes) if output in node.output)
    nodes = _with_constants(model, [place], set(model.inputs))
    needed = {name for node in nodes for name in onnx_steps.takes(node)}
    weights: list[Any] = [model.tensor(name) for name in model.tensors if name in needed]
    inputs = [v for v in model.structure.graph.input if v.name in needed]
    result = helper.make_tensor_value_info(output, types.get(output, TensorProto.FLOAT), None)
    _save(model, helper.make_graph(nodes, "prefix", inputs, [result], weights), path)
    return [v.name for v in inputs]
