"""An ONNX graph that rounds as it runs, for ONNX Runtime: what remains where onnx.reference cannot run a model.

For fp16 and bf16 every operator's floating result passes through a cast and back; for tf32 the
operands of products are split as Veltkamp does, which leaves their 11 leading bits.

Measured in ``systems/onnx/reference/evaluate.py``. At fp16 and bf16 the noise of recurrent networks is 0.6 to 0.9 times
PyTorch's, because the inner steps of LSTM, GRU and RNN are not reached; of all others 0.9 to 1.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelformats.compare.rounding import DROPPED_BITS
from pytest_modelformats.schema import PRECISIONS
from pytest_modelformats.systems.onnx import graph as onnx_graph
from pytest_modelformats.systems.onnx.reference.run import PRODUCTS, RECURRENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

# X, W and R are multiplied.
_RECURRENT_OPERANDS = 3


def insert_rounding(model: onnx.ModelProto, precision: str, sizes: frozenset[str]) -> onnx.ModelProto:
    """The model with rounding nodes added, in place; tensors named in ``sizes`` say how large something is and stay.

    Weights are not touched: fp16 and bf16 ask for them to be rounded before.
    """
    import onnx

    floats = _float_names(onnx.shape_inference.infer_shapes(model)) - sizes
    for graph in list(onnx_graph.graphs(model)):
        nodes = [new for node in graph.node for new in _with_rounding(node, precision, floats)]
        del graph.node[:]
        graph.node.extend(nodes)
    return model


def weight_operands(model: onnx.ModelProto) -> set[str]:
    """The names of what goes into products directly, or through a Transpose, Reshape or Cast."""
    found: set[str] = set()
    for node in onnx_graph.nodes(model):
        operands = _RECURRENT_OPERANDS if node.op_type in RECURRENT else PRODUCTS.get(node.op_type, 0)
        found.update(node.input[:operands])
    return _sources(model, found)


def folded_weights(model: onnx.ModelProto) -> set[str]:
    """The names of the weights of products that a normalisation or a constant factor follows or precedes.

    Converters multiply such a weight by the factor, and round what comes of it.
    """
    constants = {tensor.name for graph in onnx_graph.graphs(model) for tensor in graph.initializer}
    nodes = list(onnx_graph.nodes(model))
    constants.update(name for node in nodes if node.op_type in ("Constant", "Identity") for name in node.output)
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    makers = {name: node for node in nodes for name in node.output}

    def scales(node: onnx.NodeProto | None) -> bool:
        if node is None:
            return False
        return node.op_type == "BatchNormalization" or (
            node.op_type in ("Mul", "Div") and any(name in constants for name in node.input)
        )

    def only(name: str) -> onnx.NodeProto | None:
        """The node that takes a result, where it is one alone: what others take too cannot be folded away."""
        return takers[name][0] if len(takers.get(name, ())) == 1 else None

    def scaled(name: str) -> bool:
        """Whether a factor follows, at once or behind the addition of a constant."""
        taker = only(name)
        added = taker is not None and taker.op_type in ("Add", "Sub") and any(n in constants for n in taker.input)
        return scales(taker) or (added and taker is not None and scales(only(taker.output[0])))

    found: set[str] = set()
    for node in nodes:
        operands = list(node.input)[: PRODUCTS.get(node.op_type, 0)]
        if operands and (scaled(node.output[0]) or any(only(name) and scales(makers.get(name)) for name in operands)):
            found.update(node.input)
    return _sources(model, found)


def _sources(model: onnx.ModelProto, names: set[str]) -> set[str]:
    """The names, and what they are made of by a Transpose, Reshape or Cast."""
    found = set(names)
    for graph in onnx_graph.graphs(model):
        for node in reversed(graph.node):
            if node.op_type in ("Transpose", "Reshape", "Cast", "Identity") and found & set(node.output):
                found.add(node.input[0])
    return found


def _with_rounding(node: onnx.NodeProto, precision: str, floats: set[str]) -> Iterator[onnx.NodeProto]:
    if PRECISIONS[precision].operands_only:
        operands = _RECURRENT_OPERANDS if node.op_type in RECURRENT else PRODUCTS.get(node.op_type, 0)
        for index, name in enumerate(list(node.input)[:operands]):
            if name in floats:
                node.input[index] = f"{name}/{node.output[0]}/{precision}{index}"
                yield from _split(name, node.input[index])
        yield node
        return
    results = [] if node.op_type == "Constant" else [n for n in node.output if n in floats]
    for index, name in enumerate(node.output):
        if name in results:
            node.output[index] = f"{name}/exact"
    yield node
    for name in results:
        yield from _cast(name, precision)


def _cast(name: str, precision: str) -> Iterator[onnx.NodeProto]:
    """From ``name/exact`` to ``name``, by way of a narrower float."""
    from onnx import TensorProto, helper

    narrow = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    yield helper.make_node("Cast", [f"{name}/exact"], [f"{name}/{precision}"], to=narrow)
    yield helper.make_node("Cast", [f"{name}/{precision}"], [name], to=TensorProto.FLOAT)


def _split(name: str, rounded: str) -> Iterator[onnx.NodeProto]:
    """From ``name`` to ``rounded``, which holds its leading bits.

    Source: T. J. Dekker, A floating-point technique for extending the available precision, 1971, section 5.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    factor = numpy_helper.from_array(np.array(2.0 ** DROPPED_BITS["tf32"] + 1, np.float32))
    yield helper.make_node("Constant", [], [f"{rounded}/factor"], value=factor)
    yield helper.make_node("Mul", [name, f"{rounded}/factor"], [f"{rounded}/scaled"])
    yield helper.make_node("Sub", [f"{rounded}/scaled", name], [f"{rounded}/low"])
    yield helper.make_node("Sub", [f"{rounded}/scaled", f"{rounded}/low"], [rounded])


def _float_names(model: onnx.ModelProto) -> set[str]:
    """The names that stand for float32 tensors, in every graph, as far as shape inference knows them."""
    from onnx import TensorProto

    found = set()
    for graph in onnx_graph.graphs(model):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                found.add(value.name)
        found |= {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    return found
