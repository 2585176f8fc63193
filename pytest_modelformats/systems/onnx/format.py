"""ONNX: recognised by its wire format, referenced by onnx.reference, checked by onnx.checker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConvertError, SourceError, Unsupported
from pytest_modelformats.schema import Description, TensorSpec, classifies
from pytest_modelformats.source import metadata_sizes, sizes, stated_inputs
from pytest_modelformats.systems.onnx import graph as onnx_graph
from pytest_modelformats.systems.onnx import precision as onnx_precision
from pytest_modelformats.systems.onnx import stated as onnx_stated
from pytest_modelformats.systems.onnx import training
from pytest_modelformats.systems.onnx.reference.evaluate import evaluate_onnx
from pytest_modelformats.systems.onnx.wire import sniff_onnx

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import onnx

    from pytest_modelformats.schema import Source
    from pytest_modelformats.schema.contract import Feed


training_nodes = training.training_nodes
relocate = onnx_graph.relocate
stated = onnx_stated.stated
precision = onnx_precision.precision


def sniff(path: Path, head: bytes) -> str | None:
    """Return ``onnx`` for a whole ModelProto, else ``None``; raises SourceError for a damaged ``.onnx``."""
    return sniff_onnx(path, head)


def describe(source: Source) -> Description:
    """State the graph's inputs (initialisers are none) and outputs, with the user's shapes where given."""
    path = Path(source.location)
    model = onnx_graph.load_structure(path)
    onnx_graph.verify_external_data(model, path)
    initialisers = {t.name for t in model.graph.initializer} | {s.values.name for s in model.graph.sparse_initializer}
    inputs = [_spec(v, path) for v in model.graph.input if v.name not in initialisers]
    outputs = [_spec(v, path, output=True) for v in model.graph.output]
    if not outputs:
        msg = f"'{path.name}' has no outputs; there is nothing to compare"
        raise SourceError(msg)
    inputs = [_bounded(spec, model) for spec in inputs]
    merged, outputs = stated_inputs.apply(path.name, inputs, outputs, source.inputs)
    opsets = ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import)
    producer = " ".join(p for p in (model.producer_name, model.producer_version) if p)
    summary = f"ONNX IR {model.ir_version}, opset {opsets}, {len(model.graph.node)} nodes"
    by = f"{summary}, by {producer}" if producer else summary
    said = metadata_sizes.dimensions(merged, {entry.key: entry.value for entry in model.metadata_props})
    known = (*sizes.pinned(inputs, merged), *said)
    return Description(tuple(merged), tuple(outputs), "", classifies(outputs), summary=by, sizes=known)


def evaluate(source: Source, feeds: Sequence[Feed], precision: str) -> tuple[list[list[np.ndarray]], str]:
    """The outputs per feed at ``float64`` or a precision's name, and one line that says by which method."""
    return evaluate_onnx(source, feeds, precision)


def check(artifact: Path) -> None:
    """Run onnx.checker with shape inference; raises ConvertError with what it says."""
    import onnx

    try:
        onnx.checker.check_model(str(artifact), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        msg = f"onnx.checker refuses '{artifact.name}': {onnx_graph.first_line(error)}"
        raise ConvertError(msg) from error


def _spec(value: onnx.ValueInfoProto, path: Path, *, output: bool = False) -> TensorSpec:
    from onnx import helper

    if value.type.WhichOneof("value") != "tensor_type":
        kind = (value.type.WhichOneof("value") or "value without a type").removesuffix("_type")
        article = "an" if kind.startswith("o") else "a"
        msg = (
            f"'{path.name}': '{value.name}' is {article} {kind}; only tensors can be fed and compared, so export the "
            "model with every tensor as an input or output of its own"
        )
        raise Unsupported(msg)
    tensor = value.type.tensor_type
    try:
        dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type).name)
    except KeyError as error:
        msg = f"'{path.name}': '{value.name}' has the unknown element type {tensor.elem_type}"
        raise SourceError(msg) from error
    if not tensor.HasField("shape"):
        return TensorSpec(value.name, dtype, None)
    # An input is never empty: exporters write 0 there for a size that they do not know.
    smallest = 0 if output else 1
    dims = [
        d.dim_value if d.HasField("dim_value") and d.dim_value >= smallest else d.dim_param for d in tensor.shape.dim
    ]
    return TensorSpec(value.name, dtype, stated_inputs.symbolic(dims))


def _bounded(spec: TensorSpec, model: onnx.ModelProto) -> TensorSpec:
    """The spec with the range of values that is safe where an integer input indexes an initialiser (an embedding)."""
    if "int" not in spec.dtype or spec.low is not None:
        return spec
    weights: dict[str, Any] = {t.name: t for t in model.graph.initializer}
    names = {spec.name}
    for node in model.graph.node:  # in topological order, so a Cast comes before what it feeds
        if node.op_type in ("Cast", "Identity") and node.input[0] in names:
            names.add(node.output[0])
    sizes = []
    for node in model.graph.node:
        if node.op_type == "Gather" and node.input[1] in names and node.input[0] in weights:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            sizes.append(weights[node.input[0]].dims[axis])
    return replace(spec, low=0.0, high=float(min(sizes) - 1)) if sizes else spec
