"""Walking and rewriting an ONNX ModelProto: every tensor of it, where its data lie, its floating type."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import MissingDependency, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import onnx

# The attributes that name an element type; ``to`` is Cast's, ``output_datatype`` the window operators'.
TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_datatype", "softmax_precision"})


def load_model(path: Path) -> onnx.ModelProto:
    """The model with its external data, every byte of which was seen to lie inside the model's folder.

    Raises: SourceError, naming the file and what is wrong with it.
    """
    import onnx

    model = load_structure(path)
    verify_external_data(model, path)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (ValueError, OSError, RuntimeError, onnx.checker.ValidationError) as error:
        msg = f"'{path.name}': its external data cannot be read: {first_line(error)}"
        raise SourceError(msg) from error
    return model


def load_structure(path: Path) -> onnx.ModelProto:
    """The model as it stands in the file, external data left where they are."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        msg = f"'{path.name}' cannot be read as an ONNX model: {first_line(error)}"
        raise SourceError(msg) from error


def first_line(error: BaseException) -> str:
    """The first line of an exception's message that says something, else the name of its class."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and the bodies of If, Loop and Scan, the latter also inside local functions."""
    waiting = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while waiting or nodes:
        while waiting:
            graph = waiting.pop()
            yield graph
            nodes.extend(graph.node)
        for attribute in nodes.pop().attribute if nodes else ():
            waiting.extend([attribute.g] if attribute.HasField("g") else [])
            waiting.extend(attribute.graphs)


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node of every graph and local function."""
    for graph in graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that the model carries: initialisers and attributes, sparse ones as their values and indices."""
    for graph in graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in ([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []) + list(
                attribute.sparse_tensors
            ):
                yield from (sparse.values, sparse.indices)


def relocate(path: Path, places: Mapping[str, str]) -> None:
    """Let a file's external tensors be read from other files beside it: old name -> new name.

    Raises: MissingDependency without the library that writes it.
    """
    try:
        from onnx import TensorProto
    except ImportError:
        msg = f"'{path.name}' names the files of its weights, and to rename them the Python package 'onnx' is needed"
        raise MissingDependency(f"{msg} (pip install onnx)") from None
    model = load_structure(path)
    for tensor in tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = places.get(entry.value, entry.value)
    path.write_bytes(model.SerializeToString())


def verify_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Every external tensor lies in a regular file inside the model's folder that is long enough.

    Raises: SourceError, naming the tensor and the location.
    """
    from onnx import TensorProto

    folder = path.parent.resolve()
    for tensor in tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            trouble = _external_trouble(tensor, folder)
            if trouble:
                msg = f"'{path.name}': the data of tensor '{tensor.name}' {trouble}"
                raise SourceError(msg)


def _external_trouble(tensor: onnx.TensorProto, folder: Path) -> str:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location or "\0" in location:
        return "are external, but no usable location is given"
    target = (folder / location).resolve()
    if not target.is_relative_to(folder):
        return f"point to '{location}', outside the model's folder; refused"
    if not target.is_file():
        return f"are expected in '{location}', which does not lie beside the model; copy it there"
    offset, length = entries.get("offset", "0") or "0", entries.get("length", "")
    if not offset.isdecimal() or not (length or "0").isdecimal():
        return f"have the offset '{offset}' and length '{length}' in '{location}', which are no byte counts"
    held = target.stat().st_size - int(offset)
    stated = int(length) if length else held
    needed = _needed_bytes(tensor)
    if stated > held or needed > stated:
        wanted = max(needed, int(length or 0))
        return f"need {wanted} bytes at offset {offset} of '{location}', which has {max(min(held, stated), 0)} there"
    return ""


def _needed_bytes(tensor: onnx.TensorProto) -> int:
    from onnx import helper

    packed = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}
    name = helper.tensor_dtype_to_string(tensor.data_type).rpartition(".")[2]
    bits: int = packed.get(name) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return (math.prod(int(dim) for dim in tensor.dims) * bits + 7) // 8


def narrow_types(target: int) -> frozenset[int]:
    """The element types that :func:`retype` turns into ``target``: the floating ones narrower than it."""
    from onnx import TensorProto

    halves = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
    return frozenset(halves if target == TensorProto.FLOAT else halves | {TensorProto.FLOAT})


def holds(model: onnx.ModelProto, types: frozenset[int]) -> bool:
    """Whether any tensor, input or output of the model has one of these element types."""
    values = [*model.graph.input, *model.graph.output]
    return any(t.data_type in types for t in tensors(model)) or any(
        v.type.tensor_type.elem_type in types for v in values
    )


def computes_in(model: onnx.ModelProto, kind: int) -> bool:
    """Whether anything of the model has an element type, or is cast to it."""
    cast = any(a.name in TYPE_ATTRIBUTES and a.i == kind for node in nodes(model) for a in node.attribute)
    return cast or holds(model, frozenset({kind}))


def narrowed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float64 made float32 throughout, in place: what fp32 is of a model that computes a part finer."""
    from onnx import TensorProto

    if computes_in(model, TensorProto.DOUBLE):
        retype(model, TensorProto.FLOAT, frozenset({TensorProto.DOUBLE}))
    return model


def retype(model: onnx.ModelProto, target: int, narrow: frozenset[int] = frozenset()) -> onnx.ModelProto:
    """Raise the narrower floating types to ``target`` (FLOAT or DOUBLE) throughout, in place, and return the model.

    ``narrow`` are the types that become ``target``, where it is not all the narrower ones.
    """
    narrow = narrow or narrow_types(target)
    for node in list(nodes(model)):
        _retype_node(node, narrow, target)
    for tensor in list(tensors(model)):
        _retype_tensor(tensor, narrow, target)
    for graph in graphs(model):
        for value in [*graph.input, *graph.output, *graph.value_info]:
            _retype_type(value.type, narrow, target)
    for function in model.functions:
        for value in getattr(function, "value_info", ()):  # absent before onnx 1.16
            _retype_type(value.type, narrow, target)
    return model


def _retype_tensor(tensor: onnx.TensorProto, narrow: frozenset[int], target: int) -> None:
    from onnx import helper, numpy_helper

    if tensor.data_type in narrow:
        array = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(target))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _retype_type(kind: Any, narrow: frozenset[int], target: int) -> None:
    which = kind.WhichOneof("value")
    if which in ("tensor_type", "sparse_tensor_type"):
        if getattr(kind, which).elem_type in narrow:
            getattr(kind, which).elem_type = target
    elif which in ("sequence_type", "optional_type"):
        _retype_type(getattr(kind, which).elem_type, narrow, target)
    elif which == "map_type":
        _retype_type(kind.map_type.value_type, narrow, target)


def _retype_node(node: onnx.NodeProto, narrow: frozenset[int], target: int) -> None:
    """Raise what a node states in attributes; a Constant's plain floats become a tensor, defaults become explicit."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    if TensorProto.FLOAT in narrow:
        dtype = helper.tensor_dtype_to_np_dtype(target)
        floats = next((a for a in node.attribute if a.name in ("value_float", "value_floats")), None)
        if node.op_type == "Constant" and floats is not None:
            values = floats.f if floats.name == "value_float" else list(floats.floats)
            tensor = numpy_helper.from_array(np.array(values, dtype))
            node.attribute.remove(floats)
            node.attribute.append(helper.make_attribute("value", tensor))
        if node.op_type == "ConstantOfShape" and not node.attribute:
            node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, dtype))))
        if node.op_type == "GroupNormalization":  # its default is to compute in float32
            stash = [a for a in node.attribute if a.name == "stash_type"]
            for attribute in stash:
                node.attribute.remove(attribute)
            node.attribute.append(helper.make_attribute("stash_type", target))
    for attribute in node.attribute:
        if attribute.name in TYPE_ATTRIBUTES and attribute.i in narrow:
            attribute.i = target
