"""Faults in how a graph hangs together: order, layout, indices, dropped and repeated parts; and edits that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.verdict.graph_edits import Fault, Graph, NoSite, attribute, fault, some

if TYPE_CHECKING:
    import random

    import onnx

IMAGE_RANK = 4


@fault("order of a concatenation")
def concat_order(graph: Graph, random: random.Random) -> str:
    """Two parts change places."""
    nodes = some(n for n in graph.of("Concat") if len(n.input) > 1 and len(set(n.input)) > 1)
    node = random.choice(nodes)
    node.input[0], node.input[1] = node.input[1], node.input[0]
    return str(node.name)


@fault("layout swapped")
def layout_swapped(graph: Graph, random: random.Random) -> str:
    """Height and width change places in front of a convolution or a flattening."""
    found = []
    for node in graph.of("Conv", "Reshape", "Flatten"):
        shape = graph.shape(node.input[0])
        if len(shape) == IMAGE_RANK and shape[2] == shape[3] and shape[2] not in (1, None):
            found.append(node)
    node = random.choice(some(found))
    graph.before(node, 0, "Transpose", perm=[0, 1, 3, 2])
    return str(node.name)


@fault("flattened channels last")
def flattened_last(graph: Graph, random: random.Random) -> str:
    """NHWC is flattened where NCHW was."""
    found = []
    for node in graph.of("Reshape", "Flatten"):
        before, after = graph.shape(node.input[0]), graph.shape(node.output[0])
        if len(before) == IMAGE_RANK and len(after) == IMAGE_RANK - 2 and before[2] not in (1, None):
            found.append(node)
    node = random.choice(some(found))
    graph.before(node, 0, "Transpose", perm=[0, 2, 3, 1])
    return str(node.name)


@fault("off-by-one slice")
def slice_off(graph: Graph, random: random.Random) -> str:
    """A slice or an index begins one earlier or later, at the length that it had."""
    import numpy as np

    found = []
    for node in graph.nodes:
        places = {"Slice": (1, 2), "Gather": (1,)}.get(node.op_type, ())
        values = [graph.constant(node.input[i]) for i in places if i < len(node.input)]
        source = graph.shape(node.input[0]) if node.input else []
        if not values or any(v is None or v.size != 1 for v in values) or not source:
            continue
        axis = attribute(node, "axis", 0) if node.op_type == "Gather" else _axis_of(graph, node)
        if axis is not None and source[axis % len(source)] not in (None, 1):
            found.append((node, places, values))
    node, places, values = random.choice(some(found))
    begin = int(values[0].flat[0])
    step = 1 if begin >= 0 and node.op_type == "Gather" and begin == 0 else -1
    if node.op_type == "Slice":
        step = -1 if begin > 0 else 1
    for place, value in zip(places, values, strict=True):
        moved = np.clip(value.astype(np.int64) + step, -(2**62), 2**62).astype(value.dtype)
        graph.set_own_constant(node, place, value if abs(int(value.flat[0])) > 2**31 - 2 else moved)
    return str(node.name)


def _axis_of(graph: Graph, node: onnx.NodeProto) -> int | None:
    axes = graph.constant(node.input[3]) if len(node.input) > 3 and node.input[3] else None  # noqa: PLR2004
    return int(axes.flat[0]) if axes is not None and axes.size == 1 else None


def _integer_input(graph: Graph) -> list[tuple[onnx.NodeProto, int]]:
    from onnx import TensorProto

    integers = (TensorProto.INT64, TensorProto.INT32)
    names = {v.name for v in graph.graph.input if v.type.tensor_type.elem_type in integers}
    return some((node, i) for node in graph.nodes for i, name in enumerate(node.input) if name in names)


@fault("integer clamped")
def integer_clamped(graph: Graph, random: random.Random) -> str:
    """Ids go no further than 7 bits: the last ones of the vocabulary are another's."""
    import numpy as np

    node, index = random.choice(_integer_input(graph))
    limit = graph.add_constant(np.array(127, np.int64), "limit")
    graph.before(node, index, "Min", [limit])
    return str(node.name)


@fault("integer off by one")
def integer_off(graph: Graph, random: random.Random) -> str:
    """Ids are read one too low, down to 0: as with a reserved id that was left out."""
    import numpy as np

    node, index = random.choice(_integer_input(graph))
    name = graph.before(node, index, "Sub", [graph.add_constant(np.array(1, np.int64), "one")])
    inserted = next(n for n in graph.nodes if n.name == name)
    graph.after(inserted, "Max", [graph.add_constant(np.array(0, np.int64), "zero")])
    return str(node.name)


@fault("output order")
def output_order(graph: Graph, _random: random.Random) -> str:
    """Two outputs of one shape carry each other's values under their own names."""
    outputs = [v.name for v in graph.graph.output]
    kinds = {name: (tuple(graph.shape(name)), _type_of(graph, name)) for name in outputs}
    pairs = [(a, b) for i, a in enumerate(outputs) for b in outputs[i + 1 :] if kinds[a] == kinds[b]]
    first, other = some(pairs)[0]
    renamed = {first: other, other: first}
    for node in graph.nodes:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name in renamed:
                    names[i] = renamed[name]
    return str(next(n.name for n in graph.nodes if first in n.output))


def _type_of(graph: Graph, name: str) -> int:
    return int(next(v.type.tensor_type.elem_type for v in graph.graph.output if v.name == name))


@fault("order of the classes")
def class_order(graph: Graph, random: random.Random) -> str:
    """The first two entries of an output change places."""
    import numpy as np

    outputs = [v.name for v in graph.graph.output if len(graph.shape(v.name)) > 1 and graph.shape(v.name)[-1]]
    name = random.choice(some(outputs))
    size = int(graph.shape(name)[-1] or 0)
    order = np.array([1, 0, *range(2, size)], np.int64)
    if size < 2:  # noqa: PLR2004 - two entries are needed to change places
        raise NoSite
    node = next(n for n in graph.nodes if name in n.output)
    graph.after(node, "Gather", [graph.add_constant(order, "order")], axis=-1)
    return str(node.name)


@fault("residual dropped")
def residual_dropped(graph: Graph, random: random.Random) -> str:
    """An addition hands on only one of its two sides."""
    from onnx import helper

    both = [n for n in graph.of("Add") if all(graph.constant(i) is None for i in n.input)]
    node = random.choice(some(both))
    kept = random.choice([i for i in node.input if i not in {v.name for v in graph.graph.input}])
    graph.replace(node, helper.make_node("Identity", [kept], list(node.output)))
    return str(node.name)


@fault("rows mixed")
def rows_mixed(graph: Graph, random: random.Random) -> str:
    """A thousandth of the batch's mean leaks into every row, as with statistics that are still taken."""
    import numpy as np
    from onnx import helper

    node = random.choice(graph.of("Conv", "Gemm", "MatMul"))
    given, n = node.input[0], node.name
    if graph.constant(given) is not None:
        raise NoSite
    axes, share = graph.add_constant(np.array([0], np.int64), "axes"), graph.add_constant(np.array(1e-3, "f"), "share")
    new = (
        helper.make_node("ReduceMean", [given, axes], [f"{n}_mean"], keepdims=1, name=f"{n}_before_mean"),
        helper.make_node("Mul", [f"{n}_mean", share], [f"{n}_share"], name=f"{n}_before_share"),
        helper.make_node("Add", [given, f"{n}_share"], [f"{n}_leaked"], name=f"{n}_before_leak"),
    )
    place = graph.nodes.index(node)
    node.input[0] = f"{n}_leaked"
    for one in reversed(new):
        graph.graph.node.insert(place, one)
    return str(node.name)


def identity_added(graph: Graph, random: random.Random) -> str:
    """No fault: an Identity behind a node."""
    node = random.choice(graph.of("Conv", "Gemm", "MatMul", "LSTM", "GRU"))
    graph.after(node, "Identity")
    return str(node.name)


def halves_added(graph: Graph, random: random.Random) -> str:
    """No fault: a Gemm or convolution of half the weight, twice; a power of two rounds nothing."""
    import numpy as np

    found = [w for w in graph.weights() if w[0].op_type in ("Conv", "MatMul") or (w[0].op_type == "Gemm" and w[1] == 1)]
    node, index, value = random.choice(some(w for w in found if len(w[0].input) <= 2 or w[0].op_type == "MatMul"))  # noqa: PLR2004
    graph.set_own_constant(node, index, (value * np.float32(0.5)).astype(np.float32))
    graph.after(node, "Mul", [graph.add_constant(np.array(2.0, np.float32), "two")])
    return str(node.name)


def bias_apart(graph: Graph, random: random.Random) -> str:
    """No fault: the bias of a Gemm is added by a node of its own."""
    found = [n for n in graph.of("Gemm") if len(n.input) == 3 and graph.constant(n.input[2]) is not None]  # noqa: PLR2004
    node = random.choice(some(found))
    bias = node.input.pop()
    graph.after(node, "Add", [bias])
    return str(node.name)


def nothing(_graph: Graph, _random: random.Random) -> str:
    """No fault: the graph as it is."""
    return ""


FAITHFUL: dict[str, Fault] = {
    name: Fault(name, inject)
    for name, inject in (
        ("no fault: as converted", nothing),
        ("no fault: identity added", identity_added),
        ("no fault: half a weight, doubled", halves_added),
        ("no fault: bias added apart", bias_apart),
    )
}


def every_class() -> dict[str, Any]:
    """Every fault class by name, in the order in which they are defined."""
    import importlib

    from benchmarks.verdict.graph_edits import FAULTS

    for part in ("faults_weights", "faults_operators"):  # they enter their classes when they are imported
        importlib.import_module(f"benchmarks.verdict.{part}")
    return dict(FAULTS)
